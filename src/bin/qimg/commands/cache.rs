//! `qimg cache`.

use std::time::{Duration, UNIX_EPOCH};

use qimg::fetch::{Cache, Prune};
use qimg::units::ByteSize;
use serde_json::{Value, json};

use super::{Status, surroundings};
use crate::args::{CacheArgs, CacheCommand};
use crate::render::{Console, human, json};

pub(super) fn run(args: &CacheArgs, console: &mut Console<'_>) -> Status {
    let cache = Cache::new(surroundings::cache(args.cache.as_deref())?);
    match &args.command {
        CacheCommand::List { json: false } => {
            human::cache::list(&mut console.out, cache.directory(), &cache.list()?)?;
        }
        CacheCommand::List { json: true } => {
            let items: Vec<Value> = cache
                .list()?
                .iter()
                .map(|item| {
                    let used = item
                        .last_used
                        .duration_since(UNIX_EPOCH)
                        .unwrap_or_default();
                    json!({
                        "url": item.url,
                        "digest": item.digest.as_ref().map(ToString::to_string),
                        "length": item.length,
                        "size": item.size,
                        "last-used": used.as_secs(),
                        "in-use": item.in_use,
                        "path": item.path.display().to_string(),
                    })
                })
                .collect();
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
            human::cache::pruned(&mut console.out, &cache.prune(what)?)?;
        }
    }
    Ok(0)
}
