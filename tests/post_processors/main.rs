//! What post-processors write, and what of an artifact stays.

mod beside_packer;
mod boxes;
mod keeping;
#[path = "../oracle_tools/mod.rs"]
mod oracle_tools;
mod packing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qimg::build::artifact::Artifact;
use qimg::build::post_processor::{Context, Event, Report, Runner, run};
use qimg::communicator::Stop;
use qimg::template::model::{Dialect, Job, PostProcessor, ShellLocal, Text};
use qimg::{Error, Result};

/// A directory with the files of an artifact in `output`.
struct Bench {
    directory: tempfile::TempDir,
    artifact: Artifact,
    dialect: Dialect,
    threads: usize,
    force: bool,
    run_uuid: String,
    build_time: u64,
    accelerator: Option<&'static str>,
    told: Vec<String>,
    scripts: Vec<Artifact>,
}

impl Bench {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("output")).unwrap();
        let mut paths = Vec::new();
        for (name, bytes) in files {
            let path = PathBuf::from("output").join(name);
            std::fs::write(directory.path().join(&path), bytes).unwrap();
            paths.push(path);
        }
        Self {
            directory,
            artifact: Artifact::of_machine(paths, "output".into()),
            dialect: Dialect::Packer,
            threads: 2,
            force: false,
            run_uuid: "00000000-1111-2222-3333-444444444444".into(),
            build_time: 1_700_000_000,
            accelerator: None,
            told: Vec::new(),
            scripts: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn names(&self) -> Vec<String> {
        fn below(directory: &Path, prefix: &str, names: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() {
                    below(&entry.path(), &format!("{name}/"), names);
                    names.push(format!("{name}/"));
                } else {
                    names.push(name);
                }
            }
        }
        let mut names = Vec::new();
        below(self.directory.path(), "", &mut names);
        names.sort();
        names
    }

    fn run(&mut self, chains: &[Vec<PostProcessor>]) -> Result<Report> {
        self.run_until(chains, &|| false)
    }

    fn run_until(&mut self, chains: &[Vec<PostProcessor>], stop: &Stop) -> Result<Report> {
        let fill = |text: &Text, values: &[(&str, &str)]| {
            let mut filled = text.0.clone();
            for (name, value) in values {
                filled = filled.replace(&format!("{{{{.{name}}}}}"), value);
            }
            Ok(filled)
        };
        let context = Context {
            dialect: self.dialect,
            build_name: "one",
            builder_type: "file",
            run_uuid: &self.run_uuid,
            clock: &|| self.build_time,
            accelerator: self.accelerator,
            force: self.force,
            directory: self.directory.path(),
            threads: self.threads,
            access: None,
            fill: &fill,
            stop,
        };
        let mut programs = Programs {
            seen: &mut self.scripts,
            directory: self.directory.path(),
        };
        let told = &mut self.told;
        run(
            chains,
            &self.artifact,
            &context,
            &mut programs,
            &mut |event| match event {
                Event::Note(note) => told.push(note.to_owned()),
                Event::Failed(failed) => told.push(format!("{}: {}", failed.kind, failed.error)),
                Event::Removed(path) => told.push(format!("removed {}", path.display())),
                Event::Started(_) | Event::Progress { .. } => {}
            },
        )
    }

    /// The one chain, which must succeed.
    fn must(&mut self, chain: &[PostProcessor]) -> Report {
        let report = self.run(&[chain.to_vec()]).unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        report
    }

    /// Why the one chain fails.
    fn failure(&mut self, chain: &[PostProcessor]) -> Error {
        let mut report = self.run(&[chain.to_vec()]).unwrap();
        assert!(report.removed.is_empty());
        report.failed.remove(0).error
    }
}

struct Programs<'a> {
    seen: &'a mut Vec<Artifact>,
    directory: &'a Path,
}

impl Runner for Programs<'_> {
    fn shell_local(
        &mut self,
        _: &PostProcessor,
        job: &ShellLocal,
        artifact: &Artifact,
    ) -> Result<()> {
        self.seen.push(artifact.clone());
        if job.inline_shebang == "fail" {
            return Err(Error::usage("the script failed"));
        }
        Ok(())
    }

    fn custom(
        &mut self,
        _: &PostProcessor,
        name: &str,
        options: &str,
        artifact: &Artifact,
    ) -> Result<(Artifact, bool)> {
        self.seen.push(artifact.clone());
        std::fs::write(self.directory.join(name), options).unwrap();
        Ok((Artifact::of_post_processor(name, vec![name.into()]), false))
    }
}

fn post_processor(kind: &str, job: Job) -> PostProcessor {
    PostProcessor {
        kind: kind.to_owned(),
        name: kind.to_owned(),
        line: 7,
        keep_input: None,
        job,
    }
}

fn compress(output: &str) -> PostProcessor {
    compress_at(output, None)
}

fn compress_at(output: &str, level: Option<i32>) -> PostProcessor {
    post_processor(
        "compress",
        Job::Compress {
            output: Text(output.to_owned()),
            format: None,
            level,
        },
    )
}

fn checksum(kinds: &[&str], output: &str, coreutils: bool) -> PostProcessor {
    post_processor(
        "checksum",
        Job::Checksum {
            kinds: kinds.iter().map(ToString::to_string).collect(),
            output: Text(output.to_owned()),
            coreutils,
        },
    )
}

fn manifest(output: &str) -> PostProcessor {
    manifest_with(output, false, false, &[])
}

fn manifest_with(
    output: &str,
    strip_path: bool,
    strip_time: bool,
    data: &[(&str, &str)],
) -> PostProcessor {
    let custom_data: BTreeMap<String, Text> = data
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Text((*value).to_owned())))
        .collect();
    post_processor(
        "manifest",
        Job::Manifest {
            output: Text(output.to_owned()),
            strip_path,
            strip_time,
            custom_data,
        },
    )
}

fn artifice(files: &[&str]) -> PostProcessor {
    let files = files.iter().map(|file| Text((*file).to_owned())).collect();
    post_processor("artifice", Job::Artifice { files })
}

fn script(fails: bool) -> PostProcessor {
    post_processor(
        "shell-local",
        Job::ShellLocal(ShellLocal {
            scripts: qimg::template::model::Scripts::Inline(Vec::new()),
            inline_shebang: if fails { "fail" } else { "" }.to_owned(),
            environment: Vec::new(),
            environment_format: None,
            execute_command: Vec::new(),
            only_on: Vec::new(),
            tempfile_extension: String::new(),
            valid_exit_codes: vec![0],
        }),
    )
}
