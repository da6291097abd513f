//! Uploads to a real S3 server, on a wire that is not always good.

use std::process::Stdio;
use std::time::{Duration, Instant};

use qimg::publish::s3::{self, Credentials, LEAST_PART, Style, Target, Verify};
use qimg::publish::{Event, Original};

use crate::servers::{KEY, SECRET, Store, Wire};
use crate::{Program, bytes, http, sum};

/// Seven parts of five MiB, the last one shorter.
const LENGTH: usize = 33 << 20;

fn credentials() -> Credentials {
    Credentials {
        key: KEY.into(),
        secret: SECRET.into(),
        token: None,
    }
}

fn target(endpoint: &str, key: &str) -> Target {
    Target::new(endpoint, "eu-test-1", "images", key)
}

fn original(path: &std::path::Path) -> Original {
    Original::read(path, LEAST_PART, &|| false, &mut |_| {}).unwrap()
}

#[test]
fn an_upload_in_parts_is_signed_as_a_whole_and_arrives_equal() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let path = program.file("web.qcow2", &bytes(LENGTH, 1));
    let done = program.json(&[
        "publish",
        "web.qcow2",
        "--to",
        "s3://images/a dir/",
        "--endpoint",
        &wire.endpoint(),
        "--part-size",
        "5M",
        "--acl",
        "public-read",
        "--content-type",
        "application/x-qemu-disk",
        "--storage-class",
        "STANDARD_IA",
        "--region",
        "eu-test-1",
    ]);
    assert_eq!(done["parts"], 7);
    assert_eq!(done["was-there"], false);
    assert_eq!(done["key"], "a dir/web.qcow2");
    assert_eq!(done["sha256"], sum("sha256sum", &path).as_str());
    assert_eq!(done["md5"], sum("md5sum", &path).as_str());
    assert!(done["etag"].as_str().unwrap().ends_with("-7"));
    assert_eq!(
        std::fs::read(store.object("a dir/web.qcow2")).unwrap(),
        bytes(LENGTH, 1)
    );
    let seen = wire.seen();
    let begun = seen
        .iter()
        .find(|seen| seen.line.starts_with("POST ") && seen.line.contains("uploads="))
        .unwrap();
    assert_eq!(begun.header("x-amz-acl"), Some("public-read"));
    assert_eq!(begun.header("x-amz-storage-class"), Some("STANDARD_IA"));
    assert_eq!(
        begun.header("content-type"),
        Some("application/x-qemu-disk")
    );
    for name in [
        "x-amz-acl",
        "content-type",
        "host",
        "x-amz-meta-sha256",
        "x-amz-storage-class",
    ] {
        assert!(
            begun.line.contains(name),
            "{name} is not signed: {}",
            begun.line
        );
    }
    let parts: Vec<_> = seen.iter().filter(|seen| seen.is_part()).collect();
    assert_eq!(parts.len(), 7);
    for part in parts {
        assert_eq!(part.header("content-md5").unwrap().len(), 24);
        assert!(part.line.contains("content-md5"), "{}", part.line);
        assert!(part.line.contains("eu-test-1"), "{}", part.line);
    }
    for seen in &seen {
        assert!(!format!("{seen:?}").contains(SECRET));
    }
    // Nothing is left of what was remembered.
    let state = program.path(".local/state/qimg/uploads");
    assert_eq!(std::fs::read_dir(state).map_or(0, Iterator::count), 0);
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    program.file("web.qcow2", &bytes(LENGTH, 2));
    let endpoint = wire.endpoint();
    let arguments = [
        "publish",
        "web.qcow2",
        "--to",
        "s3://images",
        "--endpoint",
        &endpoint,
        "--part-size",
        "5M",
    ];
    assert_eq!(program.json(&arguments)["was-there"], false);
    wire.forget();
    let again = program.json(&arguments);
    assert_eq!(again["was-there"], true);
    assert_eq!(wire.seen().len(), 1, "{:?}", wire.seen());
    program.file("web.qcow2", &bytes(LENGTH, 3));
    assert_eq!(program.json(&arguments)["was-there"], false);
    assert_eq!(
        std::fs::read(store.object("web.qcow2")).unwrap(),
        bytes(LENGTH, 3)
    );
}

#[test]
fn a_small_file_is_sent_as_a_whole_and_read_back_when_asked_for() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    program.file("small.qcow2", b"small");
    let done = program.json(&[
        "publish",
        "small.qcow2",
        "--to",
        "s3://images/s",
        "--endpoint",
        &wire.endpoint(),
        "--verify",
        "--acl",
        "public-read",
        "--link",
        "60",
    ]);
    assert_eq!(
        (done["parts"].as_u64(), done["read-back"].as_bool()),
        (Some(1), Some(true))
    );
    let put = wire
        .seen()
        .into_iter()
        .find(|seen| seen.line.starts_with("PUT "))
        .unwrap();
    assert_eq!(put.header("x-amz-acl"), Some("public-read"));
    assert!(put.line.contains("x-amz-acl"), "{}", put.line);
    // Anybody can read by the link, and nobody without.
    let link = done["link"].as_str().unwrap();
    let read = |url: &str| crate::oracle_tools::run(program.home.path(), "curl", &["-sf", url]);
    assert_eq!(read(link).stdout, b"small");
    assert!(!read(done["url"].as_str().unwrap()).status.success());
}

#[test]
fn both_styles_of_naming_a_bucket_are_understood() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let path = program.file("a", &bytes(6 << 20, 4));
    let mut options = http();
    options.proxies.http = Some(wire.endpoint());
    for (style, key) in [(Style::Path, "by-path"), (Style::VirtualHost, "by-host")] {
        let mut target = target("http://s3.test", key);
        target.style = style;
        let done = s3::upload(
            &original(&path),
            &target,
            &credentials(),
            &options,
            &|| false,
            &mut |_| {},
        );
        let done = done.unwrap_or_else(|error| panic!("{error}: {:?}", wire.seen()));
        assert_eq!(done.parts, 2);
        assert_eq!(std::fs::read(store.object(key)).unwrap(), bytes(6 << 20, 4));
    }
    let hosts: Vec<_> = wire
        .seen()
        .iter()
        .filter_map(|seen| seen.header("host").map(str::to_owned))
        .collect();
    assert!(
        hosts.contains(&"s3.test".to_owned()) && hosts.contains(&"images.s3.test".to_owned()),
        "{hosts:?}"
    );
}

#[test]
fn a_server_that_is_killed_in_mid_upload_and_comes_back_gets_the_rest() {
    let (mut store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let path = program.file("web.qcow2", &bytes(LENGTH, 5));
    let original = original(&path);
    let mut target = target(&wire.endpoint(), "web.qcow2");
    target.at_once = 2;
    target.journal = Some(program.path("journal"));
    wire.let_through(3);
    let done = std::thread::scope(|scope| {
        let upload = scope.spawn(|| {
            s3::upload(
                &original,
                &target,
                &credentials(),
                &http(),
                &|| false,
                &mut |_| {},
            )
        });
        wire.wait_for_parts(3);
        store.kill();
        wire.let_through(usize::MAX);
        std::thread::sleep(Duration::from_millis(500));
        store.start();
        upload.join().unwrap()
    });
    done.unwrap();
    assert_eq!(
        sum("sha256sum", &store.object("web.qcow2")),
        original.sha256().hex()
    );
    let sent = wire.seen().iter().filter(|seen| seen.is_part()).count();
    assert!(
        wire.parts() == 7 || wire.parts() == 8,
        "{} parts went through, {sent} began",
        wire.parts()
    );
}

#[test]
fn a_program_that_is_killed_in_mid_upload_goes_on_when_it_is_run_again() {
    for signal in ["KILL", "INT"] {
        let (store, program) = (Store::new(), Program::new());
        let wire = Wire::to(store.port());
        let content = bytes(LENGTH, 6);
        let path = program.file("web.qcow2", &content);
        let endpoint = wire.endpoint();
        let arguments = [
            "publish",
            "web.qcow2",
            "--to",
            "s3://images",
            "--endpoint",
            &endpoint,
            "--part-size",
            "5M",
            "--parallel",
            "1",
        ];
        wire.let_through(3);
        let mut child = program
            .command(&arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wire.wait_for_parts(3);
        // So that the third one is written down.
        wait_until(|| remembered(&program) == Some(3));
        let began = Instant::now();
        let id = child.id().to_string();
        crate::oracle_tools::must(program.home.path(), "kill", &[&format!("-{signal}"), &id]);
        let status = child.wait().unwrap();
        if signal == "INT" {
            assert_eq!(status.code(), Some(130));
            assert!(began.elapsed() < Duration::from_secs(20));
        }
        assert_eq!(
            std::fs::read(&path).unwrap(),
            content,
            "the artifact is as it was"
        );
        assert!(!store.object("web.qcow2").exists());
        wire.let_through(usize::MAX);
        wire.forget();
        let done = program.json(&arguments);
        assert_eq!(done["resumed-parts"], 3, "{signal}");
        assert_eq!(wire.parts(), 4, "{signal}");
        assert_eq!(std::fs::read(store.object("web.qcow2")).unwrap(), content);
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Parts that the journal knows of.
fn remembered(program: &Program) -> Option<usize> {
    let mut files = std::fs::read_dir(program.path(".local/state/qimg/uploads")).ok()?;
    let text = std::fs::read(files.next()?.ok()?.path()).ok()?;
    let journal: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(journal["parts"].as_object()?.len())
}

#[test]
fn another_file_of_the_same_name_does_not_go_on_with_parts_of_the_first() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let journal = program.path("journal");
    let upload = |seed: u64, stop_after: Option<usize>| {
        let path = program.file("web.qcow2", &bytes(LENGTH, seed));
        let mut target = target(&wire.endpoint(), "web.qcow2");
        target.at_once = 1;
        target.journal = Some(journal.clone());
        let stop = wire.passed(stop_after.unwrap_or(usize::MAX));
        s3::upload(
            &original(&path),
            &target,
            &credentials(),
            &http(),
            &stop,
            &mut |_| {},
        )
    };
    wire.delay(20);
    wire.let_through(2);
    assert_eq!(
        upload(7, Some(2)).unwrap_err().kind(),
        qimg::ErrorKind::Cancelled
    );
    wire.let_through(usize::MAX);
    let done = upload(8, None).unwrap();
    assert_eq!(done.resumed_parts, 0);
    assert_eq!(
        std::fs::read(store.object("web.qcow2")).unwrap(),
        bytes(LENGTH, 8)
    );
}

#[test]
fn bytes_that_change_on_the_way_are_noticed() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let path = program.file("web.qcow2", &bytes(LENGTH, 9));
    wire.corrupt_a_part();
    let target = target(&wire.endpoint(), "web.qcow2");
    let upload = || {
        s3::upload(
            &original(&path),
            &target,
            &credentials(),
            &http(),
            &|| false,
            &mut |_| {},
        )
    };
    let error = upload().unwrap_err();
    let text = format!("{error}");
    assert!(
        text.contains("arrived as something else") || text.contains("Digest"),
        "{text}"
    );
    assert!(
        error
            .remedy()
            .unwrap()
            .contains("run the same command again")
    );
    assert!(!store.object("web.qcow2").exists());
    upload().unwrap();
    assert_eq!(
        std::fs::read(store.object("web.qcow2")).unwrap(),
        bytes(LENGTH, 9)
    );
}

#[test]
fn a_busy_server_is_asked_again_and_progress_is_told() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let path = program.file("web.qcow2", &bytes(12 << 20, 10));
    wire.be_busy(3);
    let mut last = (0, 0);
    let mut target = target(&wire.endpoint(), "web.qcow2");
    target.verify = Verify::Always;
    let done = s3::upload(
        &original(&path),
        &target,
        &credentials(),
        &http(),
        &|| false,
        &mut |event| {
            if let Event::Progress { done, total } = event {
                assert!(done <= total);
                last = (done, total);
            }
        },
    );
    assert!(done.unwrap().read_back);
    assert_eq!(last, (12 << 20, 12 << 20));
    assert_eq!(
        std::fs::read(store.object("web.qcow2")).unwrap(),
        bytes(12 << 20, 10)
    );
}

#[test]
fn refusals_are_told_with_what_to_do_and_without_secrets() {
    let (store, mut program) = (Store::new(), Program::new());
    program.file("a", b"x");
    let endpoint = store.endpoint();
    let publish = [
        "publish",
        "a",
        "--to",
        "s3://images",
        "--endpoint",
        &endpoint,
    ];
    program.set("AWS_SECRET_ACCESS_KEY", "a-wrong-one");
    let said = program.fails(1, &publish);
    // An answer to HEAD has no words.
    assert!(said.contains("403") && said.contains("hint: "), "{said}");
    assert!(!said.contains("a-wrong-one"), "{said}");
    program.unset("AWS_SECRET_ACCESS_KEY");
    let said = program.fails(1, &publish);
    assert!(
        said.contains("there is no key") && said.contains("AWS_ACCESS_KEY_ID"),
        "{said}"
    );
    let said = program.fails(
        1,
        &[
            "publish",
            "none",
            "--to",
            "s3://images",
            "--endpoint",
            &endpoint,
        ],
    );
    assert!(said.contains("none: is not there"), "{said}");
    let said = program.fails(1, &["publish", "a", "--to", "oci://registry/a"]);
    assert!(said.contains("nothing is published by oci"), "{said}");
    let said = program.fails(
        1,
        &["publish", "a", "--to", "s3://images", "--part-size", "1M"],
    );
    assert!(said.contains("5 MiB"), "{said}");
}

#[test]
fn keys_and_endpoint_are_found_in_a_profile() {
    let (store, mut program) = (Store::new(), Program::new());
    program.unset("AWS_ACCESS_KEY_ID");
    program.unset("AWS_SECRET_ACCESS_KEY");
    std::fs::create_dir(program.path(".aws")).unwrap();
    program.file(
        ".aws/credentials",
        format!("[ci]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n").as_bytes(),
    );
    program.file(
        ".aws/config",
        format!(
            "[profile ci]\nregion = r\nendpoint_url = {}\n",
            store.endpoint()
        )
        .as_bytes(),
    );
    program.file("a", b"by a profile");
    program.json(&["publish", "a", "--to", "s3://images", "--profile", "ci"]);
    assert_eq!(std::fs::read(store.object("a")).unwrap(), b"by a profile");
}

#[test]
fn an_image_goes_as_disk_raw_in_a_tar_gz() {
    let (store, program) = (Store::new(), Program::new());
    let here = program.home.path();
    crate::oracle_tools::must(
        here,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "d.qcow2", "3M"],
    );
    crate::oracle_tools::qemu_io(here, "d.qcow2", &["write -P 7 1M 1M"]);
    let done = program.json(&[
        "publish",
        "d.qcow2",
        "--as",
        "tar.gz",
        "--to",
        "s3://images",
        "--endpoint",
        &store.endpoint(),
    ]);
    assert_eq!(done["key"], "d.tar.gz");
    let packed = store.object("d.tar.gz");
    let packed = packed.to_str().unwrap();
    let list = crate::oracle_tools::must(here, "tar", &["-tvzf", packed]).stdout;
    let list = String::from_utf8(list).unwrap();
    assert!(
        list.contains(" 1073741824 ") && list.trim_end().ends_with("disk.raw"),
        "{list}"
    );
    let raw = crate::oracle_tools::must(here, "tar", &["-xzf", packed, "-C", "."]);
    drop(raw);
    crate::oracle_tools::must(here, "truncate", &["-s", "3M", "disk.raw"]);
    crate::oracle_tools::must(
        here,
        "qemu-img",
        &["compare", "-q", "-F", "raw", "d.qcow2", "disk.raw"],
    );
}
