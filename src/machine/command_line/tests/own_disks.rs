//! Disks and variables of qimg's own, which a template names as Packer would have them.

use super::*;

#[test]
fn a_template_may_attach_further_disks_itself() {
    let mut case = Case::new().with(&[
        &["-drive", "file=output-qemu/disk.qcow2,if=virtio,format=raw"],
        &["-drive", "file=./output-qemu/disk.qcow2-2,if=ide"],
        &[
            "-blockdev",
            "driver=raw,node-name=x,file.driver=file,file.filename=output-qemu/disk.qcow2-1",
        ],
        &["-drive", "file=output-qemu/disk.qcow2-3,if=virtio"],
    ]);
    case.additional = ["/run/work/one", "/run/work/two"]
        .map(|path| Drive {
            path: PathBuf::from(path),
            format: "qcow2".to_owned(),
        })
        .to_vec();
    let made = case.made();
    let line = made.arguments.join(" ");
    for words in [
        "-drive file=/run/main.qcow2,if=virtio,format=qcow2",
        "-drive file=/run/work/two,if=ide,format=qcow2",
        "driver=qcow2,node-name=x,file.driver=file,file.filename=/run/work/one",
        // There is none of that number.
        "-drive file=output-qemu/disk.qcow2-3,if=virtio",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(line.matches("/run/work/one").count(), 1, "{line}");
    let dropped = made
        .warnings
        .iter()
        .find(|words| words.contains("replaces what qimg gives"));
    assert_eq!(dropped, None);
    for words in [
        "format=raw becomes format=qcow2",
        "driver=raw becomes driver=qcow2",
    ] {
        assert!(
            made.warnings.iter().any(|warning| warning.contains(words)),
            "{words}"
        );
    }
}

#[test]
fn a_template_may_name_the_machines_own_variables() {
    let mut case = Case::new().with(&[
        &[
            "-drive",
            "if=pflash,unit=0,format=raw,readonly=on,file=/fw/CODE.fd",
        ],
        &[
            "-drive",
            "if=pflash,unit=1,format=raw,file=output-qemu/efivars.fd",
        ],
        &["-drive", "file=output-qemu/disk.qcow2,if=virtio"],
    ]);
    case.boot = Some(Boot::Flash(Flash {
        code: PathBuf::from("/fw/CODE.fd"),
        code_format: "raw".to_owned(),
        variables: PathBuf::from("/run/efivars.fd"),
        variables_format: "raw".to_owned(),
        needs_smm: false,
    }));
    case.copies = [("output-qemu/efivars.fd", "/run/efivars.fd")]
        .map(|(from, to)| (PathBuf::from(from), PathBuf::from(to)))
        .into();
    let made = case.made();
    let line = made.arguments.join(" ");
    assert!(
        line.contains("unit=1,format=raw,file=/run/efivars.fd"),
        "{line}"
    );
    assert!(
        !made.warnings.iter().any(|words| words.contains("copy")),
        "{:?}",
        made.warnings
    );
}
