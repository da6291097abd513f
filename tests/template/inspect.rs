//! What `packer inspect` lists.

use super::Bench;

#[test]
fn builds_and_steps_are_those_that_packer_lists() {
    let bench = Bench::new();
    let text = format!(
        r#"{{"variables": {{"a": "b"}}, "builders": [{}, {}],
        "provisioners": [{{"type": "shell", "inline": "a"}}, {{"type": "sleep", "duration": "1s"}}, {{"type": "file", "source": "base.qcow2", "destination": "/x"}}]}}"#,
        super::builder(r#""name": "one","#),
        super::builder(r#""name": "two","#)
    );
    bench.file("base.qcow2", "");
    let loaded = bench.load("t.json", &text).unwrap();
    let output = bench.packer(&["-machine-readable", "inspect", "t.json"], "");
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = |kind: &str| -> Vec<String> {
        let mut lines: Vec<String> = said
            .lines()
            .filter_map(|line| line.splitn(3, ',').nth(2))
            .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(','))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let builds: Vec<String> = loaded
        .template
        .builds
        .iter()
        .map(|build| format!("{},{}", build.name, build.kind))
        .collect();
    assert_eq!(builds, lines("template-builder"));
    let mut steps: Vec<&str> = loaded.template.builds[0]
        .provisioners
        .iter()
        .map(|step| step.kind.as_str())
        .collect();
    steps.sort_unstable();
    assert_eq!(steps, lines("template-provisioner"));
}
