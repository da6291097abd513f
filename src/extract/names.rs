//! The names in one directory, waiting to be copied, in little memory.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::fs::tree::{Node, Tree};

/// Names of one directory, in its order.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// All names, one behind the other.
    bytes: Vec<u8>,
    /// What each names, and where its name ends.
    entries: Vec<(Node, usize)>,
    next: usize,
    /// Not all of them are here.
    pub(super) cut: bool,
}

impl Names {
    /// Adds the names in the directory `node`, of which `most` bytes of memory at most may be taken.
    ///
    /// What was read before an error is there.
    pub(super) fn read(
        &mut self,
        tree: &dyn Tree,
        node: Node,
        most: usize,
        cancel: &AtomicBool,
    ) -> Result<()> {
        tree.read_dir(node, &mut |entry| {
            self.cut = self.size().saturating_add(entry.name.len()) >= most;
            if self.cut || cancel.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            self.bytes.extend_from_slice(entry.name);
            self.entries.push((entry.node, self.bytes.len()));
            ControlFlow::Continue(())
        })
    }

    /// Bytes of memory, about.
    pub(super) fn size(&self) -> usize {
        let entries = self
            .entries
            .len()
            .saturating_mul(size_of::<(Node, usize)>());
        self.bytes.len().saturating_add(entries)
    }

    /// The next name and what it names.
    pub(super) fn take(&mut self) -> Option<(Vec<u8>, Node)> {
        let start = match self.next.checked_sub(1) {
            Some(before) => self.entries.get(before)?.1,
            None => 0,
        };
        let &(node, end) = self.entries.get(self.next)?;
        self.next += 1;
        Some((self.bytes.get(start..end)?.to_vec(), node))
    }
}
