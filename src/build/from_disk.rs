//! A machine that something was installed on, started by its disk and by nothing else.
//!
//! Knows which switches of QEMU start something other than a disk: an installer that nobody asked for would write over
//! what it installed. Must not know what was installed.

use super::prepared::QemuArgs;
use crate::machine::command_line::{Options, plain};

/// Switches that go, with their values.
const STARTING: &[&str] = &[
    "-boot",
    "-cdrom",
    "-kernel",
    "-initrd",
    "-append",
    // So that what is installed may restart the machine.
    "-no-reboot",
];

/// All that QEMU lets be said of a drive without a file.
const OF_AN_EMPTY_DRIVE: &[&str] = &["if", "id", "index", "bus", "unit", "media"];

/// A template's arguments without what starts anything but the disk. Drives of CDs stay, empty: devices name them.
pub(super) fn from_disk(qemu_args: QemuArgs) -> QemuArgs {
    qemu_args
        .into_iter()
        .filter(|(switch, _)| !STARTING.contains(&plain(switch)))
        .map(|(switch, values)| match plain(&switch) {
            "-drive" => {
                let value = emptied(&values.concat());
                (switch, vec![value])
            }
            _ => (switch, values),
        })
        .collect()
}

/// A drive; that of a CD without its medium.
fn emptied(drive: &str) -> String {
    let mut options = Options::parse(drive);
    if options.value("media") != Some("cdrom") {
        return drive.to_owned();
    }
    options.keep_only(OF_AN_EMPTY_DRIVE);
    options.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(all: &[(&str, &str)]) -> QemuArgs {
        all.iter()
            .map(|(switch, value)| ((*switch).to_owned(), vec![(*value).to_owned()]))
            .collect()
    }

    #[test]
    fn an_installer_that_the_template_starts_by_itself_is_not_started_again() {
        let left = from_disk(arguments(&[
            ("-m", "512"),
            ("-boot", "once=d"),
            ("--boot", "d"),
            ("-cdrom", "/x.iso"),
            ("-kernel", "/linux"),
            ("-initrd", "/initrd"),
            ("-append", "auto"),
            ("-no-reboot", ""),
            ("-drive", "file=/disk,if=virtio,format=qcow2"),
            (
                "-drive",
                "if=none,id=cd,file=/a,,b.iso,media=cdrom,format=raw,cache=none,readonly",
            ),
            ("-device", "scsi-cd,drive=cd,bootindex=1"),
        ]));
        assert_eq!(
            left,
            arguments(&[
                ("-m", "512"),
                ("-drive", "file=/disk,if=virtio,format=qcow2"),
                ("-drive", "if=none,id=cd,media=cdrom"),
                ("-device", "scsi-cd,drive=cd,bootindex=1"),
            ])
        );
    }
}
