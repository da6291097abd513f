//! The wait for SSH, as plain data: what was seen of the guest, when, and what it most likely means.
//!
//! Knows the states on the way to a login. Must not know how they are found out: that is the business of
//! [`super::ssh::Ssh::wait`].

use std::fmt;
use std::time::Duration;

/// How far an attempt came. Texts of servers are shortened; control characters are still in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The name has no address, or there is no way to it.
    Unreachable {
        /// In the host's words.
        why: String,
    },
    /// Nobody listens on the port.
    NotListening,
    /// The port accepts, and then nothing comes. QEMU's user network accepts before the guest is up.
    Silent,
    /// The port accepts and is closed before a word is said.
    Closed,
    /// An SSH server takes no more connections for now.
    TurnedAway {
        /// In its words.
        text: String,
    },
    /// Something answers that is no SSH server.
    NotSsh {
        /// Its first words.
        text: String,
    },
    /// An SSH server has said its name; keys are being exchanged.
    Banner {
        /// Its name: `SSH-2.0-OpenSSH_9.2p1 Debian-2`.
        text: String,
    },
    /// No keys were agreed upon.
    KeyExchangeFailed {
        /// Why.
        why: String,
    },
    /// The key exchange began and did not end in time.
    KeyExchangeStuck,
    /// The host key is not the one that it has to be.
    HostKeyDiffers {
        /// Public lines, of which one had to be shown.
        expected: Vec<String>,
        /// The public line that was.
        shown: String,
    },
    /// Keys are exchanged; the login goes on.
    LoggingIn,
    /// The server refused every proof.
    Refused {
        /// Login name.
        username: String,
        /// What was tried, in order, and what became of it.
        tried: Vec<Tried>,
        /// Methods the server would take.
        offered: Vec<String>,
        /// What the server said beside, if anything.
        words: String,
    },
    /// The connection ended while the login went on.
    Lost {
        /// Why, as far as known.
        why: String,
    },
    /// The same, of the bastion on the way.
    Bastion(Box<State>),
    /// Logged in.
    Ready,
}

/// One proof that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Method, by its name in SSH.
    pub method: String,
    /// The key: kind, fingerprint and where it is from.
    pub key: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server does not take it.
    Refused,
    /// The server takes it, and wants another one beside.
    Partial,
    /// It was not offered: the server does not ask for this method.
    NotAsked,
    /// It could not be offered.
    Failed(String),
}

/// A state and when it was seen; times count from the beginning of the wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The state.
    pub state: State,
    /// First seen.
    pub at: Duration,
    /// Last seen, without another state between.
    pub until: Duration,
    /// How often.
    pub times: u32,
}

/// What a wait has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// In order; states that follow themselves are one.
    pub seen: Vec<Seen>,
    /// Entries that are left out in the middle of `seen`.
    pub left_out: u32,
    /// Logins that were refused.
    pub refusals: u32,
    /// How long it took.
    pub took: Duration,
}

/// More entries than this are not kept.
const MOST_SEEN: usize = 200;

impl Report {
    /// Enters what was seen now; `true` if it is news.
    pub(super) fn note(&mut self, state: State, now: Duration) -> bool {
        // Two attempts are under way at a time: what one sees must not look like news after the other.
        let recent = self.seen.iter_mut().rev().take(2);
        for seen in recent {
            if seen.state == state {
                seen.until = now;
                seen.times = seen.times.saturating_add(1);
                return false;
            }
            if !seen.state.is_before_banner() || !state.is_before_banner() {
                break;
            }
        }
        if self.seen.len() >= MOST_SEEN {
            self.seen.remove(MOST_SEEN / 2);
            self.left_out = self.left_out.saturating_add(1);
        }
        self.seen.push(Seen {
            state,
            at: now,
            until: now,
            times: 1,
        });
        true
    }

    /// What was seen last of a whole attempt: not how far one is that still goes on.
    #[must_use]
    pub fn last(&self) -> Option<&State> {
        let ended = |seen: &&Seen| !matches!(seen.state, State::Banner { .. } | State::LoggingIn);
        let whole = self.seen.iter().rev().find(ended);
        let last = self.seen.last();
        // A banner after which nothing ended is the news.
        match (whole, last) {
            (Some(whole), Some(last)) if whole.state.is_before_banner() => Some(&last.state),
            (Some(whole), _) => Some(&whole.state),
            (None, last) => last.map(|seen| &seen.state),
        }
    }

    /// What most likely is the matter, in one line.
    #[must_use]
    pub fn cause(&self) -> String {
        let Some(last) = self.last() else {
            return "nothing was seen of the guest".to_owned();
        };
        let spoke = self
            .seen
            .iter()
            .any(|seen| !seen.state.is_before_banner() && !matches!(seen.state, State::Bastion(_)));
        if spoke && last.is_before_banner() {
            return format!(
                "{last}, although SSH had answered before: the guest went down, or its sshd"
            );
        }
        last.cause()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause())
    }
}

impl std::error::Error for Report {}

impl State {
    /// Nothing was heard of an SSH server.
    fn is_before_banner(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotListening | Self::Silent | Self::Closed => true,
            Self::Bastion(state) => state.is_before_banner(),
            _ => false,
        }
    }

    /// Whether the server refused the login itself: what [`super::ssh::Limits::attempts`] counts.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Bastion(state) => state.is_refusal(),
            _ => false,
        }
    }

    /// What most likely is the matter, in one line.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Unreachable { why } => format!("there is no way to the guest: {why}"),
            Self::NotListening => {
                "nobody listens on the port: sshd does not run, or the port is another one".into()
            }
            Self::Silent => "the port accepts but there is no banner: the guest has not booted, its network \
                             is not up, or sshd does not run"
                .into(),
            Self::Closed => "the port accepts and is closed at once: the guest's network is up, but sshd \
                             does not run, or does not let us in"
                .into(),
            Self::TurnedAway { text } => format!(
                "sshd runs, but takes no connections for now: it said {text:?}; the guest is very slow"
            ),
            Self::NotSsh { text } => format!("what answers is no SSH server: it said {text:?}"),
            Self::Banner { text } => {
                format!("{text} said its name and nothing more: the guest hangs, or is very slow")
            }
            Self::KeyExchangeFailed { why } => format!("the key exchange failed: {why}"),
            Self::KeyExchangeStuck => {
                "the server began the key exchange and went silent: the guest hangs, or lacks randomness".into()
            }
            Self::HostKeyDiffers { .. } => {
                "the host key differs: another machine answers, or the guest did not take the key of its seed"
                    .into()
            }
            Self::LoggingIn => "the server went silent during the login".into(),
            Self::Refused {
                username,
                tried,
                offered,
                words,
            } => refusal(username, tried, offered, words),
            Self::Lost { why } => format!("the connection ended during the login: {why}"),
            Self::Bastion(state) => format!("the bastion: {}", state.cause()),
            Self::Ready => "the guest answers".into(),
        }
    }
}

fn refusal(username: &str, tried: &[Tried], offered: &[String], words: &str) -> String {
    let has = |outcome: &Outcome, method: &str| {
        tried
            .iter()
            .any(|tried| tried.outcome == *outcome && tried.method == method)
    };
    let offers = match offered {
        [] => "nothing".to_owned(),
        offered => offered.join(", "),
    };
    let mut text = if let Some(Tried { method, .. }) =
        tried.iter().find(|tried| tried.outcome == Outcome::Partial)
    {
        format!("{method} is taken for {username}, but the server wants more: it offers {offers}")
    } else if has(&Outcome::Refused, "publickey") {
        format!(
            "publickey refused for {username}: the key is not in the guest; was the seed read, and is \
             {username} its user?"
        )
    } else if has(&Outcome::Refused, "password") || has(&Outcome::Refused, "keyboard-interactive") {
        format!("the password is refused for {username}")
    } else if let Some(Outcome::Failed(why)) = tried
        .iter()
        .map(|tried| &tried.outcome)
        .find(|outcome| matches!(outcome, Outcome::Failed(_)))
    {
        format!("no proof could be offered for {username}: {why}")
    } else if tried.iter().any(|tried| tried.outcome == Outcome::NotAsked) {
        format!("the server takes none of the methods at hand for {username}: it offers {offers}")
    } else {
        format!(
            "the login of {username} is refused, and there is no key or password to offer: the server offers {offers}"
        )
    };
    if !words.is_empty() {
        text.push_str(&format!("; it said {words:?}"));
    }
    text
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { why } => write!(f, "unreachable: {why}"),
            Self::NotListening => f.write_str("the connection is refused"),
            Self::Silent => f.write_str("the port accepts, no banner"),
            Self::Closed => f.write_str("the port accepts and is closed, no banner"),
            Self::TurnedAway { text } => write!(f, "turned away: {text}"),
            Self::NotSsh { text } => write!(f, "no SSH server: {text:?}"),
            Self::Banner { text } => write!(f, "banner {text}"),
            Self::KeyExchangeFailed { why } => write!(f, "key exchange failed: {why}"),
            Self::KeyExchangeStuck => f.write_str("key exchange without an end"),
            Self::HostKeyDiffers { shown, .. } => write!(f, "the host key differs: {shown}"),
            Self::LoggingIn => f.write_str("keys exchanged, logging in"),
            Self::Refused {
                username, offered, ..
            } => {
                let offered = if offered.is_empty() {
                    "nothing".to_owned()
                } else {
                    offered.join(", ")
                };
                write!(f, "login of {username} refused, offered: {offered}")
            }
            Self::Lost { why } => write!(f, "lost during the login: {why}"),
            Self::Bastion(state) => write!(f, "bastion: {state}"),
            Self::Ready => f.write_str("ready"),
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.method)?;
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        match &self.outcome {
            Outcome::Refused => f.write_str(": refused"),
            Outcome::Partial => f.write_str(": taken, not enough"),
            Outcome::NotAsked => f.write_str(": not offered by the server"),
            Outcome::Failed(why) => write!(f, ": {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_repeats_is_told_once() {
        let mut report = Report::default();
        assert!(report.note(State::Silent, at(0)));
        assert!(!report.note(State::Silent, at(1)));
        assert!(report.note(State::Closed, at(2)));
        assert!(!report.note(State::Silent, at(3)));
        let banner = State::Banner { text: "x".into() };
        assert!(report.note(banner.clone(), at(4)));
        assert!(report.note(State::KeyExchangeStuck, at(5)));
        assert!(report.note(banner, at(6)));
        assert_eq!(report.seen.len(), 5);
        assert_eq!((report.seen[0].times, report.seen[0].until), (3, at(3)));
    }

    #[test]
    fn an_endless_wait_keeps_its_beginning_and_its_end() {
        let mut report = Report::default();
        for n in 0..1000 {
            let text = n.to_string();
            report.note(State::NotSsh { text }, at(n));
        }
        assert_eq!(report.seen.len(), MOST_SEEN);
        assert_eq!(report.left_out, 800);
        assert_eq!(report.seen[0].at, at(0));
        assert_eq!(report.seen[MOST_SEEN - 1].at, at(999));
    }

    #[test]
    fn the_likely_cause_is_that_of_the_last_whole_attempt() {
        let mut report = Report::default();
        assert!(report.cause().contains("nothing was seen"));
        report.note(State::Silent, at(0));
        assert!(report.cause().contains("network"));
        let banner = State::Banner {
            text: "SSH-2.0-x".into(),
        };
        report.note(banner.clone(), at(1));
        assert!(report.cause().contains("SSH-2.0-x said its name"));
        report.note(
            State::Refused {
                username: "debian".into(),
                tried: vec![Tried {
                    method: "publickey".into(),
                    key: None,
                    outcome: Outcome::Refused,
                }],
                offered: vec!["publickey".into()],
                words: String::new(),
            },
            at(2),
        );
        report.note(banner, at(3));
        let cause = report.cause();
        assert!(cause.starts_with("publickey refused for debian"), "{cause}");
        report.note(State::Silent, at(4));
        assert!(report.cause().contains("had answered before"));
    }
}
