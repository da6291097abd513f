//! The table of clusters: each says which one follows it.
//!
//! All chains are runs, one behind the other from cluster 2 on, so that the end of the used part is known.

use std::ops::Range;

use super::geometry::Kind;

/// The used part of the table of a volume whose first `used` clusters make up `chains`, in order. The first two entries
/// say what medium it is, and that it was unmounted cleanly and without errors.
pub(super) fn table(kind: Kind, media: u8, chains: &[Range<u64>], used: u64) -> Vec<u8> {
    let last: u32 = match kind {
        Kind::Fat12 => 0xfff,
        Kind::Fat16 => 0xffff,
        Kind::Fat32 => 0x0fff_ffff,
    };
    let medium = (last & !0xff) | u32::from(media);
    let links = chains.iter().flat_map(|chain| {
        let end = chain.end;
        chain.clone().map(move |cluster| {
            let next = cluster + 1;
            if next == end {
                last
            } else {
                u32::try_from(next).unwrap_or(last)
            }
        })
    });
    let mut entries = [medium, last].into_iter().chain(links);
    let count = usize::try_from(used + 2).unwrap_or(0);
    match kind {
        Kind::Fat12 => {
            let mut table = Vec::with_capacity(count * 3 / 2 + 2);
            while let Some(even) = entries.next() {
                let both = even | entries.next().unwrap_or(0) << 12;
                table.extend(both.to_le_bytes().iter().take(3));
            }
            // Half an entry more than there are clusters may lie behind the table.
            table.truncate((count * 12).div_ceil(8));
            table
        }
        Kind::Fat16 => entries
            .flat_map(|entry| u16::try_from(entry).unwrap_or(u16::MAX).to_le_bytes())
            .collect(),
        Kind::Fat32 => entries.flat_map(u32::to_le_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_linked_and_ended() {
        assert_eq!(
            table(Kind::Fat12, 0xf8, &[2..4, 4..5], 3),
            [0xf8, 0xff, 0xff, 0x03, 0xf0, 0xff, 0xff, 0x0f]
        );
        assert_eq!(
            table(Kind::Fat16, 0xf8, std::slice::from_ref(&(2..4)), 2),
            [0xf8, 0xff, 0xff, 0xff, 3, 0, 0xff, 0xff]
        );
        assert_eq!(
            table(Kind::Fat32, 0xf8, std::slice::from_ref(&(2..3)), 1),
            [
                0xf8, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f
            ]
        );
    }
}
