//! What a build leaves: files, and who made them.
//!
//! Plain data. Knows nothing of how the files came to be, nor of what becomes of them.

use std::path::PathBuf;

/// The files that a build, or a post-processor, made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Artifact {
    /// Who made it, by Packer's names: `transcend.qemu`, `packer.post-processor.compress`.
    pub builder_id: String,
    /// What a manifest calls it: `VM` for the builder's, nothing for what post-processors make.
    pub id: String,
    /// The files, the main one first; paths as the template has them.
    pub files: Vec<PathBuf>,
    /// Where the builder put them. It goes with them when nothing else is in it.
    pub directory: Option<PathBuf>,
}

impl Artifact {
    /// What Packer's qemu builder calls itself.
    pub const QEMU: &'static str = "transcend.qemu";

    /// What a virtual machine was turned into.
    pub fn of_machine(files: Vec<PathBuf>, directory: PathBuf) -> Self {
        Self {
            builder_id: Self::QEMU.to_owned(),
            id: "VM".to_owned(),
            files,
            directory: Some(directory),
        }
    }

    /// What the post-processor of this type made.
    pub fn of_post_processor(kind: &str, files: Vec<PathBuf>) -> Self {
        Self {
            builder_id: format!("packer.post-processor.{kind}"),
            id: String::new(),
            files,
            directory: None,
        }
    }
}
