use super::*;

fn descriptor(features: &[&str], machines: &[&str], more: &str) -> String {
    serde_json::json!({
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "/fw/CODE.fd", "format": "raw"},
            "nvram-template": {"filename": format!("/fw/VARS{more}.fd"), "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": machines}],
        "features": features,
    })
    .to_string()
}

fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Places) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_file(&path, text.as_bytes()).unwrap();
    }
    let mut places = Places::of_host(Some(Path::new("/home/me/.config")));
    places.root = directory.path().to_owned();
    (directory, places)
}

fn wanted(secure: bool) -> Wanted<'static> {
    Wanted {
        architecture: "x86_64",
        machine_type: None,
        secure,
    }
}

#[test]
fn descriptors_decide_by_name_feature_and_machine() {
    let secure = descriptor(
        &["secure-boot", "enrolled-keys", "requires-smm"],
        &["pc-q35-*"],
        "-secure",
    );
    let plain = descriptor(&[], &["pc-i440fx-*", "pc-q35-*"], "");
    let (keep, places) = tree(&[
        ("usr/share/qemu/firmware/40-secure.json", &secure),
        ("usr/share/qemu/firmware/60-plain.json", &plain),
        ("fw/CODE.fd", ""),
        ("fw/VARS.fd", ""),
        ("fw/VARS-secure.fd", ""),
    ]);
    let found = find(&wanted(true), &places).unwrap();
    assert!(
        found.needs_smm && found.variables == keep.path().join("fw/VARS-secure.fd"),
        "{found:?}"
    );
    let found = find(&wanted(false), &places).unwrap();
    assert!(
        !found.needs_smm && found.variables == keep.path().join("fw/VARS.fd"),
        "{found:?}"
    );
    let none = find(
        &Wanted {
            architecture: "aarch64",
            ..wanted(false)
        },
        &places,
    )
    .unwrap_err();
    assert!(none.to_string().contains("no UEFI firmware for aarch64"));
    assert!(none.remedy().unwrap().contains("ovmf"));
}

#[test]
fn a_descriptor_of_the_host_hides_that_of_the_distribution() {
    let (keep, places) = tree(&[
        ("etc/qemu/firmware/60-plain.json", ""),
        (
            "usr/share/qemu/firmware/60-plain.json",
            &descriptor(&[], &["pc-*"], ""),
        ),
        (
            "home/me/.config/qemu/firmware/70-mine.json",
            &descriptor(&[], &["pc-*"], "-mine"),
        ),
        ("fw/CODE.fd", ""),
        ("fw/VARS.fd", ""),
        ("fw/VARS-mine.fd", ""),
    ]);
    let found = find(&wanted(false), &places).unwrap();
    assert_eq!(found.variables, keep.path().join("fw/VARS-mine.fd"));
}

#[test]
fn without_descriptors_the_usual_places_are_known() {
    for (code, variables) in [
        ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
        (
            "usr/share/OVMF/OVMF_CODE_4M.fd",
            "usr/share/OVMF/OVMF_VARS_4M.fd",
        ),
        (
            "usr/share/edk2/x64/OVMF_CODE.4m.fd",
            "usr/share/edk2/x64/OVMF_VARS.4m.fd",
        ),
        (
            "opt/homebrew/share/qemu/edk2-x86_64-code.fd",
            "opt/homebrew/share/qemu/edk2-i386-vars.fd",
        ),
    ] {
        let (keep, places) = tree(&[(code, "code"), (variables, "variables")]);
        let found = find(&wanted(false), &places).unwrap();
        assert_eq!(
            (found.code, found.variables),
            (keep.path().join(code), keep.path().join(variables))
        );
        assert!(find(&wanted(true), &places).is_err());
    }
}

#[test]
fn a_code_that_is_named_finds_its_variables() {
    let (keep, places) = tree(&[
        ("a/X_CODE_4M.secboot.fd", ""),
        ("a/X_VARS_4M.fd", "v"),
        ("a/alone.fd", ""),
    ]);
    let code = keep.path().join("a/X_CODE_4M.secboot.fd");
    let found = named(&code, None, &places).unwrap();
    assert!(found.needs_smm && found.variables.ends_with("X_VARS_4M.fd"));
    let error = named(&keep.path().join("a/alone.fd"), None, &places).unwrap_err();
    assert!(error.remedy().unwrap().contains("efi_firmware_vars"));
    assert!(named(&keep.path().join("a/none.fd"), None, &places).is_err());
    let copy = keep.path().join("copy.fd");
    let copied = found.with_copy(&copy).unwrap();
    assert_eq!(copied.variables, copy);
    assert_eq!(read_file(&copy, 10).unwrap(), b"v");
}

#[test]
fn patterns_match_as_a_shell_does() {
    for (pattern, text, same) in [
        ("pc-q35-*", "pc-q35-9.2", true),
        ("pc-q35-*", "pc-i440fx-9.2", false),
        ("*", "", true),
        ("a*b*c", "axxbxxc", true),
        ("a*b*c", "axxcxxb", false),
        ("virt", "virt-9.0", false),
        ("", "", true),
        ("*-q35", "pc-q35", true),
    ] {
        assert_eq!(matches(pattern, text), same, "{pattern} {text}");
    }
}

#[test]
fn what_is_no_descriptor_is_no_firmware() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "{\"interface-types\": [\"uefi\"]}",
        "{\"interface-types\": 1}",
    ] {
        assert!(parse_descriptor(text.as_bytes()).is_none(), "{text}");
    }
    let stateless =
        descriptor(&[], &["*"], "").replace("\"device\"", "\"mode\":\"stateless\",\"device\"");
    assert!(parse_descriptor(stateless.as_bytes()).is_none());
}
