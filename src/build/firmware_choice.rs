//! Which firmware a build's machine has.
//!
//! Knows how a template asks for one. Must not know where the host has its firmware.

use std::path::Path;

use super::output::OutputDirectory;
use super::request::BuildRequest;
use crate::error::Result;
use crate::machine::command_line::Boot;
use crate::machine::firmware;
use crate::template::model::Firmware;

/// The file of the variables, as Packer calls it.
pub(super) const VARIABLES: &str = "efivars.fd";

/// The firmware that the machine will have, with a copy of its variables in the output or the work directory.
pub(super) fn choose_firmware(
    request: &BuildRequest<'_>,
    output: &OutputDirectory,
) -> Result<Option<Boot>> {
    let keeps = match &request.build.machine.firmware {
        Firmware::Efi { drop_variables, .. } => !drop_variables,
        _ => false,
    };
    let directory = if keeps {
        output.artifact()
    } else {
        output.work().to_owned()
    };
    Ok(match find_firmware(request)? {
        Some(Boot::Flash(found)) => Some(Boot::Flash(found.with_copy(&directory.join(VARIABLES))?)),
        other => other,
    })
}

/// The firmware that the machine will have, with the host's own variables.
pub(super) fn find_firmware(request: &BuildRequest<'_>) -> Result<Option<Boot>> {
    let (machine, host) = (&request.build.machine, request.surroundings);
    let at = |path: &Path| host.directory.join(path);
    Ok(match &machine.firmware {
        Firmware::Default => None,
        // A name without a directory is one of QEMU's own files.
        Firmware::File { path, flash: false } => Some(Boot::Bios(if at(path).exists() {
            at(path)
        } else {
            path.clone()
        })),
        Firmware::File { path, flash: true } => Some(Boot::OneFlash(at(path))),
        Firmware::Efi {
            code,
            variables,
            secure,
            ..
        } => Some(Boot::Flash(match code {
            Some(code) => {
                let variables = variables.as_deref().map(at);
                firmware::named(&at(code), variables.as_deref(), &host.firmware)?
            }
            None => {
                let binary = Path::new(&machine.qemu)
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy();
                let wanted = firmware::Wanted {
                    architecture: binary.strip_prefix("qemu-system-").unwrap_or("x86_64"),
                    machine_type: machine.machine_type.as_deref(),
                    secure: *secure,
                };
                let mut found = firmware::find(&wanted, &host.firmware)?;
                if let Some(variables) = variables {
                    found.variables = at(variables);
                }
                found
            }
        })),
    })
}
