//! The template language: whatever the text, it ends soon; what means itself does, and what is put in early changes
//! nothing.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use qimg::template::late::Late;
use qimg::template::model::{Action, Text};
use qimg::template::{LoadRequest, load};

const BUILDER: &str = r#"{"type": "qemu", "iso_url": "a", "iso_checksum": "none", "disk_image": true, "ssh_username": "a"}"#;

fuzz_target!(|text: &str| {
    let late = Late::of([("Path", "/p{{"), ("Vars", "A='b'"), ("EnvVarFile", "")]);
    assert_eq!(late.render(&Text::literal(text)).expect("text that means itself"), text);
    let whole = late.render(&Text(text.to_owned()));
    if let Err(error) = &whole {
        assert!(!error.to_string().is_empty());
    }
    let quoted = serde_json::to_string(text).unwrap();
    let template = format!(
        r#"{{"variables": {{"v": {quoted}, "w": "{{{{user `v`}}}}"}}, "builders": [{BUILDER}], "provisioners": [
        {{"type": "shell", "inline": {quoted}, "execute_command": {quoted}, "environment_vars": [{quoted}]}}]}}"#
    );
    let request = |text: String| LoadRequest {
        path: "t.json".into(),
        bytes: Some(text.into_bytes()),
        var_files: Vec::new(),
        variables: Vec::new(),
        only: Vec::new(),
        except: Vec::new(),
        environment: [("E".to_owned(), "e".to_owned())].into(),
        directory: "/nowhere".into(),
        started: Duration::from_secs(1),
        random: &|| [1; 12],
    };
    let _ = load(&request(template));
    let template = format!(
        r#"{{"builders": [{BUILDER}], "provisioners": [{{"type": "shell", "inline": "x", "execute_command": {quoted}}}]}}"#
    );
    if let (Ok(loaded), Ok(whole)) = (load(&request(template)), whole) {
        let Action::Shell(shell) = &loaded.template.builds[0].provisioners[0].action else {
            panic!("a shell step");
        };
        // An empty command means the usual one.
        if !text.is_empty() && !shell.execute_command.0.contains("; {{.Vars}} {{.Path}}") {
            assert_eq!(late.render(&shell.execute_command).expect("what the whole gives"), whole);
        }
    }
});
