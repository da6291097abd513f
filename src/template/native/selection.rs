//! What a template declares, variables and builds, and which builds are to be made.

use std::path::Path;

use super::post;
use crate::error::{Error, Result};
use crate::template::LoadRequest;
use crate::template::check::{Finding, Findings, Severity};
use crate::template::document::{Kind, Node, Source};
use crate::template::model::Dialect;
use crate::template::reader::{Reader, Table, unknown_key};
use crate::template::variables::{self, Declared, Variables};

/// Variables in the order of the file, by name.
pub(super) type Declarations = Vec<(String, Declared)>;

/// Variables, and names of those that are sensitive.
pub(super) fn declared(source: &Source, root: &Node) -> Result<(Declarations, Vec<String>)> {
    let mut all = Vec::new();
    let mut sensitive = Vec::new();
    let Some(node) = root.member("variables") else {
        return Ok((all, sensitive));
    };
    let Kind::Table(entries) = &node.kind else {
        let text = format!("variables: expected an object, found {}", node.what());
        return Err(source.error(node.at, text));
    };
    for entry in entries {
        let Kind::Table(options) = &entry.node.kind else {
            let variable = variables::declare(source, &entry.key, &entry.node)?;
            all.push((entry.key.clone(), variable));
            continue;
        };
        let mut default = None;
        for option in options {
            let flag = option.node.kind == Kind::Bool(true);
            let is_flag = matches!(option.node.kind, Kind::Bool(_));
            match option.key.as_str() {
                "default" => {
                    default = variables::declare(source, &entry.key, &option.node)?.default;
                }
                "description" if option.node.as_text().is_some() => {}
                "required" if is_flag => {}
                "sensitive" if is_flag && flag => sensitive.push(entry.key.clone()),
                "sensitive" if is_flag => {}
                "description" | "required" | "sensitive" => {
                    let text = format!(
                        "the variable '{}': {} is {}",
                        entry.key,
                        option.key,
                        option.node.what()
                    );
                    return Err(source.error(option.node.at, text));
                }
                _ => {
                    let what = format!("the variable '{}'", entry.key);
                    let known = ["default", "description", "required", "sensitive"];
                    return Err(unknown_key(source, option, &what, &known));
                }
            }
        }
        let at = entry.node.at;
        all.push((entry.key.clone(), Declared { at, default }));
    }
    Ok((all, sensitive))
}

/// What was given and is not asked for, and what is asked for and was not given.
pub(super) fn undeclared(
    source: &Source,
    declared: &[(String, Declared)],
    variables: &Variables,
    dialect: Dialect,
    findings: &Findings,
) {
    for (variable, at, asked) in &variables.absent {
        let text = format!(
            "the environment has no {asked}: in the variable '{variable}' it is taken as empty"
        );
        let remedy = format!("set {asked}, or say -var '{variable}=VALUE'");
        findings.add(Severity::Note, source, *at, &text, &remedy);
    }
    for (name, from) in &variables.undeclared {
        let known = declared.iter().map(|(name, _)| name.as_str());
        findings.push(Finding {
            severity: match dialect {
                Dialect::Packer => Severity::Warning,
                Dialect::Native => Severity::Error,
            },
            file: from.into(),
            line: 0,
            column: 0,
            message: format!("the template declares no variable '{name}'"),
            remedy: match crate::template::near(name, known) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("add '{name}' to the template's variables"),
            },
        });
    }
}

/// Names of the builds and their own tables; one build where there are no tables of builds.
pub(super) fn builds<'r>(
    top: &Table<'_, 'r>,
    path: &Path,
) -> Result<Vec<(String, Option<&'r Node>)>> {
    let Some(node) = top.node("build") else {
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.filter(|stem| !stem.is_empty() && stem != "-");
        let name = top.filled("name")?.or(stem);
        return Ok(vec![(name.unwrap_or_else(|| "main".to_owned()), None)]);
    };
    let Kind::Table(entries) = &node.kind else {
        return Err(top.error("build", node, "expected tables of builds"));
    };
    if let Some(node) = top.node("name") {
        let error = top.error("name", node, "builds have names of their own");
        return Err(error.with_remedy("leave it out: a build's name stands in [build.NAME]"));
    }
    let mut all: Vec<(String, Option<&Node>)> = Vec::new();
    for entry in entries {
        let name = top
            .reader
            .render(&entry.node, &entry.key, "the name of a build")?;
        if name.is_empty() || all.iter().any(|(known, _)| *known == name) {
            let text = match name.is_empty() {
                true => "a build without a name".to_owned(),
                false => format!("there is a build '{name}' already"),
            };
            let error = top.reader.error(entry.at, text);
            return Err(error.with_remedy("give each build a name of its own"));
        }
        all.push((name, Some(&entry.node)));
    }
    if all.is_empty() {
        return Err(top.error("build", node, "there is no build"));
    }
    Ok(all)
}

/// Names of the builds that `-only` and `-except` leave.
pub(super) fn choose(
    outside: &Reader<'_>,
    root: &Node,
    builds: &[(String, Option<&Node>)],
    request: &LoadRequest<'_>,
) -> Result<Vec<String>> {
    let mut posts = Vec::new();
    if let Some(Node {
        kind: Kind::List(items),
        ..
    }) = root.member("post")
    {
        for item in items {
            posts.extend(post::names(outside, item)?);
        }
    }
    let unknown = |name: &String, option: &str, known: Vec<&str>| {
        let error = Error::usage(format!("{option} names '{name}', which there is not"))
            .at_path(&request.path);
        let list = format!("there is {}", known.join(", "));
        error.with_remedy(match crate::template::near(name, known) {
            Some(near) => format!("did you mean '{near}'? {list}"),
            None => list,
        })
    };
    let known = || builds.iter().map(|(name, _)| name.as_str());
    for name in &request.only {
        if !known().any(|known| known == name) {
            return Err(unknown(name, "-only", known().collect()));
        }
    }
    for name in &request.except {
        if !known().any(|known| known == name) && !posts.contains(name) {
            let known = known().chain(posts.iter().map(String::as_str)).collect();
            return Err(unknown(name, "-except", known));
        }
    }
    let left: Vec<_> = { builds.iter() }
        .filter(|(name, _)| request.only.is_empty() || request.only.contains(name))
        .filter(|(name, _)| !request.except.contains(name))
        .collect();
    if left.is_empty() {
        let error = Error::usage("no build is left to be made").at_path(&request.path);
        return Err(error.with_remedy("look over -only and -except"));
    }
    // Builds for other hypervisors hinder nobody who does not ask for them by name.
    let here = |build: &&&(String, Option<&Node>)| build.1.and_then(Node::missing).is_none();
    let some_here = left.iter().any(|build| here(&build));
    for (name, node) in &left {
        let Some((at, missing)) = node.and_then(Node::missing) else {
            continue;
        };
        if !some_here || request.only.contains(name) {
            return Err(outside.source.missing((at, missing)));
        }
        let text = format!("the build '{name}' is left out: {}", missing.text);
        let remedy = format!("-except={name} says that it is meant so");
        { outside.findings }.add(Severity::Warning, outside.source, at, &text, &remedy);
    }
    Ok({ left.iter().filter(here) }
        .map(|(name, _)| name.clone())
        .collect())
}
