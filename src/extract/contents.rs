//! The contents of one file, holes left out.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::attributes;
use crate::error::Error;
use crate::fs::tree::{Metadata, Node, Piece, Tree};
use crate::store::extraction::{Contents, Obstacle};

/// Why contents did not come over.
pub(super) enum Trouble {
    /// The guest's filesystem, or the image.
    Guest(Error),
    /// The host.
    Host(Obstacle),
    /// The caller asked to stop.
    Cancelled,
}

/// A file to be copied.
pub(super) struct File<'a> {
    pub(super) tree: &'a dyn Tree,
    pub(super) node: Node,
    pub(super) metadata: &'a Metadata,
    pub(super) cancel: &'a AtomicBool,
}

impl File<'_> {
    /// Writes all of it to `out`; `each` learns of every piece: bytes written, bytes left out.
    pub(super) fn copy(
        &self,
        out: &Contents,
        each: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Trouble> {
        let size = self.metadata.size;
        let mut at = 0u64;
        let mut trouble = None;
        self.tree
            .read_file(self.node, 0..size, &mut |piece| {
                let copied = self.piece(piece, &mut at, out, each);
                match copied {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(found) => {
                        trouble = Some(found);
                        ControlFlow::Break(())
                    }
                }
            })
            .map_err(Trouble::Guest)?;
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        if at != size {
            return Err(wrong("the contents end before the file does"));
        }
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Trouble::Cancelled);
        }
        out.finish(size, &attributes(self.metadata))
            .map_err(Trouble::Host)
    }

    fn piece(
        &self,
        piece: Piece<'_>,
        at: &mut u64,
        out: &Contents,
        each: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Trouble> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Trouble::Cancelled);
        }
        let (offset, length, bytes) = match piece {
            Piece::Data { offset, bytes } => (offset, bytes.len() as u64, Some(bytes)),
            Piece::Hole { offset, length } => (offset, length, None),
        };
        let end = offset.checked_add(length);
        let end = end.filter(|&end| offset == *at && end <= self.metadata.size);
        let Some(end) = end else {
            return Err(wrong("the contents do not fit the file"));
        };
        if let Some(bytes) = bytes {
            out.write_at(bytes, offset).map_err(Trouble::Host)?;
        }
        *at = end;
        match bytes {
            Some(_) => each(length, 0),
            None => each(0, length),
        }
        Ok(())
    }
}

fn wrong(what: &'static str) -> Trouble {
    Trouble::Guest(Error::corrupt("the file cannot be read", what))
}
