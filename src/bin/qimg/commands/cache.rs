//! `qimg cache`.

use std::time::{Duration, UNIX_EPOCH};

use qimg::build::steps::Shelf;
use qimg::fetch::{Cache, Prune};
use qimg::units::ByteSize;
use serde_json::{Value, json};

use super::{Status, surroundings};
use crate::args::{CacheArgs, CacheCommand};
use crate::render::{Console, human, json};

pub(super) fn run(args: &CacheArgs, console: &mut Console<'_>) -> Status {
    let cache = Cache::new(surroundings::cache(args.cache.as_deref())?);
    let states = Shelf::of(cache.directory());
    match &args.command {
        CacheCommand::List { json: false } => {
            human::cache::list(&mut console.out, cache.directory(), &cache.list()?)?;
            human::cache::states(&mut console.out, &states.list()?)?;
        }
        CacheCommand::List { json: true } => {
            let mut items: Vec<Value> = cache
                .list()?
                .iter()
                .map(|item| {
                    let used = item
                        .last_used
                        .duration_since(UNIX_EPOCH)
                        .unwrap_or_default();
                    json!({
                        "kind": "download",
                        "url": item.url,
                        "digest": item.digest.as_ref().map(ToString::to_string),
                        "length": item.length,
                        "size": item.size,
                        "last-used": used.as_secs(),
                        "in-use": item.in_use,
                        "pinned-by": item.pinned_by,
                        "path": item.path.display().to_string(),
                    })
                })
                .collect();
            items.extend(states.list()?.iter().map(|state| {
                let used = state
                    .last_used
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                json!({
                    "kind": "state",
                    "key": state.key,
                    "text": state.text,
                    "saves": state.saves,
                    "size": state.size,
                    "last-used": used.as_secs(),
                    "in-use": state.in_use,
                    "pinned-by": state.pinned_by,
                    "below": state.below,
                    "whole": state.whole,
                    "path": state.path.display().to_string(),
                })
            }));
            json::print(&mut console.out, &items)?;
        }
        CacheCommand::Prune { size, days } => {
            let what = match (size, days) {
                (_, Some(days)) => Prune::OlderThan(Duration::from_secs(u64::from(*days) * 86_400)),
                (Some(size), None) => match ByteSize::parse(size)? {
                    ByteSize(0) => Prune::All,
                    ByteSize(limit) => Prune::Limit(limit),
                },
                (None, None) => Prune::All,
            };
            // A state can be made again from what is here; a download may be gone.
            let of_states = match what {
                Prune::Limit(most) => {
                    let downloads: u64 = cache.list()?.iter().map(|item| item.size).sum();
                    Prune::Limit(most.saturating_sub(downloads))
                }
                what => what,
            };
            let removed = states.prune(of_states)?;
            let what = match what {
                Prune::Limit(most) => Prune::Limit(most.saturating_sub(removed.left)),
                what => what,
            };
            human::cache::pruned(&mut console.out, &cache.prune(what)?, &removed)?;
        }
    }
    Ok(0)
}
