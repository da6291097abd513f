//! What a machine that was kept rests on stays in the cache until the machine is forgotten.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use crate::world::{World, small};

/// A build that is kept after its second step, and fails there.
const FAILS: &str = "[[provision]]\nshell = \"echo first > /root/first; sync\"\n\
                     [[provision]]\nshell = \"echo second > /root/second; exit 3\"\n";

#[track_caller]
fn build_fails(world: &World, more: &[&str]) -> String {
    let mut arguments = vec!["build", "--keep", "web.toml"];
    arguments.extend(more);
    let said = world.qimg(&arguments);
    assert_eq!(said.code, Some(3), "{}{}", said.out, said.err);
    assert!(said.out.contains("The machine stays in"), "{}", said.out);
    said.out
}

/// The machine is started, and what the build wrote is there.
#[track_caller]
fn starts(world: &World) {
    let said = world.qimg(&["ssh", "web", "--", "cat /root/first /root/second"]);
    assert_eq!(
        (said.code, said.out.trim()),
        (Some(0), "first\nsecond"),
        "{}",
        said.err
    );
}

#[track_caller]
fn prune(world: &World, more: &[&str]) -> String {
    let mut arguments = vec!["cache", "prune"];
    arguments.extend(more);
    let said = world.qimg(&arguments);
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.out
}

#[test]
fn pruning_the_cache_leaves_the_states_of_a_machine_until_it_is_forgotten() {
    let world = World::new();
    world.template("web", "", FAILS);
    build_fails(&world, &[]);
    for more in [
        &[][..],
        &["--size", "0"],
        &["--size", "1K"],
        &["--days", "0"],
    ] {
        let said = prune(&world, more);
        assert!(
            said.contains("by the machine") && said.contains("qimg forget"),
            "{said}"
        );
    }
    assert_eq!(world.states().len(), 2);
    let listed = world.qimg(&["cache", "list"]).out;
    assert!(listed.contains("by the machine"), "{listed}");
    starts(&world);
    let said = world.qimg(&["kill", "web"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("qimg forget"), "{}", said.err);
    assert_eq!(world.qimg(&["forget", ""]).code, Some(1));
    let said = world.qimg(&["forget", "web"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.starts_with("removed "), "{}", said.out);
    assert_eq!(world.qimg(&["forget", "web"]).code, Some(1));
    assert!(world.qimg(&["ps", "--all"]).out.is_empty());
    let runs: Vec<_> = std::fs::read_dir(world.at("state/qimg/runs"))
        .unwrap()
        .collect();
    assert!(runs.is_empty(), "{runs:?}");
    assert!(prune(&world, &[]).contains("removed 2 "));
    let pins: Vec<_> = std::fs::read_dir(world.at("cache/pins")).unwrap().collect();
    assert!(pins.is_empty(), "{pins:?}");
}

#[test]
fn a_later_build_at_the_limit_of_the_cache_leaves_the_states_of_a_machine() {
    let world = World::new();
    world.template("web", "limit = \"1M\"", FAILS);
    build_fails(&world, &[]);
    world.template(
        "other",
        "limit = \"1M\"",
        "[[provision]]\nshell = \"echo other > /root/other\"\n",
    );
    world.build("other", &[]);
    starts(&world);
    // Nothing else has kept them.
    assert_eq!(world.qimg(&["forget", "web"]).code, Some(0));
    world.change("other", "echo other", "echo another");
    world.build("other", &[]);
    let all = world.states();
    assert!(
        all.iter().all(|(text, _)| text.starts_with("other")),
        "{all:?}"
    );
}

/// Serves `file` to whoever asks, for as long as the test runs.
fn serve(file: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                asked.push(byte[0]);
            }
            let bytes = std::fs::read(&file).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            let _ = stream.write_all(head.as_bytes());
            if asked.starts_with(b"GET") {
                let _ = stream.write_all(&bytes);
            }
        }
    });
    port
}

#[test]
fn pruning_the_cache_leaves_the_downloaded_base_of_a_machine() {
    let world = World::new();
    let base = small().join("small.qcow2");
    let port = serve(base.clone());
    world.template("web", "steps = false", FAILS);
    world.change(
        "web",
        base.to_str().unwrap(),
        &format!("http://127.0.0.1:{port}/small.qcow2"),
    );
    build_fails(&world, &["--no-cache"]);
    assert!(prune(&world, &[]).contains("by the machine"));
    starts(&world);
    // What is removed behind its back is named.
    std::fs::remove_dir_all(world.at("cache/entries")).unwrap();
    let listed = world.qimg(&["ps", "--all"]).out;
    assert!(listed.contains("which is gone"), "{listed}");
    let said = world.qimg(&["ssh", "web", "--", "true"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("cache/entries/") && said.err.contains("qimg forget"),
        "{}",
        said.err
    );
    assert_eq!(world.qimg(&["forget", "--all"]).code, Some(0));
}

#[test]
fn a_base_that_was_written_since_is_named_before_a_machine_is_started_on_it() {
    let world = World::new();
    let base = small().join("small.qcow2");
    std::fs::copy(&base, world.at("base.qcow2")).unwrap();
    world.template("web", "steps = false", FAILS);
    world.change("web", base.to_str().unwrap(), "base.qcow2");
    build_fails(&world, &[]);
    starts(&world);
    std::fs::copy(&base, world.at("base.qcow2")).unwrap();
    let said = world.qimg(&["ssh", "web", "--", "true"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("written since") && said.err.contains("qemu-command"),
        "{}",
        said.err
    );
}

#[test]
fn files_that_a_failed_build_leaves_keep_the_states_that_they_rest_on() {
    let world = World::new();
    world.template("web", "", FAILS);
    let said = world.qimg(&["build", "-on-error=abort", "web.toml"]);
    assert_eq!(said.code, Some(3), "{}", said.out);
    let place = said
        .out
        .lines()
        .find_map(|line| line.split_once("its files stay in "))
        .map(|(_, place)| PathBuf::from(place))
        .unwrap();
    let said = prune(&world, &[]);
    assert!(
        said.contains("by what a build that failed left in"),
        "{said}"
    );
    assert_eq!(world.states().len(), 2);
    std::fs::remove_dir_all(place).unwrap();
    assert!(prune(&world, &[]).contains("removed 2 "));
}

#[test]
fn an_artifact_that_stays_an_overlay_keeps_its_base() {
    let world = World::new();
    let base = small().join("small.qcow2");
    let port = serve(base.clone());
    world.template(
        "web",
        "steps = false",
        "[disk]\nkeep-backing-file = true\n\
         [[provision]]\nshell = \"echo first > /root/first\"\n",
    );
    world.change(
        "web",
        base.to_str().unwrap(),
        &format!("http://127.0.0.1:{port}/small.qcow2"),
    );
    world.build("web", &[]);
    let said = prune(&world, &[]);
    assert!(said.contains("which is an overlay of it"), "{said}");
    let said = world.qimg(&["check", "--backing", "any", "output-web/disk.qcow2"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    std::fs::remove_dir_all(world.at("output-web")).unwrap();
    assert!(prune(&world, &[]).contains("removed 1 "));
}
