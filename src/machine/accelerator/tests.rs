use super::*;

#[test]
fn names_are_those_of_templates() {
    assert_eq!(Accelerator::named("auto"), None);
    for name in ["kvm", "tcg", "none", "hvf"] {
        assert_eq!(Accelerator::named(name).unwrap().to_string(), name);
    }
    assert!(Accelerator::named("hvf").unwrap().is_hardware());
}

#[test]
fn the_owner_of_a_file_is_named() {
    assert_eq!(group_of(Path::new("/")), "root");
    assert_eq!(group_of(Path::new("/nowhere")), "?");
    let why = Why::NoPermission {
        group: "kvm".to_owned(),
    };
    assert_eq!(
        why.to_string(),
        "/dev/kvm may be opened by the group kvm only"
    );
}

#[test]
fn a_qemu_of_another_architecture_is_known_by_its_name() {
    for (name, same) in [
        ("qemu-system-x86_64", true),
        ("/usr/libexec/qemu-kvm", true),
        ("qemu-system-riscv32", false),
    ] {
        assert_eq!(is_of_this_architecture(Path::new(name)), same, "{name}");
    }
}

#[test]
fn the_sector_is_what_its_source_says() {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine/accelerator/probe.s");
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program)
            .args(arguments)
            .current_dir(directory.path())
            .status()
            .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
        assert!(status.success(), "{program}");
    };
    run("as", &["--64", source.to_str().unwrap(), "-o", "probe.o"]);
    run(
        "ld",
        &[
            "-Ttext=0x7c00",
            "--oformat",
            "binary",
            "-o",
            "probe.bin",
            "probe.o",
        ],
    );
    let sector = crate::store::read_file(directory.path().join("probe.bin"), 512).unwrap();
    let (code, rest) = sector.split_at(probe::CODE.len());
    assert_eq!(code, probe::CODE);
    let (zeros, mark) = rest.split_at(rest.len() - 2);
    assert!(zeros.iter().all(|&byte| byte == 0) && mark == [0x55, 0xaa]);
}
