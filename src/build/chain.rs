//! Post-processors that run programs of the host: what joins them with provisioners of the same kind.

use super::artifact::Artifact;
use super::post_processor::Runner;
use super::provisioner::custom::{self, Given};
use super::provisioner::{Context, shell_local};
use crate::error::Result;
use crate::template::model::{PostProcessor, ShellLocal};

/// Runs programs on the host.
pub(super) struct OnHost<'a> {
    pub(super) context: &'a Context<'a>,
}

impl Runner for OnHost<'_> {
    fn shell_local(
        &mut self,
        post_processor: &PostProcessor,
        job: &ShellLocal,
        _: &Artifact,
    ) -> Result<()> {
        shell_local::run(job, &post_processor.kind, self.context)
    }

    fn custom(
        &mut self,
        _: &PostProcessor,
        name: &str,
        options: &str,
        artifact: &Artifact,
    ) -> Result<(Artifact, bool)> {
        let given = Given {
            id: artifact.id.clone(),
            builder_id: artifact.builder_id.clone(),
            files: artifact.files.clone(),
        };
        let made = custom::post_process(name, options, &given, self.context)?;
        Ok(match made {
            // It only looked at it, or added to it.
            None => (artifact.clone(), true),
            Some(made) => {
                let keep = made.keep_input.unwrap_or(false);
                let mut artifact = Artifact::of_post_processor(name, made.files);
                artifact.id = made.id.unwrap_or_default();
                (artifact, keep)
            }
        })
    }
}
