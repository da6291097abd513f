//! The layers hold: what a module must not name, it does not name.
//!
//! Reads the sources as tokens, without comments, strings and test modules, and looks at every
//! path in them, `use` trees spread out and `super` resolved. A new layer is entered into
//! [`LAYERS`]; anything else at the top of the crate is an operation, which nothing below may name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The lower layers, and all of the crate that each may name besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("zero", &[]),
    ("units", &["error"]),
    ("codec", &["error"]),
    ("extent", &["codec"]),
    ("store", &["error"]),
    ("source", &["error", "extent", "store"]),
    ("writer", &["error", "store"]),
    ("fat", &["error", "store", "units"]),
    ("free", &[]),
    ("fields", &[]),
    ("serve", &["error", "store"]),
    ("iso9660", &["error"]),
    ("volume", &["error", "extent", "source"]),
    ("fs", &["error", "fields", "free", "volume"]),
    ("partition", &["error", "fields", "volume"]),
    ("lvm", &["error", "fields", "free", "fs", "volume"]),
    ("communicator", &["error", "store", "template"]),
    (
        "convert",
        &["codec", "error", "extent", "source", "writer", "zero"],
    ),
    (
        "image",
        &[
            "codec", "error", "extent", "free", "source", "store", "units", "writer", "zero",
        ],
    ),
    ("digest", &["error"]),
    ("keyboard", &["error", "units"]),
    (
        "template",
        &[
            "error", "fat", "iso9660", "keyboard", "seed", "store", "units",
        ],
    ),
    (
        "machine",
        &["communicator", "error", "keyboard", "store", "template"],
    ),
    (
        "fetch",
        &[
            "communicator",
            "digest",
            "error",
            "image",
            "store",
            "template",
        ],
    ),
];

/// Crates that a part of the sources has to itself.
const CRATES: &[(&str, &[&str])] = &[
    ("rustix", &["build", "machine", "store"]),
    ("nix", &["store"]),
    ("aho_corasick", &["build"]),
    ("bzip2", &["build", "fetch"]),
    ("crc32c", &["fs"]),
    ("flate2", &["build", "codec", "fetch", "publish", "seed"]),
    ("hmac", &["publish"]),
    ("glob", &["build", "goss"]),
    ("libdeflater", &["codec"]),
    ("liblzma", &["build", "fetch"]),
    ("lz4", &["build"]),
    ("md5", &["digest"]),
    ("pgp", &["fetch"]),
    ("png", &["machine"]),
    ("regex", &["goss"]),
    ("russh", &["communicator"]),
    ("rusty_s3", &["publish"]),
    ("saphyr_parser", &["seed"]),
    ("semver", &["goss"]),
    ("sha1", &["digest"]),
    ("sha2", &["digest", "goss", "publish", "seed"]),
    // A module of seed has that name, too.
    ("tar", &["build", "fetch", "publish", "seed"]),
    ("tokio", &["communicator"]),
    ("ureq", &["fetch", "publish"]),
    ("uuid", &["disk", "fs", "partition"]),
    ("xmlparser", &["publish"]),
    ("zip", &["build"]),
    ("zstd", &["build", "codec", "fetch"]),
    ("clap", &[]),
    ("clap_complete", &[]),
    ("clap_mangen", &[]),
    ("indicatif", &[]),
    (
        "serde_json",
        &[
            "build", "fetch", "goss", "machine", "publish", "template", "trial",
        ],
    ),
    ("signal_hook", &[]),
    ("tempfile", &["build"]),
    ("toml", &["disk", "template"]),
];

/// The files of the library that run programs of the host.
const RUNNING: [&str; 1] = ["src/build/local.rs"];
/// Layers that have files which are no images: logs, sockets, firmware.
const OTHER_FILES: &[&str] = &["machine"];

/// Layers that start processes.
const PROCESSES: &[&str] = &["machine"];

const MAX_LINES: usize = 700;

/// One source file.
struct Source {
    /// As in messages: `src/convert/mod.rs`.
    name: String,
    /// `["convert", "plan"]`; empty for the crate's root.
    module: Vec<String>,
    text: String,
    tokens: Vec<String>,
    /// All paths of two names or more, from `crate` or an external crate on.
    paths: BTreeSet<Vec<String>>,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let inside = file.strip_prefix(root.join("src")).unwrap();
        let mut module: Vec<String> = inside
            .with_extension("")
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        if module
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            module.pop();
        }
        let tokens = without_tests(&tokens(&text));
        let mut paths = BTreeSet::new();
        let mut at = 0;
        while at < tokens.len() {
            if is_name(&tokens[at]) && !(at > 0 && tokens[at - 1] == "::") {
                let mut found = Vec::new();
                at = spread(&tokens, at, &[], &mut found).max(at + 1);
                paths.extend(found.into_iter().filter_map(|path| resolve(&module, path)));
            } else {
                at += 1;
            }
        }
        Self {
            name: file.strip_prefix(root).unwrap().display().to_string(),
            module,
            text,
            tokens,
            paths,
        }
    }

    fn layer(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    fn is_program(&self) -> bool {
        self.layer() == "bin"
    }

    /// Tests in files of their own, and what they share.
    fn is_test(&self) -> bool {
        self.module.iter().any(|part| part == "tests")
    }

    /// Paths that start with these names.
    fn naming<'a>(&'a self, start: &'a [&str]) -> impl Iterator<Item = &'a Vec<String>> {
        self.paths.iter().filter(move |path| {
            path.len() >= start.len() && path.iter().zip(start).all(|(a, b)| a == b)
        })
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, numbers, `::` and single signs; comments, strings and characters left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if c == '"' || rest.starts_with("b\"") {
            quoted(rest, '"')
        } else if c == '\'' || rest.starts_with("b'") {
            character(rest)
        } else if c.is_alphanumeric() || c == '_' {
            let length = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn raw_string(rest: &str) -> Option<usize> {
    let start = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let body = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let close = body.find(&end)? + end.len();
    Some(rest.len() - body.len() + close)
}

fn quoted(rest: &str, quote: char) -> usize {
    let open = rest.find(quote).unwrap() + 1;
    let mut escaped = false;
    for (at, c) in rest[open..].char_indices() {
        if !escaped && c == quote {
            return open + at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

/// A character, or the tick of a lifetime.
fn character(rest: &str) -> usize {
    let body = &rest[rest.find('\'').unwrap() + 1..];
    let mut chars = body.chars();
    if chars.next() == Some('\\') || chars.next() == Some('\'') {
        quoted(rest, '\'')
    } else {
        1
    }
}

/// Everything but items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].len() < MARK.len() || tokens[at..].iter().zip(MARK).any(|(a, b)| a != b) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += MARK.len();
        while at < tokens.len() {
            depth += i32::from(tokens[at] == "{");
            depth -= i32::from(tokens[at] == "}");
            let ends = depth == 0 && (tokens[at] == "}" || tokens[at] == ";");
            at += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

/// Reads the path, or tree of paths, at `at`; where it ends.
fn spread(
    tokens: &[String],
    mut at: usize,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") if path.len() > before.len() || !before.is_empty() => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = if tokens[at] == "," {
                        at + 1
                    } else {
                        spread(tokens, at, &path, found).max(at + 1)
                    };
                }
                return at + 1;
            }
            Some(name) if is_name(name) => path.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    if tokens.get(at).is_some_and(|token| token == "as") && !before.is_empty() {
        at += 2;
    }
    if path.len() > 1 {
        found.push(path);
    }
    at
}

/// `super` and `self` become the module's own path from `crate` on.
fn resolve(module: &[String], path: Vec<String>) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    if ups == 0 && path[0] != "self" {
        return (path[0] != "Self").then_some(path);
    }
    let base = module.get(..module.len().checked_sub(ups)?)?;
    let rest = path[ups..].iter().filter(|part| *part != "self");
    let absolute = std::iter::once("crate".to_owned()).chain(base.iter().cloned());
    Some(absolute.chain(rest.cloned()).collect())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    files.sort();
    let sources: Vec<_> = files
        .iter()
        .map(|file| Source::read(&root(), file))
        .collect();
    assert!(sources.len() > 30, "the sources were not found");
    sources
}

/// Files of the library that are not tests.
fn library() -> impl Iterator<Item = Source> {
    sources()
        .into_iter()
        .filter(|source| !source.is_program() && !source.is_test())
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn the_reader_of_sources_reads_them() {
    let text = r##"
        //! use crate::comment;
        use crate::a::{self, b::C, d as e};
        use super::{super::f, g};
        fn h<'a>(x: &'a str) { let _ = ("use crate::string", 'x', '\'', r#"use crate::raw"#, b"x"); i::j(); }
        #[cfg(test)]
        mod tests { use crate::test; fn t() {} }
    "##;
    let tokens = without_tests(&tokens(text));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if is_name(&tokens[at]) {
            spread(&tokens, at, &[], &mut found).max(at + 1)
        } else {
            at + 1
        };
    }
    let module = ["m".to_owned(), "n".to_owned()];
    let found: Vec<String> = found
        .into_iter()
        .filter_map(|path| resolve(&module, path))
        .map(|path| path.join("::"))
        .collect();
    assert_eq!(
        found,
        [
            "crate::a::self",
            "crate::a::b::C",
            "crate::a::d",
            "crate::f",
            "crate::m::g",
            "i::j"
        ]
    );
}

#[test]
fn a_layer_names_only_the_layers_below_it() {
    let mut broken = Vec::new();
    for source in library() {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == source.layer()) else {
            continue;
        };
        for path in source.naming(&["crate"]) {
            let other = path[1].as_str();
            // What the crate's root gives another name to is the error type.
            let named = match other {
                "Error" | "ErrorKind" | "Result" => "error",
                other => other,
            };
            if named != source.layer() && !allowed.contains(&named) {
                broken.push(format!("{} names {}", source.name, path.join("::")));
            }
        }
    }
    assert_none(&broken, "a layer names one that is not below it");
}

#[test]
fn every_layer_is_there() {
    let modules: BTreeSet<String> = library().map(|source| source.layer().to_owned()).collect();
    for (layer, allowed) in LAYERS {
        for name in allowed.iter().chain([layer]) {
            assert!(modules.contains(*name), "there is no module {name}");
        }
    }
}

#[test]
fn the_on_disk_format_does_no_io() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for source in library() {
        if !source.name.starts_with("src/image/qcow2/format/") {
            continue;
        }
        seen += 1;
        for path in &source.paths {
            let does_io = path.iter().any(|part| part == "store")
                || (path[0] == "std" && ["fs", "io", "net", "os"].contains(&path[1].as_str()));
            if does_io {
                broken.push(format!("{} names {}", source.name, path.join("::")));
            }
        }
    }
    assert!(seen > 5);
    assert_none(&broken, "the on-disk format must stay pure");
}

#[test]
fn a_format_is_known_inside_image_alone() {
    let mut broken = Vec::new();
    for source in library().filter(|source| source.layer() != "image") {
        for path in source.naming(&["crate", "image", "qcow2"]) {
            broken.push(format!("{} names {}", source.name, path.join("::")));
        }
    }
    let image = sources()
        .into_iter()
        .find(|source| source.module == ["image"])
        .unwrap();
    for module in ["qcow2", "raw"] {
        let at = image
            .tokens
            .windows(2)
            .position(|pair| pair[0] == "mod" && pair[1] == module)
            .unwrap();
        let before = image.tokens[at - 1].as_str();
        if before != ";" && before != "}" {
            broken.push(format!("{} shows module {module} to others", image.name));
        }
    }
    assert_none(&broken, "formats are private to image");
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let mut broken = Vec::new();
    for source in library() {
        for (name, layers) in CRATES {
            let own =
                |path: &&Vec<String>| path.iter().zip(source.module.last()).all(|(a, b)| a != b);
            for path in source.naming(&[name]).filter(own) {
                if !layers.contains(&source.layer()) {
                    broken.push(format!("{} names {}", source.name, path.join("::")));
                }
            }
        }
    }
    assert_none(&broken, "a crate is used outside its layer");
}

#[test]
fn image_bytes_are_opened_only_in_store() {
    let mut broken = Vec::new();
    for source in sources() {
        if source.layer() == "store" || OTHER_FILES.contains(&source.layer()) || source.is_test() {
            continue;
        }
        for path in source.naming(&["std", "fs"]) {
            let opens = path.get(2).is_none_or(|name| {
                ["File", "OpenOptions", "read", "write", "copy", "self"].contains(&name.as_str())
            });
            if opens || !source.is_program() {
                broken.push(format!("{} names {}", source.name, path.join("::")));
            }
        }
    }
    assert_none(&broken, "only store opens files");
}

#[test]
fn the_library_never_speaks_or_ends_the_process() {
    let mut broken = Vec::new();
    for source in library() {
        for pair in source.tokens.windows(2) {
            let speaks = ["print", "println", "eprint", "eprintln", "dbg"];
            if pair[1] == "!" && speaks.contains(&pair[0].as_str()) {
                broken.push(format!("{} calls {}!", source.name, pair[0]));
            }
        }
        for path in &source.paths {
            let runs =
                RUNNING.contains(&source.name.as_str()) || PROCESSES.contains(&source.layer());
            let process = path[0] == "std" && (path[1] == "env" || path[1] == "process" && !runs);
            let stream = path
                .iter()
                .any(|part| ["stdin", "stdout", "stderr"].contains(&part.as_str()));
            if process || stream {
                broken.push(format!("{} names {}", source.name, path.join("::")));
            }
        }
    }
    assert_none(&broken, "input, output and exit belong to the program");
}

#[test]
fn no_module_is_a_drawer_for_odds_and_ends() {
    const DRAWERS: [&str; 7] = [
        "util", "utils", "common", "helper", "helpers", "misc", "shared",
    ];
    let broken: Vec<_> = sources()
        .iter()
        .filter(|source| {
            source
                .module
                .iter()
                .any(|part| DRAWERS.contains(&part.as_str()))
        })
        .map(|source| source.name.clone())
        .collect();
    assert_none(&broken, "a module's name says what it knows");
}

#[test]
fn quantities_are_types_not_aliases() {
    const NUMBERS: [&str; 12] = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for window in source.tokens.windows(4) {
            if window[0] == "type" && window[2] == "=" && NUMBERS.contains(&window[3].as_str()) {
                broken.push(format!(
                    "{}: type {} = {}",
                    source.name, window[1], window[3]
                ));
            }
        }
    }
    assert_none(&broken, "an alias of a number protects nobody");
}

#[test]
fn no_function_is_called_get_something() {
    let mut broken = Vec::new();
    for source in sources() {
        for pair in source.tokens.windows(2) {
            if pair[0] == "fn" && (pair[1] == "get" || pair[1].starts_with("get_")) {
                broken.push(format!("{}: fn {}", source.name, pair[1]));
            }
        }
    }
    assert_none(&broken, "a getter is called by what it gives");
}

#[test]
fn no_file_outgrows_a_reader() {
    let broken: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.name))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, name)| format!("{name}: {lines} lines"))
        .collect();
    assert_none(&broken, &format!("files of more than {MAX_LINES} lines"));
}

#[test]
fn every_module_begins_by_saying_what_it_is() {
    let broken: Vec<_> = sources()
        .iter()
        .filter(|source| source.module.last().is_none_or(|last| last != "tests"))
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.name.clone())
        .collect();
    assert_none(&broken, "module documentation comes first");
}

#[test]
fn the_readme_names_exactly_the_commands_that_there_are() {
    let Ok(readme) = std::fs::read_to_string(root().join("README.md")) else {
        return;
    };
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_qimg"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    // Names stand two columns in, their wrapped descriptions further.
    let commands: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| !line.ends_with("ommands:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 3, "no commands in:\n{help}");
    let table: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `qimg "))
        .map(|rest| &rest[..rest.find([' ', '`']).unwrap_or(rest.len())])
        .collect();
    assert_eq!(table, commands);
}
