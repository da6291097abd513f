//! How far long work is: a bar, lines, JSON, or nothing.
//!
//! Knows bytes done, bytes in all, and time. Prints to stderr only, at most
//! once a second but for the bar.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qimg::error::Escaped;
use qimg::units::ByteSize;
use serde::Serialize;

use super::Console;
use crate::args::ProgressMode;

const INTERVAL: Duration = Duration::from_secs(1);

/// How progress looks, with all doubts removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Bar,
    Plain,
    Json,
    Silent,
}

impl Style {
    /// From --progress, -p and -q. An explicit style is a program's or a person's firm wish; -q is stronger than -p.
    fn resolve(mode: Option<ProgressMode>, asked: bool, quiet: bool, terminal: bool) -> Self {
        match mode {
            Some(ProgressMode::Plain) => Self::Plain,
            Some(ProgressMode::Json) => Self::Json,
            Some(ProgressMode::None) => Self::Silent,
            Some(ProgressMode::Auto) | None if quiet => Self::Silent,
            Some(ProgressMode::Auto) | None if terminal => Self::Bar,
            Some(ProgressMode::Auto) | None if asked => Self::Plain,
            Some(ProgressMode::Auto) | None => Self::Silent,
        }
    }
}

/// Shows the progress of one operation.
pub(crate) struct Meter<'a> {
    style: Style,
    err: &'a mut (dyn Write + Send),
    operation: &'static str,
    started: Instant,
    shown: Option<Instant>,
    bar: Option<ProgressBar>,
    last: (u64, u64),
}

/// One line of `--progress json`.
#[derive(Debug, Serialize)]
struct Line {
    operation: &'static str,
    /// Bytes.
    done: u64,
    /// Bytes; null while unknown.
    total: Option<u64>,
    /// Bytes per second since the start.
    rate: u64,
    /// Seconds; null while unknown.
    eta: Option<u64>,
    /// Seconds.
    elapsed: f64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(
        console: &'a mut Console<'_>,
        operation: &'static str,
        (mode, asked, quiet): (Option<ProgressMode>, bool, bool),
    ) -> Self {
        let style = Style::resolve(mode, asked, quiet, console.terminal);
        Self {
            style,
            err: &mut *console.err,
            operation,
            started: Instant::now(),
            shown: None,
            bar: (style == Style::Bar).then(bar),
            last: (0, 0),
        }
    }

    /// Takes note of `done` of `total` bytes; a `total` of 0 is not known.
    pub(crate) fn update(&mut self, done: u64, total: u64) {
        self.last = (done, total);
        if self.style == Style::Silent {
            return;
        }
        if let Some(bar) = &self.bar {
            if total == 0 && done > 0 {
                if bar.length().is_some() {
                    bar.unset_length();
                    bar.set_style(style(COUNTING));
                }
            } else {
                bar.set_length(total);
            }
            bar.set_position(done);
            return;
        }
        // The first line after a second: work that is done sooner has one line, its last.
        if self.shown.unwrap_or(self.started).elapsed() >= INTERVAL {
            self.show();
            self.shown = Some(Instant::now());
        }
    }

    /// Words beside the progress, at once.
    pub(crate) fn note(&mut self, text: &str) {
        let line = format!("qimg: note: {}\n", Escaped(text));
        let mut write = || {
            // As progress: that nobody reads it is no reason to end the work.
            let _ = self.err.write_all(line.as_bytes());
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The operation succeeded.
    pub(crate) fn finish(mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        } else if self.style != Style::Silent {
            if self.last.1 > 0 {
                self.last.0 = self.last.1;
            }
            self.show();
        }
    }

    fn show(&mut self) {
        let (done, total) = self.last;
        let elapsed = self.started.elapsed().as_secs_f64();
        let line = Line::new(self.operation, done, total, elapsed);
        // Progress that nobody can read is no reason to end the work.
        let _ = match self.style {
            Style::Json => serde_json::to_string(&line)
                .map_err(std::io::Error::from)
                .and_then(|text| writeln!(self.err, "{text}")),
            _ => writeln!(self.err, "{}", line.words()),
        };
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Line {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate is for the eye"
    )]
    fn new(operation: &'static str, done: u64, total: u64, elapsed: f64) -> Self {
        let rate = if elapsed > 0.0 {
            done as f64 / elapsed
        } else {
            0.0
        };
        let total = (total > 0 || done == 0).then_some(total);
        let left = total.map(|total| total.saturating_sub(done));
        let eta = match left.unwrap_or(u64::MAX) {
            0 => Some(0),
            u64::MAX => None,
            _ if rate < 1.0 => None,
            left => Some((left as f64 / rate).ceil() as u64),
        };
        Self {
            operation,
            done,
            total,
            rate: rate as u64,
            eta,
            elapsed: (elapsed * 1000.0).round() / 1000.0,
        }
    }

    fn words(&self) -> String {
        let Some(total) = self.total else {
            return format!(
                "{}: {}, {}/s",
                self.operation,
                ByteSize(self.done),
                ByteSize(self.rate)
            );
        };
        let percent = if total == 0 {
            100.0
        } else {
            self.done as f64 * 100.0 / total as f64
        };
        let eta = match self.eta {
            Some(0) => String::new(),
            Some(seconds) => format!(", {} left", duration(seconds)),
            None => ", ? left".to_owned(),
        };
        format!(
            "{}: {percent:5.1} %, {} of {}, {}/s{eta}",
            self.operation,
            ByteSize(self.done),
            ByteSize(total),
            ByteSize(self.rate),
        )
    }
}

/// `75` is `1m15s`.
pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes:02}m{seconds:02}s"),
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.with_style(style(
        "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}",
    ))
}

/// Of work without a known end.
const COUNTING: &str = "{binary_bytes}  {binary_bytes_per_sec}  {elapsed}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_is_asked_for_or_follows_the_terminal() {
        use ProgressMode::{Auto, Json, Plain};
        for (mode, asked, quiet, terminal, style) in [
            (None, false, false, true, Style::Bar),
            (None, false, false, false, Style::Silent),
            (None, true, false, false, Style::Plain),
            (None, true, true, true, Style::Silent),
            (Some(Auto), false, false, true, Style::Bar),
            (Some(Plain), false, true, true, Style::Plain),
            (Some(Json), false, false, true, Style::Json),
            (Some(ProgressMode::None), true, false, true, Style::Silent),
        ] {
            assert_eq!(Style::resolve(mode, asked, quiet, terminal), style);
        }
    }

    #[test]
    fn lines_tell_rate_and_remaining_time() {
        let line = Line::new("convert", 1 << 30, 3 << 30, 4.0);
        assert_eq!((line.rate, line.eta), (1 << 28, Some(8)));
        assert_eq!(
            line.words(),
            "convert:  33.3 %, 1 GiB of 3 GiB, 256 MiB/s, 8s left"
        );
        assert_eq!(Line::new("convert", 0, 5, 1.0).eta, None);
        assert_eq!(
            Line::new("convert", 0, 0, 0.0).words(),
            "convert: 100.0 %, 0 B of 0 B, 0 B/s"
        );
        let unknown = Line::new("cp", 3 << 20, 0, 1.0);
        assert_eq!((unknown.total, unknown.eta), (None, None));
        assert_eq!(unknown.words(), "cp: 3 MiB, 3 MiB/s");
        assert_eq!(duration(3_675), "1h01m15s");
    }
}
