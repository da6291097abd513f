//! What templates say of publishing, read and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use qimg::Result;
use qimg::template::model::{Job, Template};
use qimg::template::{LoadRequest, convert};

use crate::Program;
use crate::jobs::{NATIVE, packer};

pub fn load(program: &Program, name: &str, text: &str) -> Result<Template> {
    let path = program.file(name, text.as_bytes());
    let loaded = qimg::template::load(&LoadRequest {
        path,
        bytes: None,
        var_files: Vec::new(),
        variables: Vec::new(),
        only: Vec::new(),
        except: Vec::new(),
        environment: BTreeMap::new(),
        directory: program.home.path().to_owned(),
        started: Duration::from_secs(1_700_000_000),
        random: &|| [7; 12],
    })?;
    loaded.usable()?;
    Ok(loaded.template)
}

#[test]
fn both_languages_say_the_same() {
    let program = Program::new();
    program.file("base.qcow2", b"");
    let packers = packer(
        r#"{"type": "exoscale-import", "api_key": "K", "api_secret": "S", "image_bucket": "b", "template_name": "n",
            "template_zone": "z1", "image_zone": "z2", "sos_endpoint": "https://s", "api_environment": "ppapi",
            "api_timeout": 60, "template_description": "d", "template_username": "u", "template_boot_mode": "uefi",
            "template_disable_password": true, "template_disable_sshkey": true, "template_maintainer": "m",
            "template_version": "1", "template_build": "2", "skip_clean": true}"#,
    );
    let template = load(&program, "t.json", &packers).unwrap();
    let Job::Exoscale(of_packer) = &template.builds[0].post_processors[0][0].job else {
        panic!("{template:?}");
    };
    assert!(!format!("{of_packer:?}").contains("\"S\""), "{of_packer:?}");
    assert_eq!(
        (of_packer.timeout, of_packer.keep_object, of_packer.public),
        (60, true, true)
    );
    assert_eq!(of_packer.zones[0].0, "z1");
    let native = format!(
        "{NATIVE}[[post]]\nexoscale = \"n\"\nbucket = \"b\"\nzones = [\"z1\"]\nimage-zone = \"z2\"\nstore-endpoint = \"https://s\"\n\
         environment = \"ppapi\"\ntimeout = 60\ndescription = \"d\"\nusername = \"u\"\nboot-mode = \"uefi\"\n\
         disable-password = true\ndisable-ssh-key = true\nmaintainer = \"m\"\nversion = \"1\"\nbuild = \"2\"\n\
         keep-object = true\npublic = true\napi-key = \"K\"\napi-secret = \"S\"\n"
    );
    let template = load(&program, "t.toml", &native).unwrap();
    let post = &template.builds[0].post_processors[0][0];
    assert_eq!(post.job, Job::Exoscale(of_packer.clone()));
    assert_eq!(post.kind, "exoscale-import");
    // What is converted says the same, too.
    let converted = convert::convert(&program.path("t.json"), None).unwrap();
    assert!(
        converted.text.contains("exoscale = \"n\"") && converted.text.contains("zones = [\"z1\"]"),
        "{}",
        converted.text
    );
}

#[test]
fn what_is_missing_or_wrong_is_told_with_its_line() {
    let program = Program::new();
    program.file("base.qcow2", b"");
    for (post, words) in [
        (r#"{"type": "s3"}"#, "there is no bucket"),
        (
            r#"{"type": "s3", "s3_bucket_name": "b", "access_key": "k"}"#,
            "come together",
        ),
        (
            r#"{"type": "s3", "s3_bucket_name": "b", "part_size": "1M"}"#,
            "5 MiB at least",
        ),
        (r#"{"type": "s3", "s3_bucket_nam": "b"}"#, "s3_bucket_nam"),
        (
            r#"{"type": "exoscale-import", "image_bucket": "b", "template_name": "n"}"#,
            "there is no zone",
        ),
        (
            r#"{"type": "exoscale-import", "image_bucket": "b", "template_zones": ["z"]}"#,
            "there is no name",
        ),
        (
            r#"{"type": "exoscale-import", "template_name": "n", "template_zones": ["z"]}"#,
            "there is no bucket",
        ),
        (
            r#"{"type": "exoscale-import", "image_bucket": "b", "template_name": "n", "template_zones": ["z"], "template_boot_mode": "bios"}"#,
            "there is no boot mode 'bios'",
        ),
    ] {
        program.file("t.json", packer(post).as_bytes());
        let said = program.fails(1, &["validate", "t.json"]);
        assert!(said.contains(words), "{post}: {said}");
    }
}
