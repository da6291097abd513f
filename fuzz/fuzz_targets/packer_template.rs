//! Packer templates: whatever the text, an error names a line that it has; what loads loads as TOML, too, to the same.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use qimg::template::convert::convert;
use qimg::template::model::{Dialect, Template};
use qimg::template::{LoadRequest, load};

fn plain(mut template: Template) -> Template {
    template.path = "t".into();
    template.dialect = Dialect::Packer;
    for build in &mut template.builds {
        build.provisioners.iter_mut().chain(&mut build.cleanup).for_each(|step| step.line = 0);
        build.post_processors.iter_mut().flatten().for_each(|post| post.line = 0);
    }
    template
}

fuzz_target!(|bytes: &[u8]| {
    let request = |path: &str, bytes: &[u8]| LoadRequest {
        path: path.into(),
        bytes: Some(bytes.to_vec()),
        var_files: Vec::new(),
        variables: Vec::new(),
        only: Vec::new(),
        except: Vec::new(),
        environment: [("HOME".to_owned(), "/nowhere".to_owned())].into(),
        directory: "/nowhere".into(),
        started: Duration::from_secs(1),
        random: &|| [1; 12],
    };
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    match load(&request("t.json", bytes)) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(loaded) => {
            assert!(loaded.findings.iter().all(|finding| finding.line <= lines && !finding.message.is_empty()));
            let converted = convert("t.json".as_ref(), Some(&bytes.to_vec())).expect("what loads converts");
            let again = load(&request("t.toml", converted.text.as_bytes()))
                .unwrap_or_else(|error| panic!("{error}\n{}", converted.text));
            assert_eq!(plain(loaded.template), plain(again.template), "{}", converted.text);
        }
    }
});
