//! What becomes of an artifact.

use super::Paths;
use super::foreign::{self, Part};
use super::publishing::{exoscale, s3};
use super::step::{local, options};
use crate::error::Result;
use crate::template::document::{Kind, Node};
use crate::template::model::{Job, PostProcessor, Text};
use crate::template::reader::{Reader, Table};

/// Keys by which a job says what it is.
const KINDS: [&str; 9] = [
    "compress",
    "checksum",
    "manifest",
    "local",
    "local-scripts",
    "artifice",
    "vagrant",
    "s3",
    "exoscale",
];
/// Fields of every job's texts.
pub(super) const FIELDS: [&str; 2] = ["BuildName", "BuilderType"];
const CHECKSUMS: [&str; 6] = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"];

/// Reads one chain: a job, and those that take what it makes.
pub(super) fn chain(
    reader: &Reader<'_>,
    node: &Node,
    what: &str,
    build: &str,
    builds: &[String],
    except: &[String],
    paths: &Paths<'_>,
) -> Result<Vec<PostProcessor>> {
    let mut jobs = Vec::new();
    let mut nodes = vec![node];
    if let Some(then) = node.member("then") {
        let list = Table::of(reader, node.at, Vec::new(), what.to_owned());
        nodes.extend(list.items_of("then", then)?);
    }
    for (number, member) in nodes.into_iter().enumerate() {
        // Stands for what has been told already.
        if member.kind == Kind::Null {
            continue;
        }
        let what = match number {
            0 => what.to_owned(),
            number => format!("{what}, then {number}"),
        };
        let Some(chosen) = super::step::choose(reader, member, &what, build, builds)? else {
            continue;
        };
        if let Some(missing) = member.missing() {
            if name_of(member).is_some_and(|name| except.contains(&name)) {
                break;
            }
            return Err(reader.source.missing(missing));
        }
        let entries = chosen
            .entries
            .into_iter()
            .filter(|entry| number > 0 || entry.key != "then");
        let table = Table::of(reader, member.at, entries.collect(), what);
        let job = job(&table, paths)?;
        // What is left out takes the rest of its chain along.
        if except.contains(&job.name) {
            break;
        }
        if let (Job::Custom { name, .. }, Some(node)) = (&job.job, member.member("custom")) {
            foreign::look_for(&table, node, name, Part::PostProcessor, paths);
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// Names that `-except` may use.
pub(super) fn names(reader: &Reader<'_>, node: &Node) -> Result<Vec<String>> {
    let mut nodes = vec![node];
    if let Some(then) = node.member("then") {
        let list = Table::of(reader, node.at, Vec::new(), String::new());
        nodes.extend(list.items_of("then", then)?);
    }
    Ok(nodes.into_iter().filter_map(name_of).collect())
}

/// The name of a job.
fn name_of(node: &Node) -> Option<String> {
    let known = ["name", "type", "custom"];
    let given = known.iter().find_map(|key| node.member(key)?.as_text());
    let kind = KINDS.into_iter().find(|key| node.member(key).is_some());
    given.or(kind).map(|name| match name {
        "local-scripts" => "shell-local".to_owned(),
        "exoscale" => "exoscale-import".to_owned(),
        name => name.to_owned(),
    })
}

fn job(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<PostProcessor> {
    let kind = table.text("type")?;
    let custom = table.text("custom")?;
    let found = KINDS.into_iter().find(|key| table.has(key));
    let (own, job) = match (custom, found) {
        (Some(name), None) => {
            let options = options(table)?;
            (name.clone(), Job::Custom { name, options })
        }
        (None, Some("compress")) => ("compress".to_owned(), compress(table)?),
        (None, Some("checksum")) => ("checksum".to_owned(), checksum(table)?),
        (None, Some("vagrant")) => ("vagrant".to_owned(), vagrant(table, paths)?),
        (None, Some("manifest")) => ("manifest".to_owned(), manifest(table)?),
        (None, Some("local" | "local-scripts")) => (
            "shell-local".to_owned(),
            Job::ShellLocal(local(table, paths)?),
        ),
        (None, Some("s3")) => ("s3".to_owned(), s3(table)?),
        (None, Some("exoscale")) => ("exoscale-import".to_owned(), exoscale(table)?),
        (None, Some("artifice")) => {
            let files = table.lates("artifice", false)?.unwrap_or_default();
            let files: Vec<Text> = files.into_iter().map(|(text, _)| text).collect();
            if files.is_empty() {
                let text = format!("{}: there are no files", table.name("artifice"));
                return Err(table
                    .reader
                    .error(table.at, text)
                    .with_remedy("name the files that take the artifact's place"));
            }
            ("artifice".to_owned(), Job::Artifice { files })
        }
        _ => {
            let missing = match kind.as_deref() {
                Some("shell-local") => "one of command, inline, script and scripts must be given",
                Some("artifice") => "there are no files",
                _ => "there is nothing to be done",
            };
            let error = table
                .reader
                .error(table.at, format!("{}: {missing}", table.what));
            return Err(match kind {
                Some(_) => error,
                None => table.misspelt(&KINDS).unwrap_or_else(|| {
                    error.with_remedy(format!("add one of {}, custom", KINDS.join(", ")))
                }),
            });
        }
    };
    let kind = kind.unwrap_or(own);
    let post = PostProcessor {
        name: table.filled("name")?.unwrap_or_else(|| kind.clone()),
        kind,
        line: table.reader.source.place(table.at).line,
        keep_input: table.flag("keep-input")?,
        job,
    };
    table.finish();
    Ok(post)
}

fn compress(table: &Table<'_, '_>) -> Result<Job> {
    let output = table
        .late_by("compress", &FIELDS)?
        .filter(|text| !text.0.is_empty());
    Ok(Job::Compress {
        output: output.unwrap_or_else(|| Text("packer_{{.BuildName}}_{{.BuilderType}}".to_owned())),
        format: table.filled("format")?,
        level: table.number("level", -22, 100)?,
    })
}

fn vagrant(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Job> {
    let output = table
        .late_by(
            "vagrant",
            &[&FIELDS[..], &["Provider", "ArtifactId"]].concat(),
        )?
        .filter(|text| !text.0.is_empty());
    let include = table.lates("include", false)?.unwrap_or_default();
    let vagrantfile = table
        .late("vagrantfile", false)?
        .filter(|text| !text.0.is_empty());
    Ok(Job::Vagrant {
        output: output
            .unwrap_or_else(|| Text("packer_{{.BuildName}}_{{.Provider}}.box".to_owned())),
        level: table.number("level", -22, 100)?,
        include: include.iter().map(|(text, _)| paths.late(text)).collect(),
        vagrantfile: vagrantfile.map(|text| paths.late(&text)),
    })
}

fn checksum(table: &Table<'_, '_>) -> Result<Job> {
    let mut kinds = Vec::new();
    for item in table.items("checksum")?.unwrap_or_default() {
        let Some(kind) = table.reader.keep(table.text_of("checksum", item)) else {
            continue;
        };
        if !CHECKSUMS.contains(&kind.as_str()) {
            let error = table.error(
                "checksum",
                item,
                &format!("there is no checksum of the kind '{kind}'"),
            );
            table.tell(error.with_remedy(format!("there is {}", CHECKSUMS.join(", "))));
        }
        kinds.push(kind);
    }
    if kinds.is_empty() {
        kinds.push("md5".to_owned());
    }
    let output = table
        .late_by("to", &[&FIELDS[..], &["ChecksumType"]].concat())?
        .filter(|text| !text.0.is_empty());
    Ok(Job::Checksum {
        kinds,
        output: output.unwrap_or_else(|| Text("{{.BuildName}}.{{.ChecksumType}}".to_owned())),
        coreutils: table.flag("coreutils")?.unwrap_or(true),
    })
}

fn manifest(table: &Table<'_, '_>) -> Result<Job> {
    let output = table
        .late("manifest", false)?
        .filter(|text| !text.0.is_empty());
    let custom_data = table.map("custom-data", false)?;
    Ok(Job::Manifest {
        output: output.unwrap_or_else(|| Text("packer-manifest.json".to_owned())),
        strip_path: table.flag("strip-path")?.unwrap_or(false),
        strip_time: table.flag("strip-time")?.unwrap_or(false),
        custom_data: custom_data
            .into_iter()
            .map(|(name, text, _)| (name, text))
            .collect(),
    })
}
