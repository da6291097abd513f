use super::*;
use crate::template::model::{DiskFormat, Firmware, Tpm, Vnc};

mod own_disks;

fn machine() -> Machine {
    Machine {
        qemu: "qemu-system-x86_64".to_owned(),
        accelerator: None,
        machine_type: None,
        cpu_model: None,
        cpus: 1,
        topology: [None; 3],
        memory_mib: 512,
        net_device: "virtio-net".to_owned(),
        net_bridge: None,
        host_ports: None,
        skip_nat_mapping: false,
        headless: true,
        display: None,
        vga: None,
        vnc: None,
        cdrom_interface: None,
        firmware: Firmware::Default,
        tpm: None,
        qmp_socket: None,
        qemu_args: Vec::new(),
    }
}

fn disk(interface: &str) -> Disk {
    Disk {
        size: None,
        format: DiskFormat::Qcow2,
        interface: interface.to_owned(),
        cache: "writeback".to_owned(),
        discard: "ignore".to_owned(),
        detect_zeroes: None,
        keep_backing_file: false,
    }
}

/// A case: what differs from the plain one.
struct Case {
    machine: Machine,
    disk: Disk,
    qemu_args: Vec<(String, Vec<String>)>,
    main: Drive,
    additional: Vec<Drive>,
    boots_from_disk: bool,
    cds: Vec<PathBuf>,
    seed: Option<PathBuf>,
    forward: Option<Forward>,
    accelerator: Accelerator,
    boot: Option<Boot>,
    tpm: Option<PathBuf>,
    has_display: bool,
    copies: BTreeMap<PathBuf, PathBuf>,
}

impl Case {
    fn new() -> Self {
        Self {
            machine: machine(),
            disk: disk("virtio"),
            qemu_args: Vec::new(),
            main: Drive {
                path: PathBuf::from("/run/main.qcow2"),
                format: "qcow2".to_owned(),
            },
            additional: Vec::new(),
            boots_from_disk: true,
            cds: Vec::new(),
            seed: None,
            forward: Some(Forward { host: 0, guest: 22 }),
            accelerator: Accelerator::Kvm,
            boot: None,
            tpm: None,
            has_display: false,
            copies: BTreeMap::new(),
        }
    }

    fn with(mut self, arguments: &[&[&str]]) -> Self {
        self.qemu_args = arguments
            .iter()
            .map(|words| {
                let mut words = words.iter().map(|word| (*word).to_owned());
                (words.next().unwrap(), words.collect())
            })
            .collect();
        self
    }

    fn made(&self) -> CommandLine {
        command_line(&Spec {
            name: "disk.qcow2",
            machine: &self.machine,
            disk: &self.disk,
            qemu_args: &self.qemu_args,
            main: self.main.clone(),
            main_by_template: Path::new("output-qemu/disk.qcow2"),
            directory: Path::new("/home/me"),
            additional: &self.additional,
            boots_from_disk: self.boots_from_disk,
            cds: &self.cds,
            floppy: None,
            network_boot: None,
            seed: self.seed.as_deref(),
            forward: self.forward,
            accelerator: &self.accelerator,
            boot: self.boot.as_ref(),
            tpm: self.tpm.as_deref(),
            has_display: self.has_display,
            copies: &self.copies,
        })
        .unwrap()
    }

    /// The machine's own arguments as one line.
    fn line(&self) -> String {
        self.made().arguments.join(" ")
    }
}

const MAIN: &str =
    "-drive file=/run/main.qcow2,if=virtio,cache=writeback,discard=ignore,format=qcow2";
const NIC: &str = "-device virtio-net,netdev=user.0";
const NET: &str = "-netdev user,id=user.0,hostfwd=tcp:127.0.0.1:0-:22";
const SUPERVISION: &str = "-chardev socket,id=qimg-control,fd=0 -mon chardev=qimg-control,mode=control \
     -chardev socket,id=qimg-console,fd=1 -serial chardev:qimg-console -monitor none -device pvpanic \
     -action panic=pause -S";

#[test]
fn the_default_is_packers_on_the_loopback_address() {
    let made = Case::new().made();
    let expected = format!(
        "-name disk.qcow2 -machine type=pc -accel kvm -cpu host -smp 1 -m 512M {NET} {NIC} {MAIN} -boot c -display none"
    );
    assert_eq!(made.arguments.join(" "), expected);
    assert_eq!(made.supervision.join(" "), SUPERVISION);
    assert_eq!(made.warnings, [""; 0]);
    assert!(made.has_main && !made.main_by_template);
}

#[test]
fn each_option_has_its_words() {
    let mut case = Case::new();
    case.machine.cpus = 4;
    case.machine.topology = [Some(1), Some(2), Some(2)];
    case.machine.vga = Some("std".to_owned());
    case.machine.vnc = Some(Vnc {
        address: "127.0.0.1".to_owned(),
        ports: (5910, 5920),
        password: Some("x".to_owned()),
    });
    case.machine.tpm = Some(Tpm {
        device: "tpm-tis".to_owned(),
        version_1: false,
    });
    case.machine.qmp_socket = Some(PathBuf::from("/a,b/q"));
    case.tpm = Some(PathBuf::from("/run/tpm.sock"));
    case.disk.detect_zeroes = Some("unmap".to_owned());
    case.additional = vec![Drive {
        path: PathBuf::from("/run/a,b-1"),
        format: "raw".to_owned(),
    }];
    case.cds = vec![PathBuf::from("/run/install.iso")];
    case.boots_from_disk = false;
    case.forward = None;
    case.seed = Some(PathBuf::from("/run/seed.img"));
    let line = case.line();
    for words in [
        "-smp 4,sockets=1,cores=2,threads=2",
        "-netdev user,id=user.0 ",
        "detect-zeroes=unmap,format=qcow2",
        "file=/run/a,,b-1,if=virtio,",
        "-drive file=/run/install.iso,media=cdrom",
        "-boot once=d",
        "-vga std",
        "-vnc 127.0.0.1:10,to=20,password=on",
        "-qmp unix:/a,,b/q,server=on,wait=off",
        "-chardev socket,id=vtpm,path=/run/tpm.sock -tpmdev emulator,id=tpm0,chardev=vtpm -device tpm-tis,tpmdev=tpm0",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    // Last of all, so that the guest's names of its disks are those without it.
    assert!(
        line.ends_with("-drive file=/run/seed.img,if=virtio,format=raw,readonly=on"),
        "{line}"
    );
}

#[test]
fn disks_that_qemu_has_no_if_for_get_their_controllers() {
    for (interface, devices, drive) in [
        (
            "virtio-scsi",
            "-device virtio-scsi-pci,id=scsi0 -device scsi-hd,bus=scsi0.0,drive=drive0",
            "if=none",
        ),
        (
            "scsi",
            "-device lsi53c895a,id=scsi0 -device scsi-hd,bus=scsi0.0,drive=drive0",
            "if=none",
        ),
        (
            "sata",
            "-device ahci,id=sata0 -device ide-hd,bus=sata0.0,drive=drive0",
            "if=none",
        ),
        ("ide", "", "if=ide"),
    ] {
        let mut case = Case::new();
        case.disk = disk(interface);
        case.seed = Some(PathBuf::from("/s"));
        let line = case.line();
        assert!(
            line.contains(devices) && line.contains(drive),
            "{interface}: {line}"
        );
        let seed = if interface == "virtio-scsi" {
            "if=virtio"
        } else {
            "media=cdrom"
        };
        assert!(
            line.contains(&format!("file=/s,{seed}")),
            "{interface}: {line}"
        );
    }
}

#[test]
fn uefi_has_two_flashes_and_secure_boot_has_q35() {
    let flash = Flash {
        code: PathBuf::from("/fw/CODE.fd"),
        code_format: "raw".to_owned(),
        variables: PathBuf::from("/run/vars.fd"),
        variables_format: "raw".to_owned(),
        needs_smm: true,
    };
    let mut case = Case::new();
    case.boot = Some(Boot::Flash(flash));
    let line = case.line();
    for words in [
        "-machine type=q35,smm=on",
        "-drive if=pflash,unit=0,format=raw,readonly=on,file=/fw/CODE.fd -drive if=pflash,unit=1,format=raw,file=/run/vars.fd",
        "-global driver=cfi.pflash01,property=secure,value=on",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert!(!line.contains("-boot"));
    case.boot = Some(Boot::Bios(PathBuf::from("/fw/a,b")));
    assert!(case.line().contains("-bios /fw/a,b "));
}

#[test]
fn a_switch_that_is_given_replaces_all_of_its_defaults_and_says_so() {
    let made = Case::new()
        .with(&[
            &["-m", "2048", "M"],
            &["-smp", "2"],
            &["-vga", "none"],
            &["-enable-kvm"],
        ])
        .made();
    let line = made.arguments.join(" ");
    assert!(
        line.ends_with("-m 2048M -smp 2 -vga none -enable-kvm"),
        "{line}"
    );
    assert!(!line.contains("512M") && !line.contains("-accel"), "{line}");
    assert_eq!(
        made.warnings,
        [
            "-m in qemuargs replaces what qimg gives by itself: -m 512M",
            "-smp in qemuargs replaces what qimg gives by itself: -smp 1",
        ]
    );
}

#[test]
fn a_device_drops_the_network_card_only_where_it_names_one() {
    let kept = Case::new().with(&[&["-device", "virtio-rng-pci"]]).line();
    assert!(
        kept.contains(NIC) && kept.ends_with("-device virtio-rng-pci"),
        "{kept}"
    );
    let replaced = Case::new()
        .with(&[&["-device", "virtio-net,netdev=user.0,mac=52:54:00:00:00:01"]])
        .made();
    assert!(!replaced.arguments.join(" ").contains(&format!("{NIC} ")));
    assert!(
        replaced.warnings[0].contains("-device virtio-net,netdev=user.0"),
        "{:?}",
        replaced.warnings
    );
    let mut scsi = Case::new().with(&[&["-device", "virtio-rng-pci"]]);
    scsi.disk = disk("virtio-scsi");
    let warnings = scsi.made().warnings;
    assert!(warnings[0].contains("scsi-hd,bus=scsi0.0"), "{warnings:?}");
}

#[test]
fn a_drive_that_names_the_main_disk_is_it() {
    for file in [
        "output-qemu/disk.qcow2",
        "./output-qemu/disk.qcow2",
        "/home/me/output-qemu/disk.qcow2",
    ] {
        let drive = format!("file={file},if=virtio,cache=writeback,discard=ignore,format=qcow2");
        let made = Case::new()
            .with(&[
                &["-cpu", "host"],
                &["-drive", &drive],
                &["-drive", "file=seed.img,format=raw"],
            ])
            .made();
        let line = made.arguments.join(" ");
        assert!(
            line.ends_with(&format!(
                "-cpu host {MAIN},cache.no-flush=on -drive file=seed.img,format=raw"
            )),
            "{line}"
        );
        assert!(made.main_by_template && made.has_main);
        assert_eq!(made.warnings, [""; 0], "{file}");
    }
}

#[test]
fn a_main_disk_of_another_format_is_what_it_is() {
    let made = Case::new()
        .with(&[&["-drive", "file=output-qemu/disk.qcow2,if=ide,format=raw"]])
        .made();
    assert!(
        made.arguments
            .contains(&"file=/run/main.qcow2,if=ide,format=qcow2,cache.no-flush=on".to_owned())
    );
    assert!(
        made.warnings[0].contains("format=raw becomes format=qcow2"),
        "{:?}",
        made.warnings
    );
}

#[test]
fn a_main_disk_whose_cache_a_template_fixes_keeps_it() {
    for cache in [
        "cache=none",
        "cache=writethrough",
        "cache.no-flush=off",
        "cache=unsafe",
    ] {
        let drive = format!("file=output-qemu/disk.qcow2,{cache}");
        let line = Case::new().with(&[&["-drive", &drive]]).line();
        let main = format!("-drive file=/run/main.qcow2,{cache},format=qcow2");
        assert!(line.ends_with(&main), "{line}");
    }
}

#[test]
fn a_drive_that_leaves_the_main_disk_out_says_how_to_keep_it() {
    let made = Case::new()
        .with(&[&["-drive", "file=seed.img,format=raw"]])
        .made();
    assert!(!made.has_main);
    assert!(
        made.warnings
            .iter()
            .any(|words| words.contains("file=output-qemu/disk.qcow2")),
        "{:?}",
        made.warnings
    );
}

#[test]
fn a_main_disk_given_as_hda_is_not_attached_twice() {
    let made = Case::new()
        .with(&[&["-hda", "output-qemu/disk.qcow2"]])
        .made();
    let line = made.arguments.join(" ");
    assert_eq!(line.matches("/run/main.qcow2").count(), 1, "{line}");
    assert!(made.main_by_template && made.has_main);
}

#[test]
fn firmware_variables_of_the_system_are_written_as_a_copy() {
    let arguments: &[&[&str]] = &[
        &[
            "-drive",
            "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd",
        ],
        &[
            "-drive",
            "if=pflash,format=raw,unit=1,file=/usr/share/OVMF/OVMF_VARS.fd",
        ],
        &["-drive", "file=output-qemu/disk.qcow2,if=virtio"],
        &[
            "-blockdev",
            "node-name=x,driver=file,filename=/usr/share/qemu/vars.fd",
        ],
        &["-pflash", "my.fd"],
    ];
    let mut case = Case::new().with(arguments);
    let wish = wishes(
        &case.qemu_args,
        Path::new("output-qemu/disk.qcow2"),
        Path::new("/home/me"),
    );
    let wanted = [
        "/usr/share/OVMF/OVMF_VARS.fd",
        "/usr/share/qemu/vars.fd",
        "my.fd",
    ]
    .map(PathBuf::from);
    assert_eq!(
        wish,
        Wish {
            names_main: true,
            firmware: wanted.to_vec(),
            accelerator: None
        }
    );
    case.copies = wanted
        .iter()
        .enumerate()
        .map(|(number, path)| (path.clone(), PathBuf::from(format!("/run/{number},x"))))
        .collect();
    let made = case.made();
    let line = made.arguments.join(" ");
    for words in [
        "unit=1,file=/run/0,,x",
        "readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd",
        "filename=/run/1,,x",
        "-pflash /run/2,x",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(
        made.warnings
            .iter()
            .filter(|words| words.contains("it writes a copy"))
            .count(),
        3
    );
}

#[test]
fn supervision_survives_whatever_a_template_says() {
    for (given, kept, supervision, warning) in [
        (vec!["-serial", "stdio"], "", "", ""),
        (vec!["-serial", "mon:stdio"], "", "", ""),
        (vec!["-serial", "none"], "", "", ""),
        (
            vec!["-serial", "file:/tmp/a,b"],
            "",
            "fd=1,logfile=/tmp/a,,b,logappend=off",
            "",
        ),
        (
            vec!["-serial", "pty"],
            "",
            "-serial chardev:qimg-console -serial pty",
            "becomes the second serial port",
        ),
        (
            vec!["-nographic"],
            "-machine graphics=off -display none",
            "",
            "",
        ),
        (
            vec!["-monitor", "stdio"],
            "-monitor none",
            "",
            "-monitor stdio in qemuargs is left out",
        ),
        (
            vec!["-monitor", "unix:m,server"],
            "-monitor unix:m,server",
            "",
            "",
        ),
        (
            vec!["-qmp", "stdio"],
            "",
            "",
            "-qmp stdio in qemuargs is left out",
        ),
        (
            vec!["-chardev", "stdio,id=a,mux=on"],
            "-chardev null,id=a,mux=on",
            "",
            "leads nowhere",
        ),
        (vec!["-daemonize"], "", "", "-daemonize"),
        (vec!["-S"], "", "", "-S in qemuargs"),
        (
            vec!["-display", "gtk"],
            "-display none",
            "",
            "cannot be had here",
        ),
        (
            vec!["-display", "curses"],
            "-display none",
            "",
            "cannot be had here",
        ),
        (vec!["--daemonize"], "", "", "-daemonize"),
        (vec!["-device", "pvpanic"], "-device pvpanic", "", ""),
    ] {
        let made = Case::new().with(&[&given]).made();
        let line = made.arguments.join(" ");
        assert!(line.ends_with(kept), "{given:?}: {line}");
        let guard = made.supervision.join(" ");
        assert!(guard.contains(supervision), "{given:?}: {guard}");
        assert!(
            guard.contains("-mon chardev=qimg-control,mode=control") && guard.contains("fd=1"),
            "{guard}"
        );
        let first = made
            .all()
            .position(|word| word == "-serial")
            .map(|at| made.all().nth(at + 1).unwrap().clone());
        assert_eq!(first.as_deref(), Some("chardev:qimg-console"), "{given:?}");
        assert_eq!(guard.contains("pvpanic"), !line.contains("pvpanic"));
        let daemon = made.all().any(|word| word.ends_with("daemonize"));
        assert!(!daemon && made.supervision.last().unwrap() == "-S");
        if warning.is_empty() {
            assert_eq!(made.warnings, [""; 0], "{given:?}");
        } else {
            assert!(
                made.warnings.iter().any(|words| words.contains(warning)),
                "{given:?}: {:?}",
                made.warnings
            );
        }
    }
    let many = Case::new()
        .with(&[
            &["-serial", "none"],
            &["-serial", "stdio"],
            &["-serial", "pty"],
            &["-serial", "pty"],
            &["-serial", "pty"],
        ])
        .made();
    assert_eq!(
        many.supervision
            .iter()
            .filter(|word| *word == "-serial")
            .count(),
        4
    );
    assert!(
        many.warnings
            .iter()
            .any(|words| words.contains("4 serial ports"))
    );
}

#[test]
fn the_panic_device_is_there_where_there_is_a_bus_for_it() {
    for (kind, there) in [
        ("q35", true),
        ("pc-i440fx-7.2", true),
        ("microvm", false),
        ("virt", false),
    ] {
        let mut case = Case::new();
        case.machine.machine_type = Some(kind.to_owned());
        assert_eq!(
            case.made().supervision.contains(&"pvpanic".to_owned()),
            there,
            "{kind}"
        );
        let by_template = Case::new().with(&[&["-machine", kind]]).made();
        assert_eq!(
            by_template.supervision.contains(&"pvpanic".to_owned()),
            there,
            "{kind}"
        );
    }
}

#[test]
fn without_kvm_nothing_asks_for_it() {
    let mut case = Case::new().with(&[
        &["-cpu", "host,migratable=off"],
        &["-machine", "q35,accel=kvm"],
    ]);
    case.accelerator = Accelerator::Tcg;
    let made = case.made();
    assert!(
        made.arguments
            .join(" ")
            .ends_with("-cpu max,migratable=off -machine q35,accel=tcg"),
        "{made:?}"
    );
    assert!(
        made.warnings
            .iter()
            .any(|words| words.contains("-cpu host,migratable=off needs KVM"))
    );
    assert!(
        made.warnings
            .iter()
            .any(|words| words.contains("no usable KVM"))
    );

    let mut case = Case::new().with(&[&["-enable-kvm"]]);
    case.accelerator = Accelerator::Tcg;
    case.machine.cpu_model = Some("host".to_owned());
    let made = case.made();
    let line = made.arguments.join(" ");
    assert!(
        line.contains("-cpu max ") && line.ends_with("-accel tcg,thread=multi"),
        "{line}"
    );

    let mut plain = Case::new();
    plain.accelerator = Accelerator::Tcg;
    assert!(plain.line().contains("-accel tcg,thread=multi -cpu max"));
    plain.accelerator = Accelerator::None;
    assert!(!plain.line().contains("-accel") && !plain.line().contains("-cpu"));
}

#[test]
fn a_window_is_there_only_where_it_can_be() {
    let mut case = Case::new();
    case.machine.headless = false;
    let made = case.made();
    assert!(made.arguments.join(" ").contains("-display none"));
    assert_eq!(
        made.warnings,
        ["there is no display here: the machine has no window"]
    );
    case.has_display = true;
    assert!(!case.line().contains("-display"));
    case.machine.display = Some("sdl".to_owned());
    assert!(case.line().contains("-display sdl"));
}

#[test]
fn ports_open_to_others_are_told() {
    let made = Case::new()
        .with(&[
            &["-netdev", "user,id=user.0,hostfwd=tcp::{{}}-:22"],
            &["-vnc", ":1"],
        ])
        .made();
    assert!(
        made.warnings
            .iter()
            .any(|words| words.contains("hostfwd=tcp::")),
        "{:?}",
        made.warnings
    );
    assert!(
        made.warnings.iter().any(|words| words.contains("-vnc :1")),
        "{:?}",
        made.warnings
    );
    let closed = Case::new()
        .with(&[&["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:2222-:22"]])
        .made();
    assert!(
        !closed
            .warnings
            .iter()
            .any(|words| words.contains("other machines")),
        "{:?}",
        closed.warnings
    );
}
