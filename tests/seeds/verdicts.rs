//! The verdicts are those of cloud-init: on the examples of its own documentation, and on what becomes of them when a
//! value is exchanged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qimg::seed::Header;
use qimg::seed::check::{Finding, Severity, check_user_data};

use crate::Bench;

/// Writes the examples of every module's documentation, and prints their names.
const MODULE_EXAMPLES: &str = r"
import importlib, pkgutil, textwrap
import cloudinit.config
for module in pkgutil.iter_modules(cloudinit.config.__path__):
    meta = getattr(importlib.import_module('cloudinit.config.' + module.name), 'meta', None) or {}
    for number, example in enumerate(meta.get('examples', [])):
        with open(f'{module.name}-{number}.yaml', 'w') as out:
            out.write('#cloud-config\n' + textwrap.dedent(example))
";

/// Prints a verdict for each file.
const SCHEMA: &str = r"
import contextlib, io, json, sys
from cloudinit.config import schema
known = schema.get_schema()
for name in sys.argv[1:]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            schema.validate_cloudconfig_file(name, known)
        print(json.dumps([name, None]))
    except Exception as error:
        print(json.dumps([name, str(error)[:200]]))
";

/// Exchanges values in examples, the same ones each time.
const MUTATE: &str = r"
import copy, json, random, sys, yaml
random.seed(int(sys.argv[1]))
others = [5, -3, 1.5, True, None, 'text', [], {}, [1], ['a'], {'a': 'b'}, [['x']], [{'name': 'q'}], '2020-01-01', '10M', 'a:b', 'now']
def paths(value, path=()):
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        found += paths(below, path + (key,))
    return found
documents = []
for name in sys.argv[3:]:
    with open(name) as text:
        value = yaml.safe_load(text)
    if isinstance(value, dict) and value:
        documents.append(value)
for number in range(int(sys.argv[2])):
    value = copy.deepcopy(random.choice(documents))
    path = random.choice(paths(value))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    chance = random.random()
    if chance < 0.15:
        del inner[path[-1]]
    elif chance < 0.25 and isinstance(inner, dict):
        inner['extra'] = 1
    else:
        inner[path[-1]] = random.choice(others)
    with open(f'mutant-{number}.yaml', 'w') as out:
        out.write('#cloud-config\n' + yaml.safe_dump(value))
";

/// The files of the examples, as cloud-init's package ships them, and those of its modules.
fn examples(bench: &Bench) -> Vec<PathBuf> {
    let shipped = Path::new("/usr/share/doc/cloud-init/examples");
    let entries = shipped
        .read_dir()
        .expect("the package cloud-init is installed, with its documentation");
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(plain) = name.strip_suffix(".gz") {
            let text = bench.run("gzip", &["-dc", path.to_str().unwrap()]).stdout;
            bench.file(plain, text);
        } else if path.is_file() {
            bench.file(&name, std::fs::read(&path).unwrap());
        }
    }
    bench.tool("/usr/bin/python3", &["-c", MODULE_EXAMPLES]);
    std::fs::remove_file(bench.path().join("user-data")).unwrap();
    files(bench)
}

fn files(bench: &Bench) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = bench
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// What cloud-init says of each file: `None` when it is content.
fn verdicts(bench: &Bench, files: &[PathBuf]) -> BTreeMap<String, Option<String>> {
    let mut arguments = vec!["-c", SCHEMA];
    arguments.extend(files.iter().map(|path| path.to_str().unwrap()));
    let said = bench.tool("/usr/bin/python3", &arguments);
    said.lines()
        .map(|line| serde_json::from_str::<(String, Option<String>)>(line).unwrap())
        .collect()
}

fn errors(bytes: &[u8]) -> Vec<Finding> {
    let findings = check_user_data("example", bytes);
    findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect()
}

#[test]
fn the_examples_of_cloud_inits_documentation_are_judged_as_cloud_init_judges_them() {
    let bench = Bench::new();
    let files = examples(&bench);
    let verdicts = verdicts(&bench, &files);
    assert!(verdicts.len() > 120, "{}", verdicts.len());
    for (name, complaint) in verdicts {
        let bytes = std::fs::read(&name).unwrap();
        let errors = errors(&bytes);
        match Header::of(&bytes) {
            Header::CloudConfig => assert_eq!(
                complaint.is_none(),
                errors.is_empty(),
                "{name}: {complaint:?}, {errors:?}"
            ),
            // `cloud-init schema` knows no other kind; cloud-init itself does.
            Header::Unknown => assert!(complaint.is_some() && !errors.is_empty(), "{name}"),
            _ => assert!(
                complaint.is_some() && errors.is_empty(),
                "{name}: {errors:?}"
            ),
        }
    }
}

#[test]
fn exchanged_values_are_judged_as_cloud_init_judges_them() {
    let bench = Bench::new();
    let shipped: Vec<PathBuf> = examples(&bench)
        .into_iter()
        .filter(|path| Header::of(&std::fs::read(path).unwrap()) == Header::CloudConfig)
        .collect();
    let count = if std::env::var_os("QIMG_NIGHTLY").is_some() {
        "20000"
    } else {
        "1000"
    };
    let mut arguments = vec!["-c", MUTATE, "4", count];
    arguments.extend(shipped.iter().map(|path| path.to_str().unwrap()));
    bench.tool("/usr/bin/python3", &arguments);
    let is_mutant = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("mutant")
    };
    let mutants: Vec<PathBuf> = files(&bench).into_iter().filter(is_mutant).collect();
    let (mut refused, mut wrong) = (0, Vec::new());
    for (name, complaint) in mutants.chunks(500).flat_map(|some| verdicts(&bench, some)) {
        let text = std::fs::read_to_string(&name).unwrap();
        let errors = errors(text.as_bytes());
        refused += usize::from(complaint.is_some());
        if complaint.is_none() == errors.is_empty() {
            continue;
        }
        // What releases after 22.4 take is no error here; and what takes maps takes nothing else here, where 22.4
        // forgets to say so.
        let complaint = complaint.unwrap_or_default();
        let newer = [
            "locale: ",
            "fs_setup.0.partition",
            "fs_setup.1.partition",
            "sudo",
            "users.",
            "apt.sources",
            "packages.",
        ]
        .iter()
        .any(|key| complaint.contains(key));
        let stricter = errors.iter().all(|finding| {
            ["'groups", "'ansible.setup_controller.run_ansible."]
                .iter()
                .any(|key| finding.message.contains(key))
        });
        if !((newer && errors.is_empty()) || (stricter && !errors.is_empty())) {
            wrong.push(format!("{complaint}\n{errors:?}\n{text}"));
        }
    }
    assert!(
        refused > mutants.len() / 5,
        "{refused} of {}",
        mutants.len()
    );
    assert!(
        wrong.is_empty(),
        "{}: {}",
        wrong.len(),
        wrong.join("\n---\n")
    );
}

/// Prints whether cloud-init's YAML can be loaded, for each file.
const YAML: &str = r"
import json, sys
from cloudinit import safeyaml
for name in sys.argv[1:]:
    try:
        safeyaml.load(open(name, 'rb').read())
        print(json.dumps([name, None]))
    except Exception as error:
        print(json.dumps([name, str(error)[:200]]))
";

#[test]
fn what_is_no_yaml_to_cloud_init_is_none_here() {
    let bench = Bench::new();
    std::fs::remove_file(bench.path().join("user-data")).unwrap();
    for (number, text) in [
        "a: 1\n\tb: 2\n",
        "a: [1, 2\n",
        "a: 'x\n",
        "a: \"x\n",
        "a: b: c\n",
        "- a\nb: 1\n",
        "a: *x\n",
        "a: &x 1\nb: *x\n",
        "a: !foo 1\n",
        "a: 1\n---\nb: 1\n",
        "? [a]\n: 1\n",
        "{a: 1}\n",
        "a: |\n  x\n y\n",
        "a: >\n  x\n",
        "a: @x\n",
        "a: `x`\n",
        "a: %x\n",
        "%YAML 1.1\n---\na: 1\n",
        "a: {b: 1, c}\n",
        "a: [b, ]\n",
        "a:\n- b\n- c\n",
        "a:\n  - b\n c: 1\n",
        "a: 'it''s'\n",
        "a: \"\\x41\\q\"\n",
        "a: b #c\n",
        "a: b#c\n",
        "a: !!binary aGk=\n",
        "a: !!int x\n",
        "a: <<\n",
        "<<: 1\n",
        "<<: {a: 1}\nb: 2\n",
        "a: - b\n",
        "a: \u{7}\n",
        "a:b\n",
        "a: 1\r\nb: 2\r\n",
        "---\na: 1\n...\n",
        "a: 1\n...\ngarbage: 2\n",
        "a: \"\\u00e9\"\n",
        "'a': 1\n\"b\": 2\n",
        "a: ? b\n",
        "a: [\n1,\n2]\n",
        "a: [\n1,\n2\n]\n",
        "a:\n\t- b\n",
        "a: b\n  c\n",
        "a: \"b\n  c\"\n",
        "a: |2\n   x\n",
        "a: !!python/object:os.system x\n",
        "a: !!set {b, c}\n",
        "key with spaces: x\n",
        "a: x: y\n",
        "a: 'x': y\n",
        "{a: {b: {c: 1}}}\n",
        "[a, b]: c\n",
        "a: =\n",
        "=: 1\n",
        "a: {\n\"b\": 1,\nc: [\n1,\n2]}\n",
        "",
        "#only\n",
        "---\n",
    ]
    .into_iter()
    .enumerate()
    {
        bench.file(&format!("{number:02}"), format!("#cloud-config\n{text}"));
    }
    let files = files(&bench);
    let mut arguments = vec!["-c", YAML];
    arguments.extend(files.iter().map(|path| path.to_str().unwrap()));
    let said = bench.tool("/usr/bin/python3", &arguments);
    let mut wrong = Vec::new();
    for line in said.lines() {
        let (name, complaint): (String, Option<String>) = serde_json::from_str(line).unwrap();
        let bytes = std::fs::read(&name).unwrap();
        let ours = check_user_data("x", &bytes)
            .iter()
            .any(|finding| finding.message.contains("not valid YAML"));
        if ours != complaint.is_some() {
            wrong.push(format!(
                "{:?}: {complaint:?}",
                String::from_utf8_lossy(&bytes)
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
