//! Thousands of changed templates: none may panic, hang, or say nothing, and what loads converts.

use std::path::Path;

use qimg::template::convert::convert;
use qimg::template::late::Late;
use qimg::template::load;
use qimg::template::model::{Action, Text};

use super::convert::plain;
use super::{Bench, builder};

/// Numbers that look like chance and are always the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most.max(1)
    }
}

const WORDS: [&str; 44] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    "|",
    "(",
    ")",
    "\"",
    "`",
    "'",
    ".",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    " ",
    "\n",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    "0",
    "-1",
    "1e9",
    "99999999999",
    "true",
    "null",
    "\"\"",
    "{{user `v`}}",
    "{{build `ID`}}",
    "{{.Path}}",
    "if ",
    "else",
    "end",
    "range ",
    "define `a`",
    "template `a`",
    "\u{e9}",
    "\0",
    "\u{f8ff}",
    "only",
];

fn changed(bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + chance.below(12)).min(bytes.len());
        match chance.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let word = WORDS[chance.below(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
            2 => {
                let word = WORDS[chance.below(WORDS.len())];
                bytes.splice(at..end, word.bytes());
            }
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = chance.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << chance.below(7);
                }
            }
        }
    }
    bytes
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn each(name: &str, count: usize, mut judge: impl FnMut(&[u8])) {
    let mut chance = Chance(1);
    for bytes in corpus(name) {
        judge(&bytes);
        for _ in 0..count {
            judge(&changed(&bytes, &mut chance));
        }
    }
}

#[test]
fn changed_packer_templates_load_as_toml_to_the_same_or_are_refused_with_a_place() {
    let bench = Bench::new();
    bench.file("t.json", "");
    let mut taken = 0;
    each("packer_template", 1500, |bytes| {
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let mut request = bench.request("t.json");
        request.bytes = Some(bytes.to_vec());
        match load(&request) {
            Err(error) => assert!(
                error.to_string().contains("line ") || error.path().is_some(),
                "{error}"
            ),
            Ok(loaded) => {
                taken += 1;
                assert!(
                    loaded
                        .findings
                        .iter()
                        .all(|finding| finding.line <= lines && !finding.message.is_empty())
                );
                let converted = convert("t.json".as_ref(), request.bytes.as_ref()).unwrap();
                request.path = "t.toml".into();
                request.bytes = Some(converted.text.clone().into_bytes());
                let again =
                    load(&request).unwrap_or_else(|error| panic!("{error}\n{}", converted.text));
                assert_eq!(
                    plain(loaded.template),
                    plain(again.template),
                    "{}",
                    converted.text
                );
            }
        }
    });
    assert!(taken > 500, "{taken}");
}

#[test]
fn changed_native_templates_load_or_are_refused_with_a_place() {
    let bench = Bench::new();
    bench.file("t.toml", "");
    let mut taken = 0;
    each("native_template", 2000, |bytes| {
        let mut request = bench.request("t.toml");
        request.bytes = Some(bytes.to_vec());
        match load(&request) {
            Err(error) => assert!(error.to_string().contains("line "), "{error}"),
            Ok(_) => taken += 1,
        }
    });
    assert!(taken > 500, "{taken}");
}

#[test]
fn changed_expressions_end_and_what_is_put_in_early_changes_nothing() {
    let bench = Bench::new();
    bench.file("t.json", "");
    let late = Late::of([("Path", "/p{{"), ("Vars", "A='b'"), ("EnvVarFile", "")]);
    let mut rendered = 0;
    each("template_language", 400, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(late.render(&Text::literal(&text)).unwrap(), text);
        let Ok(whole) = late.render(&Text(text.clone())) else {
            return;
        };
        let quoted = serde_json::to_string(&text).unwrap();
        let template = format!(
            r#"{{"builders": [{}], "provisioners": [{{"type": "shell", "inline": "x", "execute_command": {quoted}}}]}}"#,
            builder("")
        );
        let mut request = bench.request("t.json");
        request.bytes = Some(template.into_bytes());
        let loaded = load(&request).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let Action::Shell(shell) = &loaded.template.builds[0].provisioners[0].action else {
            panic!("no shell step");
        };
        // What folds to nothing means the usual command.
        if !whole.is_empty() {
            rendered += 1;
            assert_eq!(
                late.render(&shell.execute_command).unwrap(),
                whole,
                "{text:?}: {:?}",
                shell.execute_command
            );
        }
    });
    assert!(rendered > 500, "{rendered}");
}
