//! What Ansible is asked to do, on the host or in the guest, as plain data.

use super::Text;

/// Ansible on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ansible {
    /// Playbooks, in order.
    pub playbooks: Vec<Text>,
    /// The program.
    pub command: String,
    /// Further arguments.
    pub extra_arguments: Vec<Text>,
    /// Variables of its environment.
    pub environment: Vec<(String, Text)>,
    /// Groups that the guest is in.
    pub groups: Vec<String>,
    /// Groups that there are besides.
    pub empty_groups: Vec<String>,
    /// Name of the guest in the inventory.
    pub host_alias: String,
    /// Who logs in; `None`: as the build does.
    pub user: Option<Text>,
    /// An inventory instead of one that is made.
    pub inventory_file: Option<Text>,
    /// Where the inventory is made, beside what belongs to it.
    pub inventory_directory: Option<Text>,
    /// The line of the inventory, filled in late with `.HostAlias .Host .User .Port`.
    pub inventory_template: Option<Text>,
    /// Leave the inventory.
    pub keep_inventory: bool,
    /// Roles and collections to be got first.
    pub galaxy_file: Option<Text>,
    /// The program for that.
    pub galaxy_command: String,
    /// Get them although they are there.
    pub galaxy_force: bool,
    /// Where roles are put.
    pub roles_path: Option<Text>,
    /// Where collections are put.
    pub collections_path: Option<Text>,
}

/// Ansible in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsibleLocal {
    /// Playbooks of the host, in order.
    pub playbooks: Vec<Text>,
    /// A directory with them and all that belongs to them.
    pub playbook_dir: Option<Text>,
    /// Further files and directories.
    pub playbook_paths: Vec<Text>,
    /// Directories of roles.
    pub role_paths: Vec<Text>,
    /// Directories of collections.
    pub collection_paths: Vec<Text>,
    /// Directory of variables of groups.
    pub group_vars: Option<Text>,
    /// Directory of variables of hosts.
    pub host_vars: Option<Text>,
    /// An inventory instead of one that is made.
    pub inventory_file: Option<Text>,
    /// Groups that the guest is in.
    pub inventory_groups: Vec<String>,
    /// Roles to be got first.
    pub galaxy_file: Option<Text>,
    /// The program for that, in the guest's shell.
    pub galaxy_command: String,
    /// The program, in the guest's shell.
    pub command: String,
    /// Further arguments, in the guest's shell.
    pub extra_arguments: Vec<Text>,
    /// Where all is sent to; `None`: a directory of its own.
    pub staging_directory: Option<String>,
    /// Remove that afterwards.
    pub clean: bool,
}
