//! The same template run by Packer: its checksums and manifests are ours to the byte.

use super::oracle_tools::run;
use super::{Bench, artifice, checksum, compress, manifest, manifest_with};

const BUILDER: &str =
    r#"{"type":"file","name":"one","target":"output/a<&>.img","content":"hello"}"#;

/// Packer's run of its file builder with these post-processors, in a directory of its own.
fn packer(post_processors: &str, options: &[&str], bench: &Bench) -> serde_json::Value {
    let template = format!(r#"{{"builders":[{BUILDER}],"post-processors":{post_processors}}}"#);
    std::fs::create_dir_all(bench.path("packer/output")).unwrap();
    std::fs::write(bench.path("packer/template.json"), template).unwrap();
    let directory = bench.path("packer");
    let home = directory.to_str().unwrap();
    let options = options.join(" ");
    // Packer asks its maker for news unless it is told not to.
    let command = format!(
        "CHECKPOINT_DISABLE=1 HOME={home} PACKER_CACHE_DIR={home}/cache packer build {options} template.json"
    );
    let output = run(&directory, "sh", &["-c", &command]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let manifest = std::fs::read(directory.join("first.json")).unwrap_or_else(|_| b"{}".to_vec());
    serde_json::from_slice(&manifest).unwrap()
}

fn bench() -> Bench {
    let mut bench = Bench::new(&[("a<&>.img", b"hello")]);
    bench.artifact.id = "File".into();
    bench.artifact.builder_id = "packer.file".into();
    bench
}

/// Takes time and id of the run from what Packer wrote.
fn as_packer_ran(bench: &mut Bench, manifest: &serde_json::Value) {
    bench.run_uuid = manifest["last_run_uuid"].as_str().unwrap().to_owned();
    let last = manifest["builds"].as_array().unwrap().last().unwrap();
    bench.build_time = last["build_time"].as_u64().unwrap();
}

#[test]
fn checksums_and_manifests_are_packers() {
    let mut bench = bench();
    let post_processors = r#"[
        [{"type":"manifest","output":"first.json"}],
        [{"type":"checksum","checksum_types":["md5","sha1","sha224","sha256","sha384","sha512"]}],
        [{"type":"checksum","checksum_types":["sha256","md5"],"output":"sums"},{"type":"manifest","output":"second.json"}],
        [{"type":"manifest","output":"third.json","strip_path":true,"strip_time":true,"custom_data":{"b":"x<y&z","a":""}}],
        [{"type":"artifice","files":["template.json"]},{"type":"checksum"},{"type":"manifest","output":"fourth.json"}]
    ]"#;
    let written = packer(post_processors, &[], &bench);
    as_packer_ran(&mut bench, &written);
    std::fs::copy(
        bench.path("packer/template.json"),
        bench.path("template.json"),
    )
    .unwrap();
    let by_kind = "packer_{{.BuildName}}_{{.BuilderType}}_{{.ChecksumType}}.checksum";
    let kinds = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"];
    let report = bench
        .run(&[
            vec![manifest("first.json")],
            vec![checksum(&kinds, by_kind, false)],
            vec![
                checksum(&["sha256", "md5"], "sums", false),
                manifest("second.json"),
            ],
            vec![manifest_with(
                "third.json",
                true,
                true,
                &[("b", "x<y&z"), ("a", "")],
            )],
            vec![
                artifice(&["template.json"]),
                checksum(&["md5"], by_kind, false),
                manifest("fourth.json"),
            ],
        ])
        .unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(report.removed.is_empty());
    let mut compared = 0;
    for name in bench.names() {
        let ours = name
            .strip_prefix("packer/")
            .filter(|name| *name != "output/" && !name.is_empty());
        if let Some(name) = ours.filter(|name| {
            !name.starts_with("cache") && !name.starts_with('.') && !name.ends_with('/')
        }) {
            let (packers, own) = (bench.read(&format!("packer/{name}")), bench.read(name));
            assert_eq!(
                String::from_utf8_lossy(&own),
                String::from_utf8_lossy(&packers),
                "{name}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 6 + 1 + 4 + 2, "{:?}", bench.names());
}

#[test]
fn a_manifest_is_added_to_and_begun_anew_by_force_as_packer_does_it() {
    let mut bench = bench();
    let one = r#"[{"type":"manifest","output":"first.json"}]"#;
    let two =
        r#"[{"type":"manifest","output":"first.json"},{"type":"manifest","output":"first.json"}]"#;
    for (post_processors, force) in [(one, false), (one, false), (two, true), (one, false)] {
        std::fs::remove_dir_all(bench.path("packer/output")).ok();
        let options: &[&str] = if force { &["-force"] } else { &[] };
        let written = packer(post_processors, options, &bench);
        as_packer_ran(&mut bench, &written);
        bench.force = force;
        let chains =
            vec![vec![manifest("first.json")]; post_processors.matches("manifest").count()];
        assert!(bench.run(&chains).unwrap().failed.is_empty());
        let (own, packers) = (bench.read("first.json"), bench.read("packer/first.json"));
        assert_eq!(
            String::from_utf8_lossy(&own),
            String::from_utf8_lossy(&packers)
        );
    }
    std::fs::write(bench.path("first.json"), "garbage").unwrap();
    let error = bench.failure(&[manifest("first.json")]);
    assert!(error.to_string().contains("no manifest"), "{error}");
    assert_eq!(bench.read("first.json"), b"garbage");
}

/// What is packed comes out the same, whoever unpacks it.
#[test]
fn what_packer_packs_without_a_known_ending_is_a_tar_in_gzip() {
    let mut bench = bench();
    packer(r#"[[{"type":"compress"}]]"#, &[], &bench);
    bench.must(&[compress("packer_{{.BuildName}}_{{.BuilderType}}")]);
    for path in ["packer/packer_one_file", "packer_one_file"] {
        let listed = super::oracle_tools::must(bench.directory.path(), "tar", &["xzOf", path]);
        assert_eq!(listed.stdout, b"hello");
    }
    assert!(!bench.path("output").exists());
    assert!(!bench.path("packer/output/a<&>.img").exists());
}
