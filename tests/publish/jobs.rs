//! Post-processors of templates, in both languages.

use std::collections::BTreeMap;
use std::path::Path;

use qimg::build::artifact::Artifact;
use qimg::build::post_processor::{Context, Event, Report, Runner, run};
use qimg::publish::Access;
use qimg::template::model::{Dialect, PostProcessor, ShellLocal, Text};
use qimg::{Error, Result};

use crate::cloud::{self, Cloud};
use crate::servers::{KEY, SECRET, Store, Wire};
use crate::templates::load;
use crate::{Program, http};

struct Nothing;

impl Runner for Nothing {
    fn shell_local(&mut self, _: &PostProcessor, _: &ShellLocal, _: &Artifact) -> Result<()> {
        Err(Error::unsupported("no scripts here"))
    }

    fn custom(
        &mut self,
        _: &PostProcessor,
        _: &str,
        _: &str,
        _: &Artifact,
    ) -> Result<(Artifact, bool)> {
        Err(Error::unsupported("no programs here"))
    }
}

fn access(program: &Program, environment: &[(&str, &str)]) -> Access {
    Access {
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        credentials_file: String::new(),
        config_file: String::new(),
        http: http(),
        journal: Some(program.path("journal")),
        clock: &|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        },
    }
}

fn process(
    program: &Program,
    dialect: Dialect,
    chains: &[Vec<PostProcessor>],
    files: &[&str],
    access: &Access,
) -> Report {
    let directory: &Path = program.home.path();
    let fill = |text: &Text, values: &[(&str, &str)]| {
        let mut filled = text.0.clone();
        for (name, value) in values {
            filled = filled.replace(&format!("{{{{.{name}}}}}"), value);
        }
        Ok(filled)
    };
    let context = Context {
        dialect,
        build_name: "web",
        builder_type: "qemu",
        run_uuid: "u",
        clock: &|| 0,
        accelerator: None,
        force: false,
        directory,
        threads: 1,
        access: Some(access),
        fill: &fill,
        stop: &|| false,
    };
    let artifact = Artifact::of_machine(files.iter().map(Into::into).collect(), "output".into());
    run(chains, &artifact, &context, &mut Nothing, &mut |event| {
        if let Event::Note(text) = event {
            assert!(!text.contains(SECRET), "{text}");
        }
    })
    .unwrap()
}

#[test]
fn all_files_of_an_artifact_go_to_a_store_and_stay() {
    let (store, program) = (Store::new(), Program::new());
    let wire = Wire::to(store.port());
    let template = load(&program, "t.toml", &format!(
        "{NATIVE}\n[[post]]\ns3 = \"images\"\nkey = \"builds/{{{{.BuildName}}}}/\"\nendpoint = \"{}\"\nregion = \"r\"\nacl = \"public-read\"\n",
        wire.endpoint()
    )).unwrap();
    program.file("web.qcow2", b"the image");
    program.file("web.sha256", b"its sum");
    let keys = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    let access = access(&program, &keys);
    let chains = &template.builds[0].post_processors;
    let report = process(
        &program,
        Dialect::Native,
        chains,
        &["web.qcow2", "web.sha256"],
        &access,
    );
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(report.removed.is_empty());
    assert_eq!(
        std::fs::read(store.object("builds/web/web.qcow2")).unwrap(),
        b"the image"
    );
    assert_eq!(
        std::fs::read(store.object("builds/web/web.sha256")).unwrap(),
        b"its sum"
    );
    assert!(
        wire.seen()
            .iter()
            .any(|seen| seen.header("x-amz-acl") == Some("public-read"))
    );
    assert!(
        report
            .artifacts
            .iter()
            .any(|artifact| artifact.id.contains("s3://images/builds/web/web.qcow2"))
    );
}

pub const NATIVE: &str = "name = \"web\"\n[base]\nimage = \"base.qcow2\"\nchecksum = \"none\"\n[ssh]\nusername = \"debian\"\n";

#[test]
fn a_store_that_refuses_leaves_the_artifact() {
    let (store, program) = (Store::new(), Program::new());
    let text = packer(&format!(
        r#"{{"type": "s3", "s3_bucket_name": "images", "endpoint": "{}", "access_key": "another", "secret_key": "{SECRET}"}}"#,
        store.endpoint()
    ));
    let template = load(&program, "t.json", &text).unwrap();
    program.file("web.qcow2", b"the image");
    let access = access(&program, &[]);
    let report = process(
        &program,
        Dialect::Packer,
        &template.builds[0].post_processors,
        &["web.qcow2"],
        &access,
    );
    assert_eq!(report.failed.len(), 1);
    let text = report.failed[0].error.to_string();
    assert!(text.contains("403") && !text.contains(SECRET), "{text}");
    assert!(program.path("web.qcow2").exists());
}

#[test]
fn packers_template_of_a_cloud_is_imported_and_the_image_goes_only_then() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let program = cloud::program(&cloud);
    let image = cloud::any_image(&program);
    let text = |zone: &str, further: &str| {
        packer(&format!(
            r#"{{"type": "exoscale-import", "api_key": "{KEY}", "api_secret": "{SECRET}", "image_bucket": "images",
            "template_name": "Web {{{{.BuildName}}}}", {zone}, "sos_endpoint": "{}", "api_timeout": 60,
            "api_endpoint": "{}", "use_link": true, "template_username": "debian"{further}}}"#,
            store.endpoint(),
            cloud.endpoint()
        ))
    };
    let access = access(&program, &[]);
    let zones = "\"template_zones\": [\"ch-gva-2\", \"de-fra-1\"]";
    let template = load(&program, "t.json", &text(zones, "")).unwrap();
    let files = ["efivars.fd", "output.qcow2"];
    program.file("efivars.fd", b"variables");
    let chains = &template.builds[0].post_processors;
    let report = process(&program, Dialect::Packer, chains, &files, &access);
    // It breaks the cloud's rules, so nothing was sent, and all is there.
    assert_eq!(report.failed.len(), 1);
    assert!(report.failed[0].error.remedy().is_some());
    assert!(image.exists() && cloud::template_names(&cloud).is_empty());
    let template = load(
        &program,
        "t.json",
        &text(
            zones,
            ", \"skip_preflight\": true, \"keep_input_artifact\": true",
        ),
    )
    .unwrap();
    let report = process(
        &program,
        Dialect::Packer,
        &template.builds[0].post_processors,
        &files,
        &access,
    );
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(cloud::template_names(&cloud), ["Web web"]);
    assert!(image.exists());
    let zone = "\"template_zone\": \"ch-gva-2\"";
    let template = load(
        &program,
        "t.json",
        &text(zone, ", \"skip_preflight\": true"),
    )
    .unwrap();
    let report = process(
        &program,
        Dialect::Packer,
        &template.builds[0].post_processors,
        &files,
        &access,
    );
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    // As Packer has it: what was imported goes, unless it is to be kept.
    assert!(!image.exists());
    assert_eq!(cloud::template_names(&cloud), ["Web web"]);
}

/// A template of Packer's with one post-processor.
pub fn packer(post_processor: &str) -> String {
    format!(
        r#"{{"builders": [{{"type": "qemu", "name": "web", "iso_url": "base.qcow2", "iso_checksum": "none", "disk_image": true,
            "ssh_username": "debian", "ssh_password": "x"}}], "post-processors": [{post_processor}]}}"#
    )
}
