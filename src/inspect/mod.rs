//! Inspect an image: its parts, the systems on it, and how it boots.
//!
//! Joins the survey of a disk with what the files of its filesystems tell.
//! Nothing found is an answer; a file that cannot be read is as good as none.

mod boot;
mod system;

use serde::Serialize;

pub use boot::{Boot, BootFile};
pub use system::System;

use crate::error::Result;
use crate::fs::probe::open_tree;
use crate::partition::TableKind;
use crate::survey::{Layout, Survey, SurveyRequest, survey};
use crate::volume::Volume;

/// What an image holds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    /// Partitions and filesystems.
    #[serde(flatten)]
    pub survey: Survey,
    /// Operating systems.
    pub systems: Vec<System>,
    /// How it boots.
    pub boot: Boot,
    /// The least size in bytes that a disk must have to hold all parts as they are.
    pub least_size: u64,
}

/// Inspects `disk`.
///
/// # Errors
/// As [`survey`].
pub fn inspect(disk: &Volume<'_>, request: &SurveyRequest<'_>) -> Result<Inspection> {
    let survey = survey(disk, request)?;
    let layout = Layout::read(disk)?;
    let mut trees = Vec::new();
    for place in &layout.places {
        // What cannot be opened was told by the survey.
        if let Ok(Some(tree)) = open_tree(&place.volume) {
            trees.push((place, tree));
        }
    }
    let systems = system::find(&trees);
    let boot = boot::find(&layout, &trees);
    let least_size = least_size(&layout, &survey);
    Ok(Inspection {
        survey,
        systems,
        boot,
        least_size,
    })
}

/// Where the last part ends, and what a table needs behind it.
fn least_size(layout: &Layout<'_>, survey: &Survey) -> u64 {
    let sector = layout.table.sector_size.max(512);
    let end = match layout.table.kind {
        // A filesystem that knows its size; anything else may need all of it.
        TableKind::None => survey
            .parts
            .iter()
            .find_map(|part| part.identity.as_ref()?.size)
            .unwrap_or(survey.size),
        TableKind::Mbr => last_end(layout),
        // The backup: 16 KiB of entries (UEFI 2.10, 5.3.2), and a header.
        TableKind::Gpt | TableKind::Hybrid => last_end(layout)
            .saturating_add(16 << 10)
            .saturating_add(sector),
    };
    end.min(survey.size)
        .checked_next_multiple_of(sector)
        .unwrap_or(survey.size)
}

fn last_end(layout: &Layout<'_>) -> u64 {
    let table = &layout.table;
    let parts = table.partitions.iter().chain(&table.extended);
    parts.map(|part| part.range.end).max().unwrap_or(0)
}
