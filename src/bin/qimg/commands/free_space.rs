//! What a guest does not use, for every command that drops it.

use qimg::image::{Chain, Depth, Image};
use qimg::survey::{Survey, SurveyRequest, survey};
use qimg::volume::Volume;
use qimg::{Error, ErrorKind, Result};

use crate::args::FreeSpaceArgs;
use crate::render::human::parts::FreeSpaceReport;

/// What is known of a guest's free space.
#[derive(Debug)]
pub(super) enum FreeSpace {
    /// All that can be known.
    Surveyed(Box<Survey>),
    /// Nothing, for this reason.
    Unread(String),
}

impl FreeSpace {
    pub(super) fn survey(&self) -> Option<&Survey> {
        match self {
            Self::Surveyed(survey) => Some(survey),
            Self::Unread(_) => None,
        }
    }

    /// For people, and for JSON.
    pub(super) fn report(&self) -> FreeSpaceReport<'_> {
        match self {
            Self::Surveyed(survey) => FreeSpaceReport::Surveyed(survey),
            Self::Unread(reason) => FreeSpaceReport::Unread { kept: reason },
        }
    }
}

/// Surveys the guest's disk of `image`, or of one of its snapshots.
///
/// An overlay whose backing file may not be opened cannot be surveyed, which is no failure unless something was asked
/// for by name.
pub(super) fn read(
    image: &Image,
    snapshot: Option<&str>,
    args: &FreeSpaceArgs,
    exact: bool,
) -> Result<FreeSpace> {
    let request = SurveyRequest {
        exact,
        replay_journal: args.replay_journal,
        keep: &args.keep,
        zero: &args.zero,
        vm_state: image.has_vm_state(),
    };
    let asked = !(args.keep.is_empty() && args.zero.is_empty());
    match image.chain(Depth::Chain, snapshot) {
        Ok(chain) => survey_chain(&chain, image, &request),
        Err(error) if error.kind() == ErrorKind::Refused && !asked => Ok(FreeSpace::Unread(
            "filesystems cannot be read without the backing file, which --backing lets qimg open"
                .to_owned(),
        )),
        Err(error) => Err(error),
    }
}

fn survey_chain(chain: &Chain, image: &Image, request: &SurveyRequest<'_>) -> Result<FreeSpace> {
    let disk = Volume::whole(chain);
    let survey = survey(&disk, request).map_err(|error: Error| error.at_path(image.path()))?;
    Ok(FreeSpace::Surveyed(Box::new(survey)))
}
