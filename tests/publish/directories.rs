//! Directories with a stream of versions.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use qimg::publish::Original;
use qimg::publish::directory::{Index, Published, Request, parse_index, publish};
use qimg::publish::s3::LEAST_PART;

use crate::{Program, bytes, oracle_tools};

fn request(directory: &Path, version: Option<&str>) -> Request {
    Request {
        directory: directory.to_owned(),
        name: "web.qcow2".into(),
        version: version.map(str::to_owned),
        default_version: "1".into(),
        time: 1_700_000_000,
        keep: None,
    }
}

fn put(file: &Path, request: &Request) -> qimg::Result<Published> {
    let original = Original::read(file, LEAST_PART, &|| false, &mut |_| {})?;
    publish(&original, request, &|| false, &mut |_| {})
}

fn index(directory: &Path) -> Index {
    parse_index(&std::fs::read(directory.join("index.json")).unwrap()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn versions_follow_one_another_with_sums_that_are_right() {
    let program = Program::new();
    let directory = program.path("stream/web");
    for version in 1..=3 {
        program.file("web.qcow2", &bytes(1 << 20, version));
        let version = version.to_string();
        let done = program.json(&[
            "publish",
            "web.qcow2",
            "--to",
            "stream/web",
            "--version-name",
            &version,
        ]);
        assert_eq!(done["was-there"], false);
    }
    assert_eq!(
        names(&directory),
        [".lock", "1", "2", "3", "SHA256SUMS", "index.json", "latest"]
    );
    assert_eq!(
        std::fs::read(directory.join("latest/web.qcow2")).unwrap(),
        bytes(1 << 20, 3)
    );
    oracle_tools::must(&directory, "sha256sum", &["--strict", "-c", "SHA256SUMS"]);
    oracle_tools::must(
        &directory.join("2"),
        "sha256sum",
        &["--strict", "-c", "SHA256SUMS"],
    );
    assert_eq!(index(&directory).latest, "3");
    // The same once more is no version, unless one is asked for.
    let again = program.json(&["publish", "web.qcow2", "--to", "stream/web"]);
    assert_eq!(
        (again["was-there"].as_bool(), again["version"].as_str()),
        (Some(true), Some("3"))
    );
    let fourth = program.json(&[
        "publish",
        "web.qcow2",
        "--to",
        "stream/web",
        "--version-name",
        "4",
        "--keep",
        "2",
    ]);
    assert_eq!(fourth["removed"], serde_json::json!(["1", "2"]));
    assert_eq!(
        names(&directory),
        [".lock", "3", "4", "SHA256SUMS", "index.json", "latest"]
    );
    oracle_tools::must(&directory, "sha256sum", &["--strict", "-c", "SHA256SUMS"]);
    // A version stays what it is.
    program.file("web.qcow2", b"another");
    let said = program.fails(
        1,
        &[
            "publish",
            "web.qcow2",
            "--to",
            "stream/web",
            "--version-name",
            "4",
        ],
    );
    assert!(
        said.contains("version 4 is there, with another file"),
        "{said}"
    );
    // Another file may join it.
    program.json(&[
        "publish",
        "web.qcow2",
        "--to",
        "stream/web",
        "--version-name",
        "4",
        "--name",
        "web.txt",
    ]);
    oracle_tools::must(
        &directory.join("4"),
        "sha256sum",
        &["--strict", "-c", "SHA256SUMS"],
    );
    assert_eq!(index(&directory).versions[1].files.len(), 2);
    // Without a version, it is the time.
    program.file("web.qcow2", b"a third");
    let timed = program.json(&["publish", "web.qcow2", "--to", "stream/web"]);
    assert_eq!(timed["version"].as_str().unwrap().len(), 14, "{timed}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let program = Program::new();
    program.file("web.qcow2", b"x");
    for version in [
        "../up",
        "",
        ".hidden",
        "a/b",
        "latest",
        "index.json",
        "a\nb",
    ] {
        let said = program.fails(
            1,
            &[
                "publish",
                "web.qcow2",
                "--to",
                "d",
                "--version-name",
                version,
            ],
        );
        assert!(said.contains("cannot be a version"), "{said}");
    }
    program.fails(1, &["publish", "web.qcow2", "--to", "d", "--name", "../up"]);
    assert!(!program.path("d").exists());
}

#[test]
fn a_publish_that_is_interrupted_leaves_the_stream_as_it_was() {
    let program = Program::new();
    let directory = program.path("d");
    let first = program.file("a", &bytes(1 << 20, 1));
    put(&first, &request(&directory, Some("1"))).unwrap();
    let before = (
        names(&directory),
        std::fs::read(directory.join("index.json")).unwrap(),
    );
    let second = program.file("b", &bytes(96 << 20, 2));
    let original = Original::read(&second, LEAST_PART, &|| false, &mut |_| {}).unwrap();
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let stop = || LOOKS.fetch_add(1, Ordering::Relaxed) > 0;
    let ended = publish(
        &original,
        &request(&directory, Some("2")),
        &stop,
        &mut |_| {},
    );
    if let Err(error) = ended {
        assert_eq!(error.kind(), qimg::ErrorKind::Cancelled);
        let after = (
            names(&directory),
            std::fs::read(directory.join("index.json")).unwrap(),
        );
        assert_eq!(before, after);
    }
    // What a killed one has left is swept away by the next.
    std::fs::create_dir(directory.join(".unfinished-9")).unwrap();
    std::fs::write(directory.join(".unfinished-9/part"), b"half").unwrap();
    // A version that has its name already, and no index names.
    std::fs::create_dir_all(directory.join("3")).unwrap();
    std::fs::copy(&first, directory.join("3/web.qcow2")).unwrap();
    put(&first, &request(&directory, Some("3"))).unwrap();
    assert!(!directory.join(".unfinished-9").exists());
    oracle_tools::must(&directory, "sha256sum", &["--strict", "-c", "SHA256SUMS"]);
    let other = program.file("c", b"other");
    std::fs::create_dir_all(directory.join("4")).unwrap();
    std::fs::copy(&first, directory.join("4/web.qcow2")).unwrap();
    let error = put(&other, &request(&directory, Some("4"))).unwrap_err();
    assert!(error.to_string().contains("version 4 is there"), "{error}");
}

#[test]
fn those_that_publish_at_the_same_time_wait_for_one_another() {
    let program = Program::new();
    let directory = program.path("d");
    std::thread::scope(|scope| {
        for number in 0..6_u64 {
            let (program, directory) = (&program, &directory);
            scope.spawn(move || {
                let file = program.file(&format!("f{number}"), &bytes(2 << 20, number + 1));
                put(&file, &request(directory, Some(&format!("v{number}")))).unwrap();
            });
        }
    });
    let index = index(&directory);
    assert_eq!(index.versions.len(), 6);
    let output = oracle_tools::must(&directory, "sha256sum", &["--strict", "-c", "SHA256SUMS"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 6);
    assert_eq!(
        std::fs::read_link(directory.join("latest")).unwrap(),
        Path::new(&index.latest)
    );
}

#[test]
fn an_index_that_is_none_stops_the_publish() {
    let program = Program::new();
    std::fs::create_dir(program.path("d")).unwrap();
    program.file("a", b"x");
    for text in [
        "{",
        "{\"format\":2,\"latest\":\"\",\"versions\":[]}",
        "{\"format\":1,\"latest\":\"\",\"versions\":[{\"version\":\"../x\",\"published\":0,\"files\":[]}]}",
    ] {
        program.file("d/index.json", text.as_bytes());
        program.fails(1, &["publish", "a", "--to", "d"]);
        assert_eq!(
            std::fs::read(program.path("d/index.json")).unwrap(),
            text.as_bytes()
        );
    }
}
