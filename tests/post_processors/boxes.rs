//! A Vagrant box holds what Vagrant looks for, and is the same whenever it is made.

use qimg::template::model::{Job, Text};

use super::oracle_tools::must;
use super::{Bench, PostProcessor};

fn vagrant(level: Option<i32>) -> PostProcessor {
    PostProcessor {
        kind: "vagrant".to_owned(),
        name: "vagrant".to_owned(),
        line: 1,
        keep_input: None,
        job: Job::Vagrant {
            output: Text("{{.BuildName}}_{{.Provider}}.box".to_owned()),
            level,
            include: vec![Text("extra.txt".to_owned())],
            vagrantfile: Some(Text("settings".to_owned())),
        },
    }
}

fn bench() -> Bench {
    let scratch = tempfile::tempdir().unwrap();
    must(
        scratch.path(),
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "disk.qcow2", "2500M"],
    );
    let image = std::fs::read(scratch.path().join("disk.qcow2")).unwrap();
    let bench = Bench::new(&[("efivars.fd", b"variables"), ("disk.qcow2", &image)]);
    std::fs::write(bench.path("extra.txt"), "extra").unwrap();
    std::fs::write(bench.path("settings"), "# own settings\n").unwrap();
    bench
}

#[test]
fn a_box_has_the_image_its_metadata_and_settings() {
    let mut bench = bench();
    let image = bench.read("output/disk.qcow2");
    let report = bench.must(&[vagrant(Some(9))]);
    let made = report.artifacts.last().unwrap();
    assert_eq!(made.builder_id, "mitchellh.post-processor.vagrant");
    assert_eq!(made.id, "libvirt");
    let name = made.files[0].to_str().unwrap().to_owned();
    assert!(name.ends_with("_libvirt.box"), "{name}");
    let listed = must(bench.directory.path(), "tar", &["tzf", &name]).stdout;
    assert_eq!(
        String::from_utf8(listed).unwrap(),
        "metadata.json\nVagrantfile\nextra.txt\nbox.img\n"
    );
    let of = |member: &str| must(bench.directory.path(), "tar", &["xzOf", &name, member]).stdout;
    let metadata: serde_json::Value = serde_json::from_slice(&of("metadata.json")).unwrap();
    assert_eq!(
        metadata,
        serde_json::json!({"provider": "libvirt", "format": "qcow2", "virtual_size": 3})
    );
    let settings = String::from_utf8(of("Vagrantfile")).unwrap();
    assert!(
        settings.contains("libvirt.driver") && settings.contains("# own settings"),
        "{settings}"
    );
    assert!(of("box.img") == image);
    // As Packer: what it took goes.
    assert!(!bench.path("output/disk.qcow2").exists());
}

#[test]
fn a_box_may_be_called_by_its_artifact() {
    let mut bench = bench();
    let mut post = vagrant(Some(1));
    if let Job::Vagrant { output, .. } = &mut post.job {
        *output = Text("b-{{.Provider}}-{{.ArtifactId}}.box".to_owned());
    }
    let report = bench.must(&[post]);
    // As Packer has it of its qemu builder.
    assert_eq!(
        report.artifacts.last().unwrap().files,
        [std::path::PathBuf::from("b-libvirt-VM.box")]
    );
}

#[test]
fn a_box_of_an_emulated_guest_asks_for_no_kvm() {
    for (accelerator, driver) in [
        (None, "kvm"),
        (Some("kvm"), "kvm"),
        (Some("auto"), "kvm"),
        (Some("tcg"), "qemu"),
        (Some("none"), "qemu"),
    ] {
        let mut bench = bench();
        bench.accelerator = accelerator;
        let report = bench.must(&[vagrant(Some(1))]);
        let name = report.artifacts.last().unwrap().files[0].clone();
        let arguments = ["xzOf", name.to_str().unwrap(), "Vagrantfile"];
        let settings = must(bench.directory.path(), "tar", &arguments).stdout;
        let settings = String::from_utf8(settings).unwrap();
        let line = format!("libvirt.driver = \"{driver}\"\n");
        assert!(settings.contains(&line), "{accelerator:?}: {settings}");
    }
}

#[test]
fn a_box_is_the_same_by_however_many_threads_and_needs_a_qcow2_image() {
    let made: Vec<Vec<u8>> = [1, 4]
        .into_iter()
        .map(|threads| {
            let mut bench = bench();
            bench.threads = threads;
            let report = bench.must(&[vagrant(None)]);
            let file = report.artifacts.last().unwrap().files[0].clone();
            bench.read(file.to_str().unwrap())
        })
        .collect();
    assert!(made[0] == made[1]);
    let mut raw = Bench::new(&[("disk.raw", &[7; 4096])]);
    std::fs::write(raw.path("extra.txt"), "extra").unwrap();
    std::fs::write(raw.path("settings"), "").unwrap();
    let error = raw.failure(&[vagrant(None)]);
    assert!(error.to_string().contains("qcow2"), "{error}");
    assert!(raw.path("output/disk.raw").exists());
}
