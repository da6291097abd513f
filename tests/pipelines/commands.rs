//! The `qimg` lines of the examples, each run as it stands, in the order of its file.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::servers::{KEY, SECRET, Store};
use crate::{Repository, example};

/// Its commands, as a shell takes them.
fn commands(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(example(file)).unwrap();
    let mut found = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with(['#', '/']))
    {
        let Some(at) = line.find("qimg ").filter(|at| {
            let before = line[..*at].chars().next_back();
            before.is_none_or(|before| " '(".contains(before))
        }) else {
            continue;
        };
        let (before, command) = line.split_at(at);
        let command = match before.trim_end_matches(' ') {
            before if before.ends_with('\'') => command.rsplit_once('\'').unwrap().0,
            before if before.ends_with("$(") => command.split_once(')').unwrap().0,
            _ => command,
        };
        found.push(command.trim().to_owned());
    }
    found
}

/// A `qimg` that stands before the real one: what needs a guest, or a real cloud's rules, is noted or told where the cloud is.
const STAND_IN: &str = r#"#!/bin/sh
case "$*" in
test\ *) echo "$*" >>"$TESTED" ;;
*"--to exoscale"*) exec "$REAL" "$@" --force --poll 0.05 --endpoint "$AWS_ENDPOINT_URL" ;;
release\ *) exec "$REAL" "$@" --poll 0.05 --endpoint "$AWS_ENDPOINT_URL" ;;
*) exec "$REAL" "$@" ;;
esac
"#;

fn run(file: &str, expected: usize) -> (Repository, Store) {
    let (repository, store) = (Repository::new(), Store::new());
    let workshop = &repository.workshop;
    workshop.program("qimg", STAND_IN);
    // Where the examples have their images.
    let path = format!(
        "{}:{}",
        workshop.beside("bin").display(),
        std::env::var("PATH").unwrap()
    );
    std::fs::create_dir_all(workshop.path("output")).unwrap();
    let commands = commands(file);
    assert_eq!(commands.len(), expected, "{commands:#?}");
    for command in commands {
        let clouds = ["--to exoscale", "qimg release", "\"exoscale:"];
        if clouds.iter().any(|words| command.contains(words)) {
            // tests/publish runs these against a cloud.
            let words: Vec<&str> = command.split(' ').collect();
            let help = repository.well(&[words[1], "--help"]);
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{option}");
            }
            continue;
        }
        let output = Command::new("sh")
            .args(["-ec", &command])
            .current_dir(workshop.path(""))
            .env_clear()
            .env("PATH", &path)
            .env("HOME", workshop.beside("home"))
            .env("XDG_STATE_HOME", workshop.beside("state"))
            .env("REAL", env!("CARGO_BIN_EXE_qimg"))
            .env("TESTED", workshop.path("tested.json"))
            .env("IMAGE", "debian-cloud")
            .env("BASE_REF", "HEAD")
            .env("JOB_COMPLETION_INDEX", "0")
            .env("IMAGES_BUCKET", "images")
            .env("AWS_ENDPOINT_URL", store.endpoint())
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{file}: {command}\n{}",
            String::from_utf8_lossy(&said)
        );
    }
    (repository, store)
}

#[track_caller]
fn published(repository: &Repository, store: &Store) {
    let built = std::fs::read(
        repository
            .workshop
            .path("output/debian-cloud/debian-cloud.qcow2"),
    )
    .unwrap();
    assert_eq!(
        std::fs::read(store.object("debian-cloud/debian-cloud.qcow2")).unwrap(),
        built
    );
    let tested = repository.workshop.read("tested.json");
    assert!(
        tested.contains(
            "test output/debian-cloud/debian-cloud.qcow2 -s images/debian-cloud/checks.yaml"
        ),
        "{tested}"
    );
}

#[test]
fn what_jenkins_runs_builds_and_publishes() {
    let (repository, store) = run("ci/Jenkinsfile", 5);
    published(&repository, &store);
    // Its other jobs need a cloud; their options are checked.
    run("ci/jobs.groovy", 2);
}

#[test]
fn what_github_runs_lists_builds_and_publishes() {
    let (repository, store) = run("ci/github.yml", 5);
    published(&repository, &store);
    let list: serde_json::Value =
        serde_json::from_str(&repository.workshop.read("changed.json")).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(list[0]["name"], "debian-cloud");
}

#[test]
fn what_gitlab_runs_builds_what_changed_and_publishes() {
    let (repository, store) = run("ci/gitlab.yml", 6);
    published(&repository, &store);
    assert_eq!(
        repository.workshop.read("output/changed").lines().count(),
        3
    );
}

#[test]
fn what_a_pod_runs_builds_the_image_at_its_place_and_publishes() {
    let (repository, store) = run("ci/kubernetes.yaml", 5);
    published(&repository, &store);
    let workshop = &repository.workshop;
    assert!(!workshop.path("output/debian-uefi").exists());
    // The examples' own repository has its images at the same paths.
    symlink(example("images"), workshop.path("examples")).unwrap();
    let list = repository.well(&["build", "--all", "examples", "--list"]);
    assert_eq!(list.lines().collect::<Vec<_>>(), crate::IMAGES);
}
