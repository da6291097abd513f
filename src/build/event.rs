//! What a build says while it runs, as plain data.
//!
//! Knows what there is to tell, and that no text leaves unmasked. Must not know words of greeting, colours, or where
//! anything is printed: that is the program's.

use std::sync::Arc;

use serde::Serialize;

use super::secrets::{MaskStream, Masks};
use crate::communicator;
use crate::error::Error;

/// Lines of at least so many bytes may be pieces of longer ones: what is cut at their ends is masked, too.
const LONG_LINE: usize = 4096;

/// Something that a build says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// Name of the build; empty: of no build in particular.
    pub build: String,
    /// What it says.
    #[serde(flatten)]
    pub what: What,
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl From<communicator::Stream> for Stream {
    fn from(stream: communicator::Stream) -> Self {
        match stream {
            communicator::Stream::Out => Self::Out,
            communicator::Stream::Err => Self::Err,
        }
    }
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should.
    Done,
    /// It failed.
    Failed,
    /// The user asked to stop.
    Cancelled,
    /// There was nothing to do.
    Skipped,
}

/// What a number of progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files, scripts, steps.
    Pieces,
}

/// What there is to say. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
#[non_exhaustive]
pub enum What {
    /// A stage of the build begins.
    StageBegun {
        /// Its name, which does not change between versions.
        stage: String,
    },
    /// A stage has ended.
    StageEnded {
        /// Its name.
        stage: String,
        /// How.
        outcome: Outcome,
        /// How long it took.
        milliseconds: u64,
    },
    /// What happens next, for people.
    Step {
        /// One or more lines.
        text: String,
    },
    /// Something more about the current step.
    Note {
        /// One or more lines.
        text: String,
    },
    /// Something that people should know, though the build goes on.
    Warning {
        /// One or more lines.
        text: String,
    },
    /// A line that a provisioner or a post-processor printed.
    Output {
        /// Which: its type.
        source: String,
        /// Where it printed it.
        stream: Stream,
        /// Without its end; from the guest, so anything may be in it.
        line: String,
    },
    /// How far something is.
    Progress {
        /// What.
        task: String,
        /// Done so far.
        done: u64,
        /// In all, where that is known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// Something is waited for.
    Waiting {
        /// What.
        task: String,
        /// What is seen of it now.
        state: String,
        /// Since when.
        milliseconds: u64,
    },
    /// Files that the build made.
    Artifact {
        /// Counts the artifacts of the build, from 0.
        index: usize,
        /// Who made it: Packer's builder id.
        builder_id: String,
        /// Its id.
        id: String,
        /// In words.
        text: String,
        /// Paths.
        files: Vec<String>,
    },
    /// Files that stay although the build has failed.
    Kept {
        /// In words.
        text: String,
        /// Paths.
        files: Vec<String>,
    },
    /// The build, or a part of it that does not end it, has failed.
    Failure {
        /// What happened.
        message: String,
        /// Why, outermost first.
        causes: Vec<String>,
        /// What can be done.
        remedy: Option<String>,
    },
    /// The build has ended.
    BuildEnded {
        /// How.
        outcome: Outcome,
        /// How long it took.
        milliseconds: u64,
    },
}

/// Takes what builds say, from any thread.
pub trait Sink: Send + Sync {
    /// Takes one event. Called often: it must not wait for long.
    fn take(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Sink for F {
    fn take(&self, event: &Event) {
        self(event);
    }
}

/// Speaks for one build: masks what it is told and hands it on.
#[derive(Clone)]
pub struct Reporter<'a> {
    build: String,
    masks: Arc<Masks>,
    sink: &'a dyn Sink,
}

impl std::fmt::Debug for Reporter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

impl<'a> Reporter<'a> {
    /// Speaks to `sink` for the build of this name.
    pub fn new(build: impl Into<String>, masks: Arc<Masks>, sink: &'a dyn Sink) -> Self {
        Self {
            build: build.into(),
            masks,
            sink,
        }
    }

    /// Hides the values of `masks` from now on.
    #[must_use]
    pub fn with_masks(mut self, masks: Arc<Masks>) -> Self {
        self.masks = masks;
        self
    }

    /// What is hidden.
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// `text` as it may be shown.
    pub fn masked(&self, text: &str) -> String {
        self.masks.mask(text).into_owned()
    }

    /// Says what happens next.
    pub fn step(&self, text: &str) {
        let text = self.masked(text);
        self.send(What::Step { text });
    }

    /// Says more about the current step.
    pub fn note(&self, text: &str) {
        let text = self.masked(text);
        self.send(What::Note { text });
    }

    /// Warns.
    pub fn warn(&self, text: &str) {
        let text = self.masked(text);
        self.send(What::Warning { text });
    }

    /// A stage begins.
    pub fn stage_begun(&self, stage: &str) {
        let stage = stage.to_owned();
        self.send(What::StageBegun { stage });
    }

    /// A stage has ended.
    pub fn stage_ended(&self, stage: &str, outcome: Outcome, took: std::time::Duration) {
        self.send(What::StageEnded {
            stage: stage.to_owned(),
            outcome,
            milliseconds: in_milliseconds(took),
        });
    }

    /// The build has ended.
    pub fn build_ended(&self, outcome: Outcome, took: std::time::Duration) {
        self.send(What::BuildEnded {
            outcome,
            milliseconds: in_milliseconds(took),
        });
    }

    /// How far something is.
    pub fn progress(&self, task: &str, done: u64, total: Option<u64>, unit: Unit) {
        let task = self.masked(task);
        self.send(What::Progress {
            task,
            done,
            total,
            unit,
        });
    }

    /// What is waited for, what is seen of it, and since when.
    pub fn waiting(&self, task: &str, state: &str, since: std::time::Duration) {
        self.send(What::Waiting {
            task: self.masked(task),
            state: self.masked(state),
            milliseconds: in_milliseconds(since),
        });
    }

    /// Files that the build made.
    pub fn artifact(&self, index: usize, builder_id: &str, id: &str, text: &str, files: &[String]) {
        self.send(What::Artifact {
            index,
            builder_id: builder_id.to_owned(),
            id: self.masked(id),
            text: self.masked(text),
            files: files.iter().map(|file| self.masked(file)).collect(),
        });
    }

    /// Files that stay although the build fails.
    pub fn kept(&self, text: &str, files: &[String]) {
        self.send(What::Kept {
            text: self.masked(text),
            files: files.iter().map(|file| self.masked(file)).collect(),
        });
    }

    /// A failure, with all its causes.
    pub fn failure(&self, error: &Error) {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause.filter(|_| causes.len() < 16) {
            causes.push(self.masked(&inner.to_string()));
            cause = inner.source();
        }
        self.send(What::Failure {
            message: self.masked(&error.to_string()),
            causes,
            remedy: error.remedy().map(|remedy| self.masked(remedy)),
        });
    }

    /// Takes the lines that `source` prints.
    pub fn output(&self, source: &str) -> Output<'_> {
        Output {
            reporter: self,
            source: source.to_owned(),
            out: self.masks.stream(),
            err: self.masks.stream(),
        }
    }

    fn send(&self, what: What) {
        self.sink.take(&Event {
            build: self.build.clone(),
            what,
        });
    }
}

/// Lines of one provisioner. Dropped, it tells what it had to hold back.
#[derive(Debug)]
pub struct Output<'a> {
    reporter: &'a Reporter<'a>,
    source: String,
    out: MaskStream<'a>,
    err: MaskStream<'a>,
}

impl Output<'_> {
    /// Takes a line, or a piece of one that is too long to be taken at once.
    pub fn line(&mut self, stream: communicator::Stream, line: &str) {
        let stream = Stream::from(stream);
        let masks = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let mut shown = masks.push(line);
        if line.len() < LONG_LINE {
            shown.push_str(&masks.finish());
        }
        self.send(stream, shown);
    }

    fn send(&self, stream: Stream, line: String) {
        let source = self.source.clone();
        self.reporter.send(What::Output {
            source,
            stream,
            line,
        });
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        for (stream, rest) in [
            (Stream::Out, self.out.finish()),
            (Stream::Err, self.err.finish()),
        ] {
            if !rest.is_empty() {
                self.send(stream, rest);
            }
        }
    }
}

fn in_milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Keeps all that is said.
    #[derive(Debug, Default)]
    pub(crate) struct Kept(pub(crate) Mutex<Vec<Event>>);

    impl Sink for Kept {
        fn take(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    impl Kept {
        /// Everything in words: output as it is, the rest after a `#`.
        pub(crate) fn texts(&self) -> Vec<String> {
            let events = self.0.lock().unwrap();
            let text = |event: &Event| match &event.what {
                What::Output { line, .. } => Some(line.clone()),
                What::Step { text } | What::Note { text } => Some(format!("# {text}")),
                What::Warning { text } => Some(format!("#! {text}")),
                _ => None,
            };
            events.iter().filter_map(text).collect()
        }
    }

    #[test]
    fn nothing_is_said_unmasked() {
        let kept = Kept::default();
        let masks = Arc::new(Masks::new(["hidden"]).unwrap());
        let reporter = Reporter::new("qemu", masks, &kept);
        reporter.step("a hidden b");
        reporter.warn("hidden");
        reporter.progress("hidden", 1, None, Unit::Bytes);
        reporter.waiting("hidden", "hidden", std::time::Duration::ZERO);
        reporter.artifact(0, "x", "hidden", "hidden", &["hidden".to_owned()]);
        let cause = std::io::Error::other("hidden cause");
        reporter.failure(&Error::io("read hidden", cause).with_remedy("try hidden"));
        let mut output = reporter.output("shell");
        let stream = communicator::Stream::Out;
        output.line(stream, "a hidden");
        // Two pieces of one line.
        output.line(stream, &format!("{}hid", "x".repeat(LONG_LINE)));
        output.line(stream, "den");
        output.line(stream, &format!("{}hid", "y".repeat(LONG_LINE)));
        drop(output);
        let all = serde_json::to_string(&*kept.0.lock().unwrap()).unwrap();
        assert!(!all.contains("hidden") && !all.contains("\"den"), "{all}");
        assert_eq!(kept.texts().last().unwrap(), "hid");
        assert_eq!(
            serde_json::to_string(&kept.0.lock().unwrap()[0]).unwrap(),
            r#"{"build":"qemu","event":"step","text":"a <sensitive> b"}"#
        );
    }
}
