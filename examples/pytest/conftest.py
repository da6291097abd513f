"""A machine made of an image, for tests in Python.

`qimg run --json IMAGE` boots the image from a throwaway overlay, prints one line of JSON once SSH answers, and stays until
it is ended. The fixture hands over what that line says:

    host, port, user, key_file   how to log in
    run(command)                 runs a shell command in the guest: exit code, stdout, stderr
    root(command)                the same by sudo

The image is the first of: `--image FILE`, `$QIMG_IMAGE`. A machine is started once for all tests of a session.
"""

import json
import os
import select
import signal
import subprocess
import time

import pytest

# Emulated guests take minutes.
PATIENCE = 1200


def pytest_addoption(parser):
    parser.addoption("--image", default=os.environ.get("QIMG_IMAGE"), help="the image to test")
    parser.addoption("--qimg", default=os.environ.get("QIMG", "qimg"), help="the program qimg")
    parser.addoption("--qimg-option", action="append", default=[], help="a further option of `qimg run`")


class Machine:
    def __init__(self, process, details):
        self.process = process
        self.details = details
        self.host = details["host"]
        self.port = int(details["port"])
        self.user = details["user"]
        self.key_file = details.get("key_file") or details["key-file"]

    def ssh(self):
        """The words of an ssh command line, without the guest's command."""
        return [
            "ssh", "-i", self.key_file, "-p", str(self.port),
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
            # The machine is made for this test, and reached on the loopback address.
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            f"{self.user}@{self.host}",
        ]

    def run(self, command, timeout=300):
        return subprocess.run(self.ssh() + [command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    def root(self, command, timeout=300):
        quoted = command.replace("'", "'\\''")
        return self.run(f"sudo -n sh -c '{quoted}'", timeout)


def first_line(process, patience):
    """The first line of JSON, or why there is none."""
    end = time.monotonic() + patience
    buffered = b""
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            piece = os.read(process.stdout.fileno(), 65536)
            buffered += piece
            for line in buffered.split(b"\n")[:-1]:
                if line.startswith(b"{"):
                    return json.loads(line)
            if not piece:
                break
    raise RuntimeError(f"the machine did not come up: exit code {process.poll()}")


@pytest.fixture(scope="session")
def machine(request):
    image = request.config.getoption("--image")
    if not image:
        pytest.fail("name an image: --image FILE, or QIMG_IMAGE")
    command = [request.config.getoption("--qimg"), "run", "--json", *request.config.getoption("--qimg-option"), image]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        yield Machine(process, first_line(process, PATIENCE))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
