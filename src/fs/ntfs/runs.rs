//! Runs of clusters: where the bytes of an attribute lie that are not in its record.
//!
//! Source: the "mapping pairs" of the kernel's `fs/ntfs/runlist.c`: a byte that tells the lengths of two numbers, how
//! many clusters, and where from the last run on; without the second number the run is a hole.

use super::boot::Boot;
use super::record::{Attribute, Record};
use super::{ATTRIBUTE_LIST, DATA};
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

/// `ATTR_COMPRESSION_MASK`, `ATTR_IS_ENCRYPTED`, `ATTR_IS_SPARSE`.
const SPECIAL: u16 = 0xc0ff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Its first cluster in the attribute.
    pub(super) start: u64,
    pub(super) length: u64,
    /// Its first cluster on the volume, unless it is a hole.
    pub(super) place: Option<u64>,
}

/// The runs of an attribute that its record has; none when it is resident.
pub(super) fn decode(attribute: &Attribute<'_>, boot: &Boot) -> Result<Vec<Run>, Refusal> {
    if attribute.is_resident() {
        return Ok(Vec::new());
    }
    decode_runs(attribute, boot).ok_or_else(|| {
        Refusal::damaged(format!(
            "ntfs record {} has impossible runs",
            attribute.record
        ))
    })
}

fn decode_runs(attribute: &Attribute<'_>, boot: &Boot) -> Option<Vec<Run>> {
    let fields = Fields(attribute.bytes);
    let (first, last) = (fields.le64(16), fields.le64(24));
    let mut pairs = attribute.bytes.get(usize::from(fields.le16(32))..)?;
    let mut runs = Vec::new();
    let mut start = first;
    let mut place = 0_i64;
    loop {
        let (&lengths, rest) = pairs.split_first()?;
        if lengths == 0 {
            break;
        }
        let (of_length, of_place) = (usize::from(lengths & 15), usize::from(lengths >> 4));
        let (length, rest) = rest.split_at_checked(of_length)?;
        let (delta, rest) = rest.split_at_checked(of_place)?;
        pairs = rest;
        let length = u64::try_from(signed(length)?).ok()?;
        let end = start.checked_add(length)?;
        // A hole may be as long as a file can get; the rest is bounded by the volume.
        if length == 0 || end > i64::MAX.unsigned_abs() {
            return None;
        }
        let on_volume = if of_place == 0 {
            None
        } else {
            place = place.checked_add(signed(delta)?)?;
            let cluster = u64::try_from(place).ok()?;
            let inside = cluster.checked_add(length)? <= boot.clusters;
            Some(inside.then_some(cluster)?)
        };
        runs.push(Run {
            start,
            length,
            place: on_volume,
        });
        start = end;
    }
    // Without any cluster the last one is -1.
    (start == last.wrapping_add(1)).then_some(runs)
}

/// A little-endian number of up to 8 bytes, its sign extended.
fn signed(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let negative = bytes.last().is_some_and(|&last| last >= 0x80);
    let mut number = [if negative { 0xff } else { 0 }; 8];
    for (to, &from) in number.iter_mut().zip(bytes) {
        *to = from;
    }
    (!bytes.is_empty()).then(|| i64::from_le_bytes(number))
}

/// The bytes of an attribute whose runs are all known.
#[derive(Debug)]
pub(super) struct Stream {
    runs: Vec<Run>,
    size: u64,
    initialized: u64,
}

impl Stream {
    /// The data of a record that has all of it.
    pub(super) fn of(record: &Record, boot: &Boot, name: &str) -> Result<Self, Refusal> {
        if record.find(ATTRIBUTE_LIST, b"")?.is_some() {
            return Err(Refusal::unsupported(format!(
                "ntfs {name} is in too many pieces"
            )));
        }
        let data = record.find(DATA, b"")?;
        let data = data.filter(|data| !data.is_resident() && data.flags & SPECIAL == 0);
        let data = data.ok_or_else(|| Refusal::damaged(format!("ntfs {name} has no data")))?;
        let stream = Self::first(&data, boot)?;
        let whole = stream.runs.iter().all(|run| run.place.is_some());
        if !whole || stream.clusters().saturating_mul(boot.cluster_size) < stream.size {
            return Err(Refusal::damaged(format!("ntfs {name} has holes")));
        }
        Ok(stream)
    }

    /// What one record has of an attribute, from its first byte on.
    pub(super) fn first(attribute: &Attribute<'_>, boot: &Boot) -> Result<Self, Refusal> {
        let fields = Fields(attribute.bytes);
        let (size, initialized) = (fields.le64(48), fields.le64(56));
        if attribute.is_resident() || fields.le64(16) != 0 || initialized > size {
            return Err(Refusal::damaged(format!(
                "ntfs record {} has impossible data",
                attribute.record
            )));
        }
        Ok(Self {
            runs: decode(attribute, boot)?,
            size,
            initialized,
        })
    }

    fn clusters(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.start + run.length)
    }

    /// Bytes that were ever written.
    pub(super) fn initialized(&self) -> u64 {
        self.initialized
    }

    /// Where a cluster of it lies on the volume.
    pub(super) fn place(&self, cluster: u64) -> Option<u64> {
        let run = self.run(cluster)?;
        Some(run.place? + (cluster - run.start))
    }

    fn run(&self, cluster: u64) -> Option<&Run> {
        let next = self.runs.partition_point(|run| run.start <= cluster);
        let run = self.runs.get(next.checked_sub(1)?)?;
        (cluster < run.start + run.length).then_some(run)
    }

    /// Fills `buf` with its bytes from `at` on; holes read as zeros.
    pub(super) fn read_at(
        &self,
        volume: &Volume<'_>,
        boot: &Boot,
        mut at: u64,
        mut buf: &mut [u8],
    ) -> Result<(), Refusal> {
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.initialized) {
            return Err(Refusal::damaged("ntfs file ends too early"));
        }
        while !buf.is_empty() {
            let cluster = at / boot.cluster_size;
            let run = self.run(cluster);
            let run = run.ok_or_else(|| Refusal::damaged("ntfs file has no clusters"))?;
            let end = (run.start + run.length).saturating_mul(boot.cluster_size);
            let length = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buf.len());
            let (part, rest) = buf.split_at_mut(length);
            match run.place {
                None => part.fill(0),
                Some(place) => {
                    let start = boot.bytes_of(place + (cluster - run.start), 1).start;
                    volume.read_at(start + at % boot.cluster_size, part)?;
                }
            }
            at += length as u64;
            buf = rest;
        }
        Ok(())
    }
}
