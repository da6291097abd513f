//! What a provisioner depends on, byte for byte: as long as that is the same, so is what it does to the guest.
//!
//! Knows which of them act on the host, too. Must not know what the bytes are compared with.

use std::path::Path;

use super::file::uploaded;
use super::watch::Watch;
use crate::build::late::RenderText;
use crate::error::Result;
use crate::store::read_file;
use crate::template::model::{
    Action, AnsibleLocal, Direction, FileTransfer, Provisioner, Scripts, Shell, ShellLocal, Text,
};

/// Longest script of which the bytes are looked at.
const LONGEST: u64 = 256 << 20;

/// Takes pieces, in order, with a name for what each is.
pub(crate) type Take<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// Gives `take` all that `step` depends on. Some words come back for a step that must be run every time: what it does
/// cannot be had again by bringing back the guest.
///
/// # Errors
/// A file cannot be read, or a text not be filled in.
pub(crate) fn contents(
    step: &Provisioner,
    texts: &dyn RenderText,
    watch: &Watch<'_>,
    take: &mut Take<'_>,
) -> Result<Option<&'static str>> {
    if step.cache == Some(false) {
        return Ok(Some("the template wants it to be run every time"));
    }
    let declared = step.cache == Some(true);
    let unless = |why| (!declared).then_some(why);
    take("kind", step.kind.as_bytes());
    Ok(match &step.action {
        Action::Shell(shell) => {
            of_shell(shell, texts, take)?;
            None
        }
        Action::File(transfer) => {
            of_transfer(transfer, texts, watch, take)?;
            match transfer.direction {
                Direction::Upload => None,
                Direction::Download => unless("it fetches files from the guest"),
            }
        }
        Action::ShellLocal(local) => {
            of_local(local, texts, take)?;
            unless("it runs on the host")
        }
        Action::Ansible(ansible) => {
            take("options", format!("{ansible:?}").as_bytes());
            // A playbook reads what lies beside it.
            for playbook in &ansible.playbooks {
                let playbook = texts.render(playbook, &[])?;
                let directory = Path::new(&playbook).parent();
                let directory = directory.filter(|path| !path.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new(".")).display().to_string();
                uploaded(&format!("{directory}/"), watch, take)?;
            }
            unless("its playbook may read any file of the host, and does what it does from there")
        }
        Action::AnsibleLocal(ansible) => {
            of_ansible_local(ansible, texts, watch, take)?;
            None
        }
        Action::Sleep(time) => {
            take("sleep", format!("{time:?}").as_bytes());
            None
        }
        Action::Reboot { command, .. } => {
            take("reboot", texts.render(command, &[])?.as_bytes());
            None
        }
        Action::Breakpoint { disabled, .. } => (!disabled).then_some("it asks somebody"),
        Action::Custom { name, options } => {
            take("custom", name.as_bytes());
            take("options", options.as_bytes());
            unless("nobody knows what it does on the host")
        }
    })
}

fn of_shell(shell: &Shell, texts: &dyn RenderText, take: &mut Take<'_>) -> Result<()> {
    let Shell {
        scripts,
        environment,
        execute_command,
        // Nothing of these is seen by the guest.
        start_retry_timeout: _,
        ..
    } = shell;
    let plain = Shell {
        scripts: Scripts::Inline(Vec::new()),
        environment: Vec::new(),
        execute_command: Text::default(),
        start_retry_timeout: std::time::Duration::ZERO,
        ..shell.clone()
    };
    take("options", format!("{plain:?}").as_bytes());
    let fields = [
        ("Path", "\0path"),
        ("Vars", "\0vars"),
        ("EnvVarFile", "\0file"),
    ];
    let command = texts.render(execute_command, &fields)?;
    take("execute_command", command.as_bytes());
    of_environment(environment, texts, take)?;
    of_scripts(scripts, texts, take)
}

fn of_ansible_local(
    ansible: &AnsibleLocal,
    texts: &dyn RenderText,
    watch: &Watch<'_>,
    take: &mut Take<'_>,
) -> Result<()> {
    let plain = AnsibleLocal {
        playbooks: Vec::new(),
        playbook_dir: None,
        extra_arguments: Vec::new(),
        ..ansible.clone()
    };
    take("options", format!("{plain:?}").as_bytes());
    for argument in &ansible.extra_arguments {
        take("argument", texts.render(argument, &[])?.as_bytes());
    }
    let directories = [
        &ansible.playbook_dir,
        &ansible.group_vars,
        &ansible.host_vars,
        &ansible.inventory_file,
        &ansible.galaxy_file,
    ];
    let sources = directories
        .into_iter()
        .flatten()
        .chain(&ansible.playbooks)
        .chain(&ansible.playbook_paths)
        .chain(&ansible.role_paths)
        .chain(&ansible.collection_paths);
    for source in sources {
        uploaded(&texts.render(source, &[])?, watch, take)?;
    }
    Ok(())
}

fn of_environment(
    environment: &[(String, Text)],
    texts: &dyn RenderText,
    take: &mut Take<'_>,
) -> Result<()> {
    for (name, value) in environment {
        take("variable", name.as_bytes());
        take("value", texts.render(value, &[])?.as_bytes());
    }
    Ok(())
}

fn of_scripts(scripts: &Scripts, texts: &dyn RenderText, take: &mut Take<'_>) -> Result<()> {
    match scripts {
        Scripts::Inline(lines) => {
            for line in lines {
                take("line", texts.render(line, &[])?.as_bytes());
            }
        }
        Scripts::Files(files) => {
            for file in files {
                let path = texts.render(file, &[])?;
                take("script", &read_file(Path::new(&path), LONGEST)?);
            }
        }
    }
    Ok(())
}

fn of_transfer(
    transfer: &FileTransfer,
    texts: &dyn RenderText,
    watch: &Watch<'_>,
    take: &mut Take<'_>,
) -> Result<()> {
    let to = texts.render(&transfer.destination, &[])?;
    take("destination", to.as_bytes());
    if let Some(content) = &transfer.content {
        take("content", texts.render(content, &[])?.as_bytes());
        return Ok(());
    }
    for source in &transfer.sources {
        let source = texts.render(source, &[])?;
        match transfer.direction {
            Direction::Upload => uploaded(&source, watch, take)?,
            Direction::Download => take("source", source.as_bytes()),
        }
    }
    Ok(())
}

fn of_local(local: &ShellLocal, texts: &dyn RenderText, take: &mut Take<'_>) -> Result<()> {
    let plain = ShellLocal {
        scripts: Scripts::Inline(Vec::new()),
        environment: Vec::new(),
        execute_command: Vec::new(),
        ..local.clone()
    };
    take("options", format!("{plain:?}").as_bytes());
    let fields = [
        ("Script", "\0script"),
        ("Vars", "\0vars"),
        ("Command", "\0command"),
    ];
    for word in &local.execute_command {
        take("word", texts.render(word, &fields)?.as_bytes());
    }
    of_environment(&local.environment, texts, take)?;
    of_scripts(&local.scripts, texts, take)
}
