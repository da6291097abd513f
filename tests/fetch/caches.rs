//! The cache: who shares it, what a killed process leaves, what goes and what does not.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qimg::ErrorKind;
use qimg::fetch::{Cache, Event, Options, Prune, Request, fetch};

use super::oracle_tools::must;
use super::server::{Server, file, head, status};
use super::{Bench, noise, read, sha256};

/// What another process does: see [`another_process`].
#[test]
fn in_another_process() {
    let Ok(url) = std::env::var("QIMG_TEST_FETCH_URL") else {
        return;
    };
    let variable = |name: &str| std::env::var(name).unwrap();
    let options = Options::new(Cache::new(variable("QIMG_TEST_FETCH_CACHE")));
    let request = Request {
        urls: &[url],
        checksum: &variable("QIMG_TEST_FETCH_CHECKSUM"),
        signature_key: None,
        target_path: None,
        directory: Path::new("."),
        named: qimg::fetch::NamedFiles::Refuse,
    };
    let fetched = fetch(&request, &options, &|| false, &mut |event| match event {
        Event::Progress { done, .. } => say(&format!("progress {done}")),
        Event::Waiting { process } => say(&format!("waiting {process:?}")),
        other => say(&format!("other {other:?}")),
    })
    .unwrap();
    say(&format!("got cached={}", fetched.cached));
}

fn say(line: &str) {
    // The other end may have been killed, or may not care.
    let _ = writeln!(std::io::stdout(), "\n{line}");
}

/// Gives a file other times than those when it was written.
fn touch(path: &Path, when: &str) {
    must(
        Path::new("/"),
        "touch",
        &["-d", when, path.to_str().unwrap()],
    );
}

fn another_process(bench: &Bench) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "caches::in_another_process", "--nocapture"])
        .env("QIMG_TEST_FETCH_URL", &bench.urls[0])
        .env("QIMG_TEST_FETCH_CACHE", bench.options.cache.directory())
        .env("QIMG_TEST_FETCH_CHECKSUM", &bench.checksum)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Sends the file slowly: a quarter at once, the rest when `open` is set.
fn slow(bytes: Vec<u8>, open: Arc<AtomicBool>) -> Server {
    Server::new(move |request, wire| {
        if open.load(Ordering::Relaxed) {
            return file(request, wire, &bytes, Some("\"1\""));
        }
        let length = ("Content-Length", bytes.len().to_string());
        head(wire, "200 OK", &[length, ("ETag", "\"1\"".into())]);
        let (first, rest) = bytes.split_at(bytes.len() / 4);
        let _ = wire.write_all(first);
        let _ = wire.flush();
        let started = Instant::now();
        while !open.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = wire.write_all(rest);
    })
}

fn part_of(bench: &Bench) -> u64 {
    let items = bench.options.cache.list().unwrap();
    items.iter().map(|item| item.length).sum()
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_processes_download_once_and_the_second_says_for_whom_it_waits() {
    let bytes = noise(4_000_000);
    let open = Arc::new(AtomicBool::new(false));
    let server = slow(bytes.clone(), Arc::clone(&open));
    for expecting in [true, false] {
        open.store(false, Ordering::Relaxed);
        let mut bench = Bench::of(server.url("disk.img"));
        if expecting {
            bench = bench.expecting(&bytes);
        }
        let before = server.requests().len();
        let first = another_process(&bench);
        wait_until("a quarter", || part_of(&bench) >= 1_000_000);
        let second = another_process(&bench);
        std::thread::sleep(Duration::from_millis(500));
        open.store(true, Ordering::Relaxed);
        let id = first.id();
        let (first, second) = (output(first), output(second));
        assert!(first.contains("cached=false"), "{first}");
        assert!(second.contains(&format!("waiting Some({id})")), "{second}");
        assert!(second.contains("cached=true"), "{second}");
        // Without a checksum the server is asked whether the file is still the same.
        let asked = server.requests().len() - before;
        assert_eq!(asked, if expecting { 1 } else { 2 });
        assert_eq!(read(&bench.fetch().unwrap().path), bytes);
    }
}

#[test]
fn a_killed_download_goes_on() {
    let bytes = noise(4_000_000);
    let open = Arc::new(AtomicBool::new(false));
    let server = slow(bytes.clone(), Arc::clone(&open));
    let bench = Bench::of(server.url("disk.img")).expecting(&bytes);
    let mut child = another_process(&bench);
    wait_until("a quarter", || part_of(&bench) >= 1_000_000);
    child.kill().unwrap();
    child.wait().unwrap();
    open.store(true, Ordering::Relaxed);
    let left = part_of(&bench);
    let items = bench.options.cache.list().unwrap();
    assert!(items[0].digest.is_none() && !items[0].in_use, "{items:?}");
    assert_eq!(items[0].url, bench.urls[0]);
    let fetched = bench.fetch().unwrap();
    assert_eq!(read(&fetched.path), bytes);
    let last = server.requests().pop().unwrap();
    assert_eq!(last.from(), usize::try_from(left).ok());
    assert_eq!(last.header("if-range"), Some("\"1\""));
    let items = bench.options.cache.list().unwrap();
    assert_eq!(items.len(), 1);
    assert!(items[0].in_use);
    assert_eq!(items[0].digest, Some(sha256(&bytes)));
    drop(fetched);
    assert!(!bench.options.cache.list().unwrap()[0].in_use);
}

/// What was not synced may be anything after a power loss; without a checksum nobody would notice.
#[test]
fn without_a_checksum_only_what_was_synced_is_gone_on_with() {
    let bytes = noise(4_000_000);
    let open = Arc::new(AtomicBool::new(false));
    let server = slow(bytes.clone(), Arc::clone(&open));
    let bench = Bench::of(server.url("disk.img"));
    let mut child = another_process(&bench);
    wait_until("a quarter", || part_of(&bench) >= 1_000_000);
    child.kill().unwrap();
    child.wait().unwrap();
    open.store(true, Ordering::Relaxed);
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);
    assert_eq!(server.requests().pop().unwrap().from(), None);
}

#[test]
fn a_damaged_entry_is_got_anew() {
    let bytes = noise(100_000);
    let server = Server::of(bytes.clone());
    let mut bench = Bench::of(server.url("disk.img")).expecting(&bytes);
    let path = bench.fetch().unwrap().path;
    let mut damaged = bytes.clone();
    damaged[5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let mut told = Vec::new();
    let fetched = bench.fetch_telling(&mut told).unwrap();
    assert!(!fetched.cached);
    assert!(told[0].contains("Damaged"), "{told:?}");
    assert_eq!(read(&fetched.path), bytes);
    drop(fetched);

    // Times that lie are seen through when asked to.
    bench.options.verify = true;
    assert!(bench.fetch().unwrap().cached);
    // A file that is whole but was touched is believed after it was read.
    touch(&path, "now");
    bench.options.verify = false;
    assert!(bench.fetch().unwrap().cached);
    // What is cut off, too.
    std::fs::write(&path, &bytes[..1000]).unwrap();
    assert!(!bench.fetch().unwrap().cached);
    // An entry without its record is none.
    std::fs::remove_file(path.with_file_name("entry.json")).unwrap();
    assert!(!bench.fetch().unwrap().cached);
    std::fs::write(path.with_file_name("entry.json"), "{").unwrap();
    assert!(!bench.fetch().unwrap().cached);
}

#[test]
fn an_entry_is_found_by_any_of_its_digests_and_from_any_mirror() {
    let bytes = noise(10_000);
    let server = Server::of(bytes.clone());
    let mut bench = Bench::of(server.url("one/disk.img"));
    let mut digester = qimg::digest::Digester::new(&[qimg::digest::DigestKind::Sha512]);
    digester.update(&bytes);
    bench.checksum = digester.finish()[0].to_string();
    assert!(!bench.fetch().unwrap().cached);
    bench.urls = vec![server.url("another/disk.img")];
    assert!(bench.fetch().unwrap().cached);
    let bench = bench.expecting(&bytes);
    assert!(bench.fetch().unwrap().cached);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn without_a_checksum_the_server_is_asked_whether_it_is_still_the_same() {
    let bytes = noise(10_000);
    let served = bytes.clone();
    let server = Server::new(move |request, wire| match request.number {
        0 | 1 => file(request, wire, &served, Some("\"1\"")),
        2 => status(wire, "503 Service Unavailable"),
        _ => file(request, wire, b"another disk", Some("\"2\"")),
    });
    let mut bench = Bench::of(server.url("disk.img"));
    bench.options.http.retries = 0;
    assert!(!bench.fetch().unwrap().cached);
    assert!(bench.fetch().unwrap().cached);
    assert_eq!(server.requests()[1].header("if-none-match"), Some("\"1\""));
    let mut told = Vec::new();
    let fetched = bench.fetch_telling(&mut told).unwrap();
    assert!(fetched.cached);
    assert!(told[0].contains("Stale"), "{told:?}");
    let fetched = bench.fetch().unwrap();
    assert!(!fetched.cached);
    assert_eq!(read(&fetched.path), b"another disk");
    assert_eq!(bench.options.cache.list().unwrap().len(), 2);
}

#[test]
fn what_is_in_use_is_not_pruned() {
    let server = Server::new(|request, wire| {
        let first = request.path.as_bytes()[1];
        file(request, wire, &vec![first; 100_000], Some("\"1\""));
    });
    let bench = |name: &str| Bench::of(server.url(name));
    let mut benches = [bench("a"), bench("b"), bench("c")];
    let cache = benches[0].options.cache.clone();
    for bench in &mut benches {
        bench.options.cache = cache.clone();
    }
    let held = benches[0].fetch().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    for bench in &benches[1..] {
        drop(bench.fetch().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let items = cache.list().unwrap();
    let urls: Vec<_> = items.iter().map(|item| item.url.clone()).collect();
    assert_eq!(urls, [server.url("c"), server.url("b"), server.url("a")]);
    assert!(
        items
            .iter()
            .all(|item| item.length == 100_000 && item.size >= 100_000)
    );

    assert!(
        cache
            .prune(Prune::OlderThan(Duration::from_secs(3600)))
            .unwrap()
            .removed
            .is_empty()
    );
    let pruned = cache.prune(Prune::Limit(250_000)).unwrap();
    assert_eq!(pruned.kept.len(), 1);
    assert_eq!(pruned.kept[0].url, server.url("a"));
    let removed: Vec<_> = pruned.removed.iter().map(|item| item.url.clone()).collect();
    assert_eq!(removed, [server.url("b")]);
    assert_eq!(read(&held.path), [b'a'; 100_000]);
    let pruned = cache.prune(Prune::All).unwrap();
    assert_eq!((pruned.removed.len(), pruned.kept.len()), (1, 1));
    drop(held);
    let pruned = cache.prune(Prune::OlderThan(Duration::ZERO)).unwrap();
    assert_eq!((pruned.removed.len(), pruned.left), (1, 0));
    // Nothing is left of any of them.
    for directory in ["entries", "downloads", "urls"] {
        let left = std::fs::read_dir(cache.directory().join(directory)).unwrap();
        assert_eq!(left.count(), 0, "{directory}");
    }
    assert!(Cache::new("/nowhere/at/all").list().unwrap().is_empty());
}

#[test]
fn a_target_is_downloaded_to_and_kept_while_it_is_right() {
    let bytes = noise(50_000);
    let server = Server::of(bytes.clone());
    let mut bench = Bench::of(server.url("disk.img")).expecting(&bytes);
    bench.target = Some("images/base.img".into());
    std::fs::create_dir(bench.path("images")).unwrap();
    let fetched = bench.fetch().unwrap();
    assert_eq!(fetched.path, bench.path("images/base.img"));
    assert_eq!(read(&fetched.path), bytes);
    let inode = fetched.path.metadata().unwrap().ino();
    assert!(bench.fetch().unwrap().cached);
    assert_eq!(server.requests().len(), 1);
    std::fs::write(&fetched.path, b"something else").unwrap();
    assert!(!bench.fetch().unwrap().cached);
    assert_ne!(fetched.path.metadata().unwrap().ino(), inode);
    // Without a checksum, by what the server says.
    bench.checksum.clear();
    assert!(bench.fetch().unwrap().cached);
    bench.target = Some("images".into());
    assert_eq!(bench.fetch().unwrap().path, bench.path("images/disk.img"));
    let left: Vec<_> = std::fs::read_dir(bench.path("images")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_local_file_is_used_where_it_is_and_read_again_only_if_it_was_written() {
    let bytes = noise(300_000);
    let bench = Bench::of("file:images/disk%20one.img").expecting(&bytes);
    let path = bench.write("images/disk one.img", &bytes);
    touch(&path, "2001-02-03");
    // What was written a moment ago may be written again in the same moment: it is not remembered.
    assert!(bench.fetch().is_ok());
    let remembered = bench.options.cache.directory().join("files");
    assert!(!remembered.exists());
    std::thread::sleep(Duration::from_millis(2100));
    let fetched = bench.fetch().unwrap();
    assert_eq!(std::fs::read_dir(&remembered).unwrap().count(), 1);
    assert!(bench.fetch().is_ok());
    assert_eq!(
        (fetched.path, fetched.entry.is_some()),
        (path.clone(), false)
    );
    let mut other = bytes.clone();
    other[7] ^= 1;
    std::fs::write(&path, &other).unwrap();
    // Even if its times pretend otherwise.
    touch(&path, "2001-02-03");
    let error = bench.fetch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let bench = Bench::of("none.img");
    assert!(bench.fetch().unwrap_err().to_string().contains("none.img"));
    let bench = Bench::of("empty.img");
    bench.write("empty.img", b"");
    assert!(bench.fetch().unwrap_err().to_string().contains("empty"));
    let bench = Bench::of("s3::https://bucket/x");
    assert_eq!(bench.fetch().unwrap_err().kind(), ErrorKind::Unsupported);
}
