//! A name found inside an image is opened only by the user's word, and never as more than a path.

mod oracle;

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use oracle::{Scratch, qemu_img};
use qimg::image::{BackingPolicy, Chain, Depth, Image, OpenOptions};
use qimg::source::Source;
use qimg::{Error, ErrorKind, Result};

fn chain(path: &str, backing: BackingPolicy) -> Result<Chain> {
    let options = OpenOptions {
        backing,
        ..OpenOptions::default()
    };
    Image::open(path, &options)?.chain(Depth::Chain, None)
}

fn first_byte(chain: &Chain) -> u8 {
    let mut bytes = [0];
    chain.reader().read_at(0, &mut bytes).unwrap();
    bytes[0]
}

/// An overlay called `name` that names `backing`, whatever that is.
fn overlay(scratch: &Scratch, name: &str, backing: &str, format: &str) -> String {
    let path = scratch.path(name);
    qemu_img(&[
        "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, &path, "1M",
    ]);
    path
}

/// An image with an external data file that it calls `name`.
fn split(scratch: &Scratch, name: &str) -> String {
    let path = scratch.path("split.qcow2");
    // As long as the name that it is exchanged for.
    let placeholder = format!("{}/{}", scratch.directory(), "d".repeat(name.len()));
    let placeholder = placeholder[..name.len()].to_owned();
    let option = format!("data_file={placeholder}");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &option, &path, "1M"]);
    patch(&path, placeholder.as_bytes(), name.as_bytes());
    path
}

fn patch(path: &str, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|part| part == from);
    bytes[at.unwrap()..][..to.len()].copy_from_slice(to);
    std::fs::write(path, bytes).unwrap();
}

fn qimg(arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args(["20", env!("CARGO_BIN_EXE_qimg")])
        .args(arguments)
        .output()
        .unwrap()
}

fn assert_refused(error: &Error, name: &str) {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(name), "{error}");
    assert!(error.remedy().unwrap().contains("--backing"), "{error}");
}

#[test]
fn by_default_nothing_is_opened_and_the_way_out_is_named() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("base.raw"), vec![7; 1 << 20]).unwrap();
    let top = overlay(&scratch, "top.qcow2", "base.raw", "raw");
    assert_refused(
        &chain(&top, BackingPolicy::default()).unwrap_err(),
        "base.raw",
    );
    let data = scratch.path("data.raw");
    let path = split(&scratch, &data);
    assert_refused(
        &chain(&path, BackingPolicy::default()).unwrap_err(),
        "data.raw",
    );
    for command in ["convert", "compress"] {
        let out = scratch.path("out.qcow2");
        let output = qimg(&[command, &path, &out]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("data.raw") && said.contains("--backing"),
            "{said}"
        );
        assert!(!std::path::Path::new(&out).exists());
    }
}

#[test]
fn beside_opens_what_lies_below_the_images_directory() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path("images/deep")).unwrap();
    std::fs::write(scratch.path("images/deep/base.raw"), vec![7; 1 << 20]).unwrap();
    std::fs::write(scratch.path("outside.raw"), vec![9; 1 << 20]).unwrap();
    symlink("deep/base.raw", scratch.path("images/inner")).unwrap();
    let absolute = scratch.path("images/deep/base.raw");
    for name in [
        "deep/base.raw",
        "./deep/../deep/base.raw",
        "inner",
        &absolute,
    ] {
        let top = overlay(&scratch, "images/top.qcow2", name, "raw");
        let chain =
            chain(&top, BackingPolicy::Beside).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(first_byte(&chain), 7);
    }
}

#[test]
fn beside_lets_nothing_lead_out() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path("images/deep")).unwrap();
    std::fs::write(scratch.path("outside.raw"), vec![9; 1 << 20]).unwrap();
    symlink("../outside.raw", scratch.path("images/link")).unwrap();
    symlink("..", scratch.path("images/up")).unwrap();
    symlink(scratch.path("outside.raw"), scratch.path("images/absolute")).unwrap();
    symlink("/proc/self", scratch.path("images/magic")).unwrap();
    let outside = scratch.path("outside.raw");
    for name in [
        "../outside.raw",
        "deep/../../outside.raw",
        "link",
        "up/outside.raw",
        "absolute",
        "magic/exe",
        &outside,
        "/etc/passwd",
    ] {
        let top = overlay(&scratch, "images/top.qcow2", name, "raw");
        let error = chain(&top, BackingPolicy::Beside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{name}: {error}");
        assert!(error.remedy().unwrap().contains("--backing any"), "{name}");
    }
    // Any path is a word of the user's.
    let top = overlay(&scratch, "images/top.qcow2", "up/outside.raw", "raw");
    assert_eq!(first_byte(&chain(&top, BackingPolicy::Any).unwrap()), 9);
}

#[test]
fn a_data_file_is_under_the_same_policy() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("images")).unwrap();
    std::fs::write(scratch.path("outside.raw"), vec![9; 1 << 20]).unwrap();
    let outside = scratch.path("outside.raw");
    let path = split(&scratch, &outside);
    let moved = scratch.path("images/split.qcow2");
    std::fs::rename(&path, &moved).unwrap();
    let error = chain(&moved, BackingPolicy::Beside).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    chain(&moved, BackingPolicy::Any).unwrap();
}

#[test]
fn no_protocol_is_ever_followed() {
    let scratch = Scratch::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::fs::write(scratch.path("base.raw"), vec![7; 1 << 20]).unwrap();
    let inner = scratch.path("base.raw");
    let names = [
        format!("nbd://127.0.0.1:{port}/an-export-with-a-long-name-so-that-it-fits"),
        format!("nbd:127.0.0.1:{port}:exportname=an-export-with-a-long-name"),
        format!("http://127.0.0.1:{port}/an-image-with-a-long-name-so-that-it-fits.raw"),
        format!("json:{{\"driver\":\"nbd\",\"host\":\"127.0.0.1\",\"port\":\"{port}\"}}"),
        format!("json:{{\"driver\":\"file\",\"filename\":\"{inner}\"}}"),
        format!("file:{inner}"),
        "fat:rw:/etc".to_owned(),
    ];
    for name in &names {
        let top = overlay(&scratch, "top.qcow2", name, "raw");
        for policy in [
            BackingPolicy::Deny,
            BackingPolicy::Beside,
            BackingPolicy::Any,
        ] {
            let error = chain(&top, policy).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Refused | ErrorKind::Unsupported),
                "{error}"
            );
        }
        let out = scratch.path("out.qcow2");
        for arguments in [
            &["info", &top][..],
            &["info", "--backing-chain", "--backing", "any", &top],
            &["check", &top],
            &["map", "--backing", "any", &top],
            &["convert", "--backing", "any", "-O", "qcow2", &top, &out],
            &["compress", "--flatten", "--backing", "any", &top, &out],
            &["compare", "--backing", "any", &top, &inner],
        ] {
            let output = qimg(arguments);
            assert_ne!(
                output.status.code(),
                Some(124),
                "{arguments:?} hangs on {name}"
            );
            assert!(
                output.status.code().is_some(),
                "{arguments:?} {name}: {output:?}"
            );
        }
        if name.len() > scratch.directory().len() + 2 {
            let path = split(&scratch, name);
            let error = chain(&path, BackingPolicy::Any).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        }
    }
    let accepted = listener.accept();
    assert_eq!(accepted.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn info_and_check_open_no_other_file() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for (name, format) in [
        ("fifo", "raw"),
        ("nowhere.qcow2", "qcow2"),
        ("/dev/tty", "raw"),
    ] {
        let top = overlay(&scratch, "top.qcow2", name, format);
        for arguments in [
            &["info", &top][..],
            &["info", "--json", &top],
            &["check", &top],
        ] {
            let output = qimg(arguments);
            assert!(output.status.success(), "{arguments:?} {name}: {output:?}");
        }
        let said = qimg(&["info", &top]).stdout;
        assert!(String::from_utf8_lossy(&said).contains(name));
        // And whoever opens it is not held up by it.
        assert!(chain(&top, BackingPolicy::Any).is_err());
    }
}

#[test]
fn a_backing_file_without_a_recorded_format_is_refused() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("base.raw"), vec![7; 1 << 20]).unwrap();
    let top = overlay(&scratch, "top.qcow2", "base.raw", "raw");
    // The extension becomes one that nobody knows.
    patch(&top, &[0xe2, 0x79, 0x2a, 0xca], &[0x11, 0x22, 0x33, 0x44]);
    let error = chain(&top, BackingPolicy::Any).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("format"), "{error}");
    assert!(error.remedy().unwrap().contains("-F"));
}

#[test]
fn a_raw_backing_file_is_raw_whatever_a_guest_wrote_into_it() {
    let scratch = Scratch::new();
    scratch.copy_testdata("chain-top.qcow2");
    let bytes = std::fs::read(scratch.path("chain-top.qcow2")).unwrap();
    let top = overlay(&scratch, "top.qcow2", "chain-top.qcow2", "raw");
    let chain = chain(&top, BackingPolicy::Beside).unwrap();
    let mut read = vec![0; bytes.len().min(1 << 20)];
    chain.reader().read_at(0, &mut read).unwrap();
    assert!(read == bytes[..read.len()]);
}

#[test]
fn a_chain_that_bites_its_tail_or_never_ends_is_refused() {
    let scratch = Scratch::new();
    let first = overlay(&scratch, "a.qcow2", "b.qcow2", "qcow2");
    overlay(&scratch, "b.qcow2", "a.qcow2", "qcow2");
    let error = chain(&first, BackingPolicy::Any).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let own = overlay(&scratch, "own.qcow2", "own.qcow2", "qcow2");
    assert_eq!(
        chain(&own, BackingPolicy::Beside).unwrap_err().kind(),
        ErrorKind::Corrupt
    );

    std::fs::write(scratch.path("0.qcow2"), vec![7; 1 << 20]).unwrap();
    for number in 1..=256 {
        let format = if number == 1 { "raw" } else { "qcow2" };
        let behind = format!("{}.qcow2", number - 1);
        overlay(&scratch, &format!("{number}.qcow2"), &behind, format);
    }
    assert_eq!(
        first_byte(&chain(&scratch.path("255.qcow2"), BackingPolicy::Beside).unwrap()),
        7
    );
    let error = chain(&scratch.path("256.qcow2"), BackingPolicy::Beside).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
