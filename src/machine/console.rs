//! What the guest says on its serial console.
//!
//! Knows the log of the console, its end kept in memory, and the words by which a guest tells that it goes no further.
//! Must not know QEMU. What the guest sends is not trusted: log and memory are bounded, and nothing of it reaches a
//! terminal but printable text.

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::log::Log;

/// Bytes of the console's end that are kept in memory.
const REMEMBERED: usize = 256 << 10;

/// Longest line in what is shown, in characters.
const LONGEST_LINE: usize = 1000;

/// What a guest that goes no further says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// The kernel panicked.
    KernelPanic,
    /// The system waits for somebody to repair it.
    EmergencyMode,
    /// The initial RAM disk did not find the root and opened a shell.
    InitramfsPrompt,
    /// The boot loader did not find its parts, and waits.
    BootLoaderPrompt,
    /// The firmware found nothing to boot.
    NoBootableDevice,
}

impl Sign {
    /// For messages: completes "the guest ...".
    pub fn words(self) -> &'static str {
        match self {
            Self::KernelPanic => "had a kernel panic",
            Self::EmergencyMode => "is in emergency mode",
            Self::InitramfsPrompt => "did not find its root filesystem",
            Self::BootLoaderPrompt => "is stuck in its boot loader",
            Self::NoBootableDevice => "found nothing to boot from",
        }
    }
}

/// Words, and whether they count only where a line begins.
const SIGNS: &[(&str, bool, Sign)] = &[
    ("Kernel panic - not syncing", false, Sign::KernelPanic),
    ("You are in emergency mode", false, Sign::EmergencyMode),
    ("Entering emergency mode", false, Sign::EmergencyMode),
    (
        "Cannot open access to console, the root account is locked",
        false,
        Sign::EmergencyMode,
    ),
    ("(initramfs)", true, Sign::InitramfsPrompt),
    ("Dropping to a shell!", false, Sign::InitramfsPrompt),
    ("dracut:/#", true, Sign::InitramfsPrompt),
    ("grub rescue>", true, Sign::BootLoaderPrompt),
    ("grub>", true, Sign::BootLoaderPrompt),
    ("No bootable device", false, Sign::NoBootableDevice),
    // Which the firmware starts when nothing else can be.
    ("UEFI Interactive Shell", false, Sign::NoBootableDevice),
    (
        "BdsDxe: No bootable option or device was found",
        false,
        Sign::NoBootableDevice,
    ),
];

/// The sign in one line of clean text, if there is one.
pub fn sign_in(line: &str) -> Option<Sign> {
    let line = line.trim_start();
    SIGNS.iter().find_map(|(words, first, sign)| {
        let there = if *first {
            line.starts_with(words)
        } else {
            line.contains(words)
        };
        there.then_some(*sign)
    })
}

/// Where in an escape sequence of a terminal the reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Begun,
    /// After ESC and bytes that have one more.
    Another,
    /// In a control sequence, up to its final byte.
    Control,
    /// In a string, up to BEL or ESC.
    String,
}

/// Turns what is meant for a terminal into lines of printable text, piece by piece.
///
/// Escape sequences and control characters are left out; of what was overwritten after a carriage return the last
/// remains; lines are cut at 1000 characters.
#[derive(Debug, Default)]
pub struct Cleaner {
    escape: Escape,
    line: Vec<u8>,
    returned: bool,
}

impl Cleaner {
    /// Takes the next piece; hands each complete line to `line`.
    pub fn push(&mut self, piece: &[u8], line: &mut dyn FnMut(&str)) {
        for &byte in piece {
            if let Some(byte) = self.visible(byte) {
                self.place(byte, line);
            }
        }
    }

    /// The line that has no end yet.
    pub fn unfinished(&self) -> String {
        printable(&self.line)
    }

    /// The byte, unless it belongs to an escape sequence; a line end where the cursor is sent elsewhere.
    fn visible(&mut self, byte: u8) -> Option<u8> {
        let line_end = || (byte == b'\n').then_some(byte);
        let (next, shown) = match (self.escape, byte) {
            (Escape::None, 0x1b) => (Escape::Begun, None),
            (Escape::None, _) => (Escape::None, Some(byte)),
            (Escape::Begun, b'[') => (Escape::Control, None),
            (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => (Escape::String, None),
            (Escape::Begun, 0x20..=0x2f) => (Escape::Another, None),
            (Escape::Control | Escape::Another, 0x20..=0x3f) => (self.escape, None),
            // Boot loaders and firmware write line by line without ending any.
            (Escape::Control, b'H' | b'f') => {
                (Escape::None, (!self.line.is_empty()).then_some(b'\n'))
            }
            // A line end is never a part of a sequence: one that was cut off does not swallow the next line.
            (Escape::String, b'\n' | 0x07) => (Escape::None, line_end()),
            (Escape::String, 0x1b) => (Escape::Begun, None),
            (Escape::String, _) => (Escape::String, None),
            (Escape::Begun | Escape::Control | Escape::Another, _) => (Escape::None, line_end()),
        };
        self.escape = next;
        shown
    }

    fn place(&mut self, byte: u8, line: &mut dyn FnMut(&str)) {
        match byte {
            b'\n' => {
                line(&printable(&self.line));
                self.line.clear();
                self.returned = false;
            }
            b'\r' => self.returned = true,
            0x08 => {
                self.line.pop();
            }
            b'\t' | 0x20..=0x7e | 0x80.. => {
                if std::mem::take(&mut self.returned) {
                    self.line.clear();
                }
                if self.line.len() < LONGEST_LINE * 4 {
                    self.line.push(byte);
                }
            }
            _ => {}
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let reorders = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|&c| !c.is_control() && !reorders(c))
        .take(LONGEST_LINE)
        .collect()
}

/// The last `count` lines of `bytes` that are not empty, clean.
pub fn last_lines<'a>(bytes: impl IntoIterator<Item = &'a [u8]>, count: usize) -> Vec<String> {
    let mut kept = VecDeque::new();
    let mut keep = |line: &str| {
        if !line.trim().is_empty() {
            kept.push_back(line.trim_end().to_owned());
        }
        if kept.len() > count {
            kept.pop_front();
        }
    };
    let mut cleaner = Cleaner::default();
    for piece in bytes {
        cleaner.push(piece, &mut keep);
    }
    keep(&cleaner.unfinished());
    kept.into()
}

#[derive(Debug, Default)]
struct Memory {
    end: VecDeque<u8>,
    /// Bytes that came in all.
    came: u64,
    last_at: Option<Instant>,
}

/// The guest's first serial port: everything it says is read at once, kept in a file, and its end in memory.
pub struct Console {
    memory: Arc<Mutex<Memory>>,
    stream: Mutex<UnixStream>,
    reader: Option<JoinHandle<()>>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    /// Reads `stream` until it ends. All of it goes to `log`; `signs` hears of each sign with the line it stands in,
    /// once a line, by the thread that reads.
    ///
    /// # Errors
    ///
    /// When the host refuses a thread or a second handle of the stream.
    pub(super) fn follow(
        stream: UnixStream,
        mut log: Log,
        mut signs: impl FnMut(Sign, &str) + Send + 'static,
    ) -> Result<Self> {
        let refused = |cause| Error::io("follow the console of the guest", cause);
        let mut reading = stream.try_clone().map_err(refused)?;
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .map_err(refused)?;
        let memory = Arc::new(Mutex::new(Memory::default()));
        let filled = Arc::clone(&memory);
        let reader = std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                let mut watch = Watch::default();
                let mut piece = [0; 16 << 10];
                loop {
                    let length = match reading.read(&mut piece) {
                        Ok(0) => break,
                        Ok(length) => length,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        Err(_) => break,
                    };
                    log.write(&piece[..length]);
                    filled
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(&piece[..length]);
                    watch.push(&piece[..length], &mut signs);
                }
                log.finish();
            })
            .map_err(refused)?;
        Ok(Self {
            memory,
            stream: Mutex::new(stream),
            reader: Some(reader),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last `count` lines that are not empty, clean.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let memory = self.memory();
        let (first, second) = memory.end.as_slices();
        last_lines([first, second], count)
    }

    /// Bytes the guest has said in all.
    pub fn position(&self) -> u64 {
        self.memory().came
    }

    /// What was said from `position` on as far as it is still in memory, and the position behind it.
    pub fn since(&self, position: u64) -> (Vec<u8>, u64) {
        let memory = self.memory();
        let wanted = memory.came.saturating_sub(position);
        let kept = memory.end.len();
        let wanted = usize::try_from(wanted).map_or(kept, |wanted| wanted.min(kept));
        (
            memory.end.range(kept - wanted..).copied().collect(),
            memory.came,
        )
    }

    /// For how long the guest has been silent; `None` while it has said nothing at all.
    pub fn silent_for(&self) -> Option<Duration> {
        self.memory().last_at.map(|at| at.elapsed())
    }

    /// Types `bytes` on the console.
    ///
    /// # Errors
    ///
    /// When the machine has ended, or takes nothing for a second.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream
            .write_all(bytes)
            .map_err(|cause| Error::io("type on the console of the guest", cause))
    }

    /// Waits until all that QEMU sent before it ended is read.
    pub(super) fn drain(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
        drop(stream);
        self.drain();
    }
}

impl Memory {
    fn add(&mut self, piece: &[u8]) {
        self.came += piece.len() as u64;
        self.last_at = Some(Instant::now());
        self.end.extend(piece);
        let excess = self.end.len().saturating_sub(REMEMBERED);
        self.end.drain(..excess);
    }
}

/// Looks for signs in lines, and in the prompt that has no end yet.
#[derive(Debug, Default)]
struct Watch {
    cleaner: Cleaner,
    /// The line that is under way was told of.
    told: bool,
}

impl Watch {
    fn push(&mut self, piece: &[u8], signs: &mut dyn FnMut(Sign, &str)) {
        let told = &mut self.told;
        self.cleaner.push(piece, &mut |line| {
            if !std::mem::take(told)
                && let Some(sign) = sign_in(line)
            {
                signs(sign, line);
            }
        });
        let unfinished = self.cleaner.unfinished();
        if !self.told
            && let Some(sign) = sign_in(&unfinished)
        {
            self.told = true;
            signs(sign, &unfinished);
        }
    }
}

#[cfg(test)]
mod tests;
