//! Steps of Ansible, on the host and in the guest.

use super::Paths;
use super::step::environment;
use crate::error::Result;
use crate::template::check::Severity;
use crate::template::model::{Ansible, AnsibleLocal, Text};
use crate::template::reader::Table;

/// What Packer runs in the guest.
const IN_GUEST: &str = "ANSIBLE_FORCE_COLOR=1 PYTHONUNBUFFERED=1 ansible-playbook";

/// A path that must be there, where it can be told.
fn input(table: &Table<'_, '_>, key: &'static str, paths: &Paths<'_>) -> Result<Option<Text>> {
    let Some(text) = table.late(key, false)?.filter(|text| !text.0.is_empty()) else {
        return Ok(None);
    };
    let at = table.node(key).map_or(table.at, |node| node.at);
    Ok(Some(there(table, key, &text, at, paths)))
}

fn inputs(table: &Table<'_, '_>, key: &'static str, paths: &Paths<'_>) -> Result<Vec<Text>> {
    let all = table.lates(key, false)?.unwrap_or_default();
    Ok(all
        .into_iter()
        .filter(|(text, _)| !text.0.is_empty())
        .map(|(text, node)| there(table, key, &text, node.at, paths))
        .collect())
}

fn there(table: &Table<'_, '_>, key: &str, text: &Text, at: usize, paths: &Paths<'_>) -> Text {
    let text = paths.late(text);
    if let Some(path) = text.as_literal()
        && !paths.exists(path.as_ref())
    {
        let message = format!("{}: there is no '{path}'", table.name(key));
        table
            .reader
            .find(Severity::Error, at, &message, paths.advice());
    }
    text
}

fn texts(table: &Table<'_, '_>, key: &'static str) -> Result<Vec<Text>> {
    let all = table.lates(key, false)?.unwrap_or_default();
    Ok(all.into_iter().map(|(text, _)| text).collect())
}

/// At least one playbook.
fn playbooks(table: &Table<'_, '_>, key: &'static str, paths: &Paths<'_>) -> Result<Vec<Text>> {
    let playbooks = inputs(table, key, paths)?;
    if playbooks.is_empty() {
        let text = format!("{}: there is no playbook", table.what);
        let error = table.reader.error(table.at, text);
        table.tell(error.with_remedy("name a playbook"));
    }
    Ok(playbooks)
}

pub(super) fn on_host(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<Ansible> {
    // Nothing stands between Ansible and the guest here: what only concerns that is read, and said to be of no use.
    let mut of_proxy = vec![
        ("use-proxy", table.flag("use-proxy")? == Some(true)),
        ("use-sftp", false),
        ("skip-version-check", false),
    ];
    table.flag("use-sftp")?;
    table.flag("skip-version-check")?;
    of_proxy.push(("local-port", table.node("local-port").is_some()));
    for key in ["sftp-command", "proxy-host-key", "proxy-authorized-key"] {
        of_proxy.push((key, table.filled(key)?.is_some()));
    }
    for (key, given) in of_proxy {
        if given {
            let message = format!(
                "{}: there is no proxy between Ansible and the guest: it is of no use here",
                table.name(key)
            );
            let at = table.node(key).map_or(table.at, |node| node.at);
            table
                .reader
                .find(Severity::Note, at, &message, "leave it out");
        }
    }
    let roles = table.late("roles-path", false)?;
    let collections = table.late("collections-path", false)?;
    let local = |text: Option<Text>| {
        text.filter(|text| !text.0.is_empty())
            .map(|text| paths.late(&text))
    };
    Ok(Ansible {
        playbooks: playbooks(table, "ansible", paths)?,
        command: table
            .filled("command")?
            .unwrap_or_else(|| "ansible-playbook".to_owned()),
        extra_arguments: texts(table, "extra-arguments")?,
        environment: environment(table)?,
        groups: table.texts("groups")?,
        empty_groups: table.texts("empty-groups")?,
        host_alias: table
            .filled("host-alias")?
            .unwrap_or_else(|| "default".to_owned()),
        user: table.late("user", false)?.filter(|text| !text.0.is_empty()),
        inventory_file: input(table, "inventory", paths)?,
        inventory_directory: input(table, "inventory-directory", paths)?,
        inventory_template: table
            .late("inventory-template", true)?
            .filter(|text| !text.0.is_empty()),
        keep_inventory: table.flag("keep-inventory")?.unwrap_or(false),
        galaxy_file: input(table, "galaxy-file", paths)?,
        galaxy_command: table
            .filled("galaxy-command")?
            .unwrap_or_else(|| "ansible-galaxy".to_owned()),
        galaxy_force: table.flag("galaxy-force")?.unwrap_or(false),
        roles_path: local(roles),
        collections_path: local(collections),
    })
}

pub(super) fn in_guest(table: &Table<'_, '_>, paths: &Paths<'_>) -> Result<AnsibleLocal> {
    Ok(AnsibleLocal {
        playbooks: playbooks(table, "ansible-local", paths)?,
        playbook_dir: input(table, "playbook-dir", paths)?,
        playbook_paths: inputs(table, "playbook-paths", paths)?,
        role_paths: inputs(table, "role-paths", paths)?,
        collection_paths: inputs(table, "collection-paths", paths)?,
        group_vars: input(table, "group-vars", paths)?,
        host_vars: input(table, "host-vars", paths)?,
        inventory_file: input(table, "inventory", paths)?,
        inventory_groups: table.texts("groups")?,
        galaxy_file: input(table, "galaxy-file", paths)?,
        galaxy_command: table
            .filled("galaxy-command")?
            .unwrap_or_else(|| "ansible-galaxy".to_owned()),
        command: table
            .filled("command")?
            .unwrap_or_else(|| IN_GUEST.to_owned()),
        extra_arguments: texts(table, "extra-arguments")?,
        staging_directory: table.filled("staging-directory")?,
        clean: table.flag("clean")?.unwrap_or(false),
    })
}
