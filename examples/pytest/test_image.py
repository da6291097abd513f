"""What an image has to be like, in Python. `qimg test` says most of this in YAML, and in less time: it asks all at once."""


def test_it_is_a_linux(machine):
    said = machine.run("uname -s")
    assert (said.returncode, said.stdout) == (0, "Linux\n")


def test_root_has_no_password(machine):
    said = machine.root("grep '^root:' /etc/shadow")
    assert said.stdout.split(":")[1][:1] in ("*", "!")


def test_ssh_answers_on_its_port(machine):
    assert machine.run("true").returncode == 0
