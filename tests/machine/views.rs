//! What can be seen of a machine from outside: ports, picture, text, console, keys.

use std::time::Duration;

use qimg::machine::Accelerator;
use qimg::machine::screen::png_size;

use crate::small_guest::{NEVER, cache, start, start_with, wait_until};

#[test]
fn the_kernel_chooses_the_port_and_it_leads_to_the_guest() {
    use std::io::Read;
    let guest = start("");
    guest.wait_until_up();
    let port = guest
        .running
        .forwarded_port(22)
        .unwrap()
        .expect("a port is forwarded");
    assert_eq!(guest.running.forwarded_port(23).unwrap(), None);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut banner = [0; 8];
    stream.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
}

#[test]
fn of_a_range_the_first_free_port_is_taken() {
    let guest = start("small.hang=1");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = guest.running.forward((port, port), 80).unwrap_err();
    assert!(error.to_string().contains("are taken"), "{error}");
    let next = guest
        .running
        .forward((port, port.saturating_add(100)), 80)
        .unwrap();
    assert!(next > port);
    assert_eq!(guest.running.forwarded_port(80).unwrap(), Some(next));
}

#[test]
fn a_vnc_server_is_found_and_has_its_password() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let launcher = crate::small_guest::launcher();
    let vnc = [("-vnc", "127.0.0.1:10,to=200,password=on")];
    let start = qimg::machine::Start {
        launcher: &launcher,
        qemu: &crate::small_guest::qemu(),
        arguments: crate::small_guest::arguments(
            directory.path(),
            "small.hang=1",
            &vnc,
            &Accelerator::Tcg,
        ),
        run_directory: directory.path(),
        vnc_password: Some("secret"),
    };
    let running = qimg::machine::Running::start(&start, NEVER).unwrap();
    let (host, port) = running.vnc_address().unwrap().expect("there is a server");
    assert_eq!(host, "127.0.0.1");
    let mut stream =
        std::net::TcpStream::connect((host.as_str(), port.parse::<u16>().unwrap())).unwrap();
    let mut version = [0; 12];
    stream.read_exact(&mut version).unwrap();
    stream.write_all(b"RFB 003.008\n").unwrap();
    let mut kinds = [0; 2];
    stream.read_exact(&mut kinds).unwrap();
    // One way in, which is by password.
    assert_eq!(kinds, [1, 2]);
    let own = std::fs::read(format!("/proc/{}/cmdline", running.id())).unwrap();
    assert!(!String::from_utf8_lossy(&own).contains("secret"));
}

#[test]
fn a_picture_is_a_png_and_stays_when_qemu_is_dead() {
    let mut guest = start("small.hang=1");
    let path = guest.running.screenshot().expect("there is a picture");
    let (width, height) = png_size(&path).unwrap();
    assert!(width >= 640 && height >= 400, "{width}x{height}");
    guest.running.kill();
    assert_eq!(guest.running.report().screenshot, Some(path));
}

#[test]
fn keys_reach_the_screen_and_its_text_is_read() {
    // The screen shows text where the kernel was told of it, which its unpacker does.
    let kernel = cache().join("small/vmlinuz");
    let guest = start_with(
        "console=tty1",
        &[("-kernel", kernel.to_str().unwrap())],
        &Accelerator::Tcg,
    );
    wait_until(
        "the screen shows the prompt",
        Duration::from_secs(60),
        || {
            guest
                .running
                .screen_text()
                .iter()
                .any(|line| line.contains("small login:"))
        },
    );
    for key in ["r", "o", "o", "t"] {
        let keys = [true, false].map(|down| qimg::keyboard::KeyEvent { key, down });
        guest.running.strike(&keys, NEVER).unwrap();
    }
    wait_until("what was typed is there", Duration::from_secs(20), || {
        guest
            .running
            .screen_text()
            .iter()
            .any(|line| line.contains("small login: root"))
    });
}

#[test]
fn the_console_can_be_typed_on() {
    let guest = start("");
    guest.wait_for("small login:");
    let before = guest.running.console().position();
    guest.running.console().send(b"nobody\r").unwrap();
    wait_until("it asks for the password", Duration::from_secs(20), || {
        let (said, _) = guest.running.console().since(before);
        String::from_utf8_lossy(&said).contains("Password:")
    });
    let log = std::fs::read_to_string(guest.directory.path().join("console.log")).unwrap();
    assert!(log.contains("small login:"));
}

#[test]
fn the_log_gets_the_console_whatever_a_template_says_of_serial_ports() {
    let extra = tempfile::tempdir().unwrap();
    let file = extra.path().join("theirs,1.log");
    let value = format!("file:{}", file.display());
    for more in [
        vec![("-nographic", "")],
        vec![("-serial", "stdio")],
        vec![
            ("-serial", "mon:stdio"),
            ("-monitor", "stdio"),
            ("-display", "gtk"),
        ],
        vec![
            ("-nodefaults", ""),
            ("-device", "virtio-net,netdev=user.0"),
            ("-qmp", "stdio"),
        ],
        vec![("-serial", value.as_str()), ("-serial", "null")],
        vec![("-chardev", "stdio,id=a"), ("-serial", "chardev:a")],
    ] {
        let guest = start_with("small.hang=1", &more, &Accelerator::Tcg);
        guest.wait_for("small: hanging");
    }
    let theirs = std::fs::read_to_string(&file).unwrap();
    assert!(theirs.contains("small: hanging"), "{theirs}");
}

#[test]
fn a_held_guest_goes_on() {
    let guest = start("small.hang=1");
    guest.running.pause().unwrap();
    assert_eq!(guest.running.status().unwrap(), "paused");
    guest.running.resume().unwrap();
    assert_eq!(guest.running.status().unwrap(), "running");
    assert_eq!(guest.running.death(), None);
}
