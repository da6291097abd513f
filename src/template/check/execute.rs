//! Whether a command that runs a script keeps the script's environment.

/// Whether an execute_command asks for neither of what carries the variables.
pub(in crate::template) fn drops_environment(command: &str) -> bool {
    let asks = |name: &str| command.contains(&format!(".{name}"));
    !asks("Vars") && !asks("EnvVarFile")
}
