//! The host's UEFI firmware and swtpm, with a real QEMU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qimg::machine::command_line::{Boot, Drive};
use qimg::machine::firmware::{Places, Wanted, find};
use qimg::machine::tpm::TpmProcess;
use qimg::machine::{Accelerator, Running, Spec, Start, command_line};
use qimg::template::model::Tpm;

use crate::small_guest::{NEVER, disk, launcher, machine, qemu, wait_until};

fn digest(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Boots an empty disk with firmware of the host, and a TPM, until the firmware says something.
fn boots(secure: bool) {
    let directory = tempfile::tempdir().unwrap();
    let launcher = launcher();
    let wanted = Wanted {
        architecture: "x86_64",
        machine_type: None,
        secure,
    };
    let found = find(&wanted, &Places::of_host(None)).unwrap();
    assert_eq!(found.needs_smm, secure);
    let system = found.variables.clone();
    let before = digest(&system);
    let boot = Boot::Flash(
        found
            .with_copy(&directory.path().join("efivars.fd"))
            .unwrap(),
    );

    let state = directory.path().join("tpm");
    std::fs::create_dir(&state).unwrap();
    let tpm =
        TpmProcess::start(&launcher, Path::new("/usr/bin/swtpm"), &state, false, NEVER).unwrap();

    let main = directory.path().join("main.raw");
    std::fs::write(&main, vec![0; 1 << 20]).unwrap();
    let mut machine = machine();
    machine.tpm = Some(Tpm {
        device: "tpm-tis".to_owned(),
        version_1: false,
    });
    let spec = Spec {
        name: "uefi",
        machine: &machine,
        disk: &disk(),
        qemu_args: &[],
        main: Drive {
            path: main,
            format: "raw".to_owned(),
        },
        main_by_template: Path::new("output-uefi/uefi"),
        directory: directory.path(),
        additional: &[],
        boots_from_disk: true,
        cds: &[],
        floppy: None,
        network_boot: None,
        seed: None,
        forward: None,
        accelerator: &Accelerator::Tcg,
        boot: Some(&boot),
        tpm: Some(tpm.socket()),
        has_display: false,
        copies: &BTreeMap::new(),
    };
    let arguments = command_line(&spec).unwrap().all().cloned().collect();
    let start = Start {
        launcher: &launcher,
        qemu: &qemu(),
        arguments,
        run_directory: directory.path(),
        vnc_password: None,
    };
    let running = Running::start(&start, NEVER).unwrap();
    let shown = running
        .qmp()
        .execute(
            "query-tpm",
            &serde_json::Value::Null,
            Duration::from_secs(5),
        )
        .unwrap();
    assert_eq!(shown[0]["model"], "tpm-tis");
    wait_until("the firmware speaks", Duration::from_secs(120), || {
        running
            .console()
            .tail(100)
            .iter()
            .any(|line| line.contains("BdsDxe") || line.contains("UEFI"))
    });
    drop(running);
    assert_eq!(
        digest(&system),
        before,
        "the variables of the system are as they were"
    );
    assert_ne!(
        digest(&directory.path().join("efivars.fd")),
        before,
        "the firmware wrote its copy"
    );
    let socket: PathBuf = tpm.socket().to_owned();
    drop(tpm);
    assert!(!socket.exists());
}

#[test]
fn uefi_of_the_host_boots_on_a_copy_of_its_variables() {
    boots(false);
}

#[test]
fn secure_boot_has_its_machine() {
    boots(true);
}

#[test]
fn a_swtpm_that_does_not_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let error = TpmProcess::start(
        &launcher(),
        Path::new("/bin/false"),
        directory.path(),
        false,
        NEVER,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("swtpm does not start"),
        "{error}"
    );
    let long = directory.path().join("x".repeat(120));
    let error =
        TpmProcess::start(&launcher(), Path::new("/bin/false"), &long, false, NEVER).unwrap_err();
    assert!(error.to_string().contains("107 bytes"), "{error}");
}
