//! Runs the tools that qimg is measured against. A tool that is missing fails the test.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `tool` in `directory`, whatever its exit code.
pub fn run(directory: &Path, tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"))
}

/// Runs `tool` in `directory`; it must succeed.
pub fn must(directory: &Path, tool: &str, arguments: &[&str]) -> Output {
    let output = run(directory, tool, arguments);
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs qemu-io with `commands` on `image` in `directory`.
pub fn qemu_io(directory: &Path, image: &str, commands: &[&str]) {
    let mut arguments = vec!["-f", "qcow2"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(image);
    must(directory, "qemu-io", &arguments);
}
