//! What arguments of a template take away from QEMU's command line.
//!
//! Packer's rule: a switch that is given replaces all that would have been given for that switch. Knows which defaults
//! there are; must not know how the command line is made.

/// What the defaults of a build hold.
#[derive(Debug)]
pub(in crate::template) struct Defaults<'a> {
    /// The main disk's directory and name.
    pub(in crate::template) directory: &'a str,
    pub(in crate::template) name: &'a str,
    /// The base is a medium, not the disk.
    pub(in crate::template) installs: bool,
    /// Its bus.
    pub(in crate::template) interface: &'a str,
    /// The guest is reached by the forwarded port.
    pub(in crate::template) forwards: bool,
}

/// What `arguments`, a switch and its values each, drop: the switch, what it was for, and what can be done.
pub(in crate::template) fn dropped(
    arguments: &[(String, String)],
    defaults: &Defaults<'_>,
) -> Vec<(String, String, String)> {
    let given = |switch: &str| -> Option<Vec<&str>> {
        let values: Vec<&str> = arguments
            .iter()
            .filter(|(name, _)| name == switch)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then_some(values)
    };
    let mut lost = Vec::new();
    let mut lose = |switch: &str, what: &str, remedy: String| {
        lost.push((switch.to_owned(), what.to_owned(), remedy));
    };
    if let Some(values) = given("-drive") {
        let disk = |value: &&str| {
            value.contains(&format!("{}/{}", defaults.directory, defaults.name))
                || value.contains(".OutputDir")
                || value.contains(&format!("/{}", defaults.name))
        };
        let elsewhere = ["-hda", "-blockdev", "-sda"]
            .iter()
            .any(|switch| given(switch).is_some());
        if !values.iter().any(disk) && !elsewhere {
            let format = format!(
                "add [\"-drive\", \"file={}/{},if={},format=qcow2\"]",
                defaults.directory, defaults.name, defaults.interface
            );
            lose("-drive", "the main disk", format);
        }
        let medium = values.iter().any(|value| value.contains("media=cdrom"));
        if defaults.installs && !medium && given("-cdrom").is_none() {
            let remedy = "add the medium as a -drive with media=cdrom, or with -cdrom".to_owned();
            lose("-drive", "the installation medium", remedy);
        }
    }
    if let Some(values) = given("-device") {
        let controller = matches!(defaults.interface, "virtio-scsi" | "scsi");
        let kept = values.iter().any(|value| value.contains("scsi"));
        if controller && !kept {
            let remedy =
                "add [\"-device\", \"virtio-scsi-pci\"] and the disk's own device".to_owned();
            lose("-device", "the controller of the main disk", remedy);
        }
    }
    if let Some(values) = given("-netdev") {
        let kept = values
            .iter()
            .any(|value| value.contains("hostfwd") || value.contains(".SSHHostPort"));
        if defaults.forwards && !kept {
            let remedy = "add hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22 to it".to_owned();
            lose("-netdev", "the port that leads to the guest's SSH", remedy);
        }
    }
    if let Some(values) = given("-machine") {
        let kept = values.iter().any(|value| value.contains("accel"));
        let elsewhere = ["-accel", "-enable-kvm"]
            .iter()
            .any(|switch| given(switch).is_some());
        if !kept && !elsewhere {
            let remedy = "set machine_type instead, or add accel= to it".to_owned();
            lose("-machine", "the accelerator", remedy);
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_again_is_not_lost() {
        let defaults = Defaults {
            directory: "output-qemu",
            name: "debian.qcow2",
            installs: false,
            interface: "virtio",
            forwards: true,
        };
        let lost = |arguments: &[(&str, &str)]| -> Vec<String> {
            let arguments: Vec<_> = arguments
                .iter()
                .map(|(switch, value)| ((*switch).to_owned(), (*value).to_owned()))
                .collect();
            let lost = dropped(&arguments, &defaults);
            lost.into_iter()
                .map(|(switch, what, _)| format!("{switch} {what}"))
                .collect()
        };
        assert_eq!(lost(&[("-cpu", "max"), ("-fda", "seed.img")]), [""; 0]);
        assert_eq!(
            lost(&[("-drive", "file=seed.img")]),
            ["-drive the main disk"]
        );
        let both = [
            ("-drive", "file=output-qemu/debian.qcow2,if=virtio"),
            ("-drive", "file=seed.img"),
        ];
        assert_eq!(lost(&both), [""; 0]);
        assert_eq!(
            lost(&[("-netdev", "user,id=user.0")]),
            ["-netdev the port that leads to the guest's SSH"]
        );
        assert_eq!(lost(&[("-device", "virtio-rng-pci")]), [""; 0]);
        assert_eq!(lost(&[("-machine", "q35")]), ["-machine the accelerator"]);
    }
}
