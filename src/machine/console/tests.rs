use super::*;

fn lines(text: &[u8]) -> Vec<String> {
    last_lines([text], 100)
}

#[test]
fn what_is_for_terminals_becomes_plain_text() {
    for (said, shown) in [
        ("plain\r\n", "plain"),
        ("\x1b[H\x1b[J\x1b[1;31mred\x1b[0m text\n", "red text"),
        ("\x1b]0;a title\x07named\n", "named"),
        ("\x1b]0;a title\x1b\\named\n", "named"),
        ("\x1b(Bset\n", "set"),
        ("10%\r20%\r30%\n", "30%"),
        ("abx\x08c\n", "abc"),
        ("a\tb\u{0}\u{7}c\n", "a bc"),
        ("\x1b]0;unended\nnext\n", "next"),
        ("\x1b[12\nnext\n", "next"),
        ("caf\u{e9} \u{202e}evil\n", "caf\u{e9} evil"),
        ("no end", "no end"),
    ] {
        assert_eq!(lines(said.as_bytes()), [shown], "{said:?}");
    }
    assert_eq!(lines(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
    assert_eq!(lines("x".repeat(10_000).as_bytes())[0].len(), LONGEST_LINE);
    assert_eq!(
        last_lines([b"a\n\n \nb\n".as_slice(), b"c\nd"], 2),
        ["c", "d"]
    );
}

#[test]
fn text_that_is_placed_by_the_cursor_is_lines() {
    let said = b"\x1b[01;01HBooting\x1b[02;01Hline two\x1b[07;01HShell> ";
    assert_eq!(lines(said), ["Booting", "line two", "Shell>"]);
}

#[test]
fn pieces_change_nothing() {
    let text =
        "\x1b[1mgrub rescue>\x1b[0m caf\u{e9}\r\n[ 1.0] Kernel panic - not syncing: VFS\r\nab\rc\n"
            .as_bytes();
    let whole = lines(text);
    for size in 1..text.len() {
        assert_eq!(last_lines(text.chunks(size), 100), whole);
    }
}

#[test]
fn signs_are_found_in_lines_and_prompts() {
    for (line, sign) in [
        (
            "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
            Some(Sign::KernelPanic),
        ),
        (
            "You are in emergency mode. After logging in, type",
            Some(Sign::EmergencyMode),
        ),
        ("grub rescue> ", Some(Sign::BootLoaderPrompt)),
        ("(initramfs) ", Some(Sign::InitramfsPrompt)),
        (
            "ALERT!  /dev/vda1 does not exist.  Dropping to a shell!",
            Some(Sign::InitramfsPrompt),
        ),
        ("No bootable device.", Some(Sign::NoBootableDevice)),
        ("echo the grub rescue> prompt", None),
        ("update-initramfs: (initramfs)", None),
        ("Linux version 6.1", None),
    ] {
        assert_eq!(sign_in(line), sign, "{line}");
    }
    let text = b"\x1b[32mok\x1b[0m\r\nKernel panic - not syncing: x\r\n(initramfs) ";
    for size in 1..text.len() {
        let mut watch = Watch::default();
        let mut found = Vec::new();
        for piece in text.chunks(size) {
            watch.push(piece, &mut |sign, _| found.push(sign));
        }
        assert_eq!(found, [Sign::KernelPanic, Sign::InitramfsPrompt], "{size}");
    }
}

#[test]
fn memory_is_bounded_and_positions_go_on() {
    let mut memory = Memory::default();
    for _ in 0..100 {
        memory.add(&[b'x'; 10_000]);
    }
    memory.add(b"end");
    assert_eq!(memory.end.len(), REMEMBERED);
    assert_eq!(memory.came, 1_000_003);
}

#[test]
fn a_console_is_kept_in_file_and_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console.log");
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut console = Console::follow(ours, Log::create(&path).unwrap(), |_, _| {}).unwrap();
    theirs.write_all(b"one\r\ntwo\r\n").unwrap();
    console.send(b"typed").unwrap();
    let mut typed = [0; 5];
    theirs.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"typed");
    drop(theirs);
    console.drain();
    assert_eq!(console.tail(1), ["two"]);
    assert_eq!(console.position(), 10);
    assert_eq!(console.since(5), (b"two\r\n".to_vec(), 10));
    assert_eq!(console.since(99).0, b"");
    assert_eq!(
        crate::store::read_file(&path, 100).unwrap(),
        b"one\r\ntwo\r\n"
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
