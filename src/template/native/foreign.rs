//! Steps and jobs that are programs of somebody else's: whether those are there.
//!
//! Knows how the programs are called and where they are looked for; starts none.

use std::path::Path;

use super::Paths;
use crate::template::check::Severity;
use crate::template::document::Node;
use crate::template::near;
use crate::template::reader::Table;

/// What a program stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Provisioner,
    PostProcessor,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::PostProcessor => "post-processor",
        }
    }

    /// Types that need no program.
    fn own(self) -> &'static [&'static str] {
        match self {
            Self::Provisioner => &[
                "shell",
                "shell-local",
                "file",
                "ansible",
                "ansible-local",
                "sleep",
                "breakpoint",
                "reboot",
            ],
            Self::PostProcessor => &[
                "compress",
                "checksum",
                "manifest",
                "artifice",
                "vagrant",
                "shell-local",
                "s3",
                "exoscale-import",
            ],
        }
    }
}

/// Tells of a type that is none of qimg's own and for which there is no program, before anything boots.
pub(super) fn look_for(
    table: &Table<'_, '_>,
    node: &Node,
    name: &str,
    part: Part,
    paths: &Paths<'_>,
) {
    let program = format!("qimg-{}-{name}", part.word());
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = !name.is_empty() && name.chars().all(fits);
    if is_name && is_there(&program, paths) {
        return;
    }
    let message = format!("{}: there is no {} '{name}'", table.what, part.word());
    let own = part.own();
    let remedy = match near(name, own.iter().copied()) {
        Some(near) if is_name => {
            format!("did you mean '{near}'? Else a program {program} has to be on the PATH")
        }
        Some(near) => format!("did you mean '{near}'?"),
        None if is_name => format!(
            "there is {}; any other is the program {program} on the PATH, which is not there",
            own.join(", ")
        ),
        None => format!("there is {}", own.join(", ")),
    };
    table
        .reader
        .find(Severity::Error, node.at, &message, &remedy);
}

fn is_there(program: &str, paths: &Paths<'_>) -> bool {
    let directories = paths.programs.split(':').filter(|part| !part.is_empty());
    directories
        .map(|directory| paths.host(&Path::new(directory).join(program)))
        .any(|file| is_program(&file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
