//! SSH: the way into nearly every guest.
//!
//! [`Ssh`] keeps one connection, makes a new one when it was lost, and does all that
//! [`Communicator`] asks over it. Knows the protocol through the russh crate, whose types do not show. Must not
//! know templates beyond [`Options::from_template`], machines or builds.

mod command;
mod conversation;
mod dial;
mod guard;
mod login;
mod options;
mod scp;
mod sftp;
mod shell;
mod waiting;
mod worker;

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

pub use options::{Credentials, Destination, Key, Options, Transfer};

use self::conversation::{Begin, Conversation, lost};
use self::dial::Link;
use self::guard::Trust;
use self::waiting::{End, Recorder};
use self::worker::Worker;
use super::wait::{Report, Seen};
use super::{Communicator, Exit, Lines, Stop};
use crate::error::{Error, ErrorKind, Result};

/// Something worth telling that is no failure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The guest shows another host key than before; it is the one remembered from now on.
    HostKeyChanged {
        /// Public line of the key before.
        before: String,
        /// Public line of the key now.
        now: String,
    },
    /// Files go another way than was asked for.
    TransferReplaced {
        /// The way that the guest does not have: `scp` or `sftp`.
        missing: &'static str,
        /// The way taken instead.
        used: &'static str,
        /// The guest's words.
        why: String,
    },
    /// The connection was lost and made anew.
    Reconnected {
        /// Why it was lost, as far as known.
        why: String,
    },
}

/// Takes notices, on any thread.
pub type Notices = dyn Fn(&Notice) + Send + Sync;

/// How long to wait for a login.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// In all; `None`: without end.
    pub timeout: Option<Duration>,
    /// Refused logins at most; other failures do not count. `None`: no limit.
    pub attempts: Option<u32>,
}

/// The ways files may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Scp,
    Sftp,
    Shell,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Scp => "scp",
            Self::Sftp => "sftp",
            Self::Shell => "shell",
        }
    }
}

/// What became of a transfer.
enum Sent {
    Done,
    /// The guest does not have this way; nothing was read from the source. Its words.
    Missing(String),
}

/// A file to be sent.
struct File<'a> {
    from: &'a mut (dyn Read + Send),
    length: u64,
    to: &'a str,
    mode: u32,
}

/// A guest reached by SSH.
pub struct Ssh {
    sftp_server: Mutex<Option<sftp::Server>>,
    link: Mutex<Option<Arc<Link>>>,
    bastion_link: Mutex<Option<Arc<Link>>>,
    trust: Arc<Trust>,
    bastion_trust: Arc<Trust>,
    options: Options,
    /// Position in the list of ways of the one that was found to work.
    way: AtomicUsize,
    /// Something came from the guest itself, at some time.
    heard: AtomicBool,
    notices: Option<Arc<Notices>>,
    stop: Arc<Stop>,
    // Last: connections end before their thread does.
    worker: Worker,
}

impl Ssh {
    /// Makes ready; nothing is connected yet. Every call ends soon after `stop` says so.
    ///
    /// # Errors
    /// The options do not hold ([`Options::check`]); or the host gives no thread.
    pub fn new(options: Options, stop: Arc<Stop>, notices: Option<Arc<Notices>>) -> Result<Self> {
        options.check()?;
        Ok(Self {
            sftp_server: Mutex::default(),
            link: Mutex::default(),
            bastion_link: Mutex::default(),
            trust: Arc::new(Trust::new(&options.host_keys, notices.clone())?),
            bastion_trust: Arc::new(Trust::new(&[], notices.clone())?),
            worker: Worker::start()?,
            options,
            way: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            notices,
            stop,
        })
    }

    /// Waits until a login succeeds, and keeps the connection for the calls to come. Tells each new state by
    /// `tell`; ends when `stop` says so, as well as by the one given to [`Ssh::new`].
    ///
    /// # Errors
    /// The time is over ([`ErrorKind::TimedOut`]) or there were too many refusals ([`ErrorKind::Connection`]): the
    /// source is the [`Report`] of what was seen. [`ErrorKind::Cancelled`] when it was stopped.
    pub fn wait(
        &self,
        limits: &Limits,
        stop: &Stop,
        tell: &mut (dyn FnMut(&Seen) + Send),
    ) -> Result<Report> {
        let either = || (self.stop)() || stop();
        let recorder = Recorder::new(tell);
        self.worker.wait(&either, async {
            let established = self.establish(limits, &recorder).await;
            let (link, report) =
                established.map_err(|ended| unreachable(ended, limits, ErrorKind::TimedOut))?;
            *self.link.lock().await = Some(Arc::new(link));
            Ok(report)
        })
    }

    /// Public line of the host key that the guest showed last, where none was pinned.
    pub fn host_key(&self) -> Option<String> {
        self.trust.shown()
    }

    fn notice(&self, notice: &Notice) {
        if let Some(notices) = &self.notices {
            notices(notice);
        }
    }

    /// The connection, a new one if need be; and whether it is new.
    async fn connected(&self) -> Result<(Arc<Link>, bool)> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
            return Ok((Arc::clone(link), false));
        }
        let before = slot.take();
        let limits = Limits {
            timeout: Some(self.options.patience),
            attempts: Some(3),
        };
        let mut quiet = |_: &Seen| ();
        let recorder = Recorder::new(&mut quiet);
        let established = self.establish(&limits, &recorder).await;
        // It was there: whether it is too late for what is asked is not for this connection to say.
        let gone = |ended| unreachable(ended, &limits, ErrorKind::Connection);
        let (link, _) = established.map_err(gone)?;
        let link = Arc::new(link);
        *slot = Some(Arc::clone(&link));
        if let Some(before) = before {
            self.notice(&Notice::Reconnected {
                why: before.farewell(),
            });
        }
        Ok((link, true))
    }

    /// Begins a session; where the connection turns out to be dead, on a new one.
    async fn begin(&self, begin: Begin<'_>) -> Result<Conversation> {
        loop {
            let (link, new) = self.connected().await?;
            let opened = timeout(self.options.patience, link.handle.channel_open_session()).await;
            match opened {
                Ok(Ok(channel)) => {
                    let forward = self.options.forward_agent.is_some();
                    let started = Conversation::start(link, channel, begin, forward);
                    return timeout(self.options.patience, started)
                        .await
                        .unwrap_or_else(|_| {
                            let message = "the guest did not begin what was asked for in time";
                            Err(Error::new(ErrorKind::Connection, message))
                        });
                }
                Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                    let message = format!("the guest opens no further session ({reason:?})");
                    return Err(Error::new(ErrorKind::Guest, message));
                }
                _ => {
                    self.forget(&link).await;
                    if new {
                        return Err(lost(&link.farewell()));
                    }
                }
            }
        }
    }

    /// Nobody uses this connection from now on.
    async fn forget(&self, link: &Arc<Link>) {
        let mut slot = self.link.lock().await;
        if slot.as_ref().is_some_and(|held| Arc::ptr_eq(held, link)) {
            *slot = None;
        }
    }

    /// The ways files may go, the wanted one first.
    fn ways(&self) -> [Way; 3] {
        match self.options.transfer {
            Transfer::Scp => [Way::Scp, Way::Sftp, Way::Shell],
            Transfer::Sftp => [Way::Sftp, Way::Scp, Way::Shell],
        }
    }

    /// The way at `at` is missing: the next one is taken from now on.
    fn replace_way(&self, at: usize, why: String) {
        let ways = self.ways();
        if self
            .way
            .compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            self.notice(&Notice::TransferReplaced {
                missing: ways[at].name(),
                used: ways[at + 1].name(),
                why,
            });
        }
    }

    async fn send_file(&self, file: &mut File<'_>) -> Result<()> {
        let ways = self.ways();
        for (at, way) in ways
            .iter()
            .enumerate()
            .skip(self.way.load(Ordering::Relaxed))
        {
            let sent = match way {
                Way::Scp => self.send_by_scp(file).await?,
                Way::Sftp => self.send_by_sftp(file).await?,
                Way::Shell => self.send_by_shell(file).await?,
            };
            match sent {
                Sent::Done => return Ok(()),
                Sent::Missing(why) if at + 1 < ways.len() => self.replace_way(at, why),
                Sent::Missing(why) => return Err(refused(file.to, &why)),
            }
        }
        Ok(())
    }

    async fn fetch_file(&self, from: &str, into: &mut (dyn Write + Send)) -> Result<()> {
        let ways = self.ways();
        for (at, way) in ways
            .iter()
            .enumerate()
            .skip(self.way.load(Ordering::Relaxed))
        {
            let sent = match way {
                Way::Scp => self.fetch_by_scp(from, into).await?,
                Way::Sftp => self.fetch_by_sftp(from, into).await?,
                Way::Shell => self.fetch_by_shell(from, into).await?,
            };
            match sent {
                Sent::Done => return Ok(()),
                Sent::Missing(why) if at + 1 < ways.len() => self.replace_way(at, why),
                Sent::Missing(why) => return Err(refused(from, &why)),
            }
        }
        Ok(())
    }
}

/// The guest's words about a file.
fn refused(path: &str, words: &str) -> Error {
    let words = match words {
        "" => "it gives no reason",
        words => words,
    };
    Error::new(
        ErrorKind::Guest,
        format!("the guest refuses {path}: {words}"),
    )
}

/// The source ended before its length.
fn too_short(length: u64, missing: u64) -> Error {
    let message = format!(
        "the file to send ended after {} of {length} bytes",
        length - missing
    );
    Error::new(ErrorKind::Io, message)
}

/// `late`: what it is when the time is over.
fn unreachable((end, report): (End, Report), limits: &Limits, late: ErrorKind) -> Error {
    let (kind, message) = match end {
        End::TimedOut => {
            let seconds = limits.timeout.unwrap_or_default().as_secs_f64();
            let message = format!(
                "no login by SSH within {} s",
                (seconds * 10.0).round() / 10.0
            );
            (late, message)
        }
        End::Refused => {
            let times = match report.refusals {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            let message = format!("the login by SSH was refused {times}");
            (ErrorKind::Connection, message)
        }
    };
    Error::new(kind, message).with_source(report)
}

impl Communicator for Ssh {
    fn run(&self, command: &str, timeout: Option<Duration>, lines: &mut Lines<'_>) -> Result<Exit> {
        self.worker.wait(&*self.stop, async {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            self.run_command(command, deadline, lines).await
        })
    }

    fn pipe(
        &self,
        command: &str,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
        lines: &mut Lines<'_>,
    ) -> Result<Exit> {
        self.worker.wait(
            &*self.stop,
            self.pipe_command(command, input, output, lines),
        )
    }

    fn upload(&self, from: &mut (dyn Read + Send), length: u64, to: &str, mode: u32) -> Result<()> {
        let mut file = File {
            from,
            length,
            to,
            mode: mode & 0o7777,
        };
        self.worker.wait(&*self.stop, self.send_file(&mut file))
    }

    fn download(&self, from: &str, into: &mut (dyn Write + Send)) -> Result<()> {
        self.worker.wait(&*self.stop, self.fetch_file(from, into))
    }

    fn disconnect(&self) {
        // It ends in any case; how, nobody needs to know.
        let _ = self.worker.wait(&|| false, async {
            *self.sftp_server.lock().await = None;
            let link = self.link.lock().await.take();
            if let Some(link) = link {
                let reason = russh::Disconnect::ByApplication;
                let goodbye = link.handle.disconnect(reason, "", "");
                let _ = timeout(Duration::from_millis(500), goodbye).await;
            }
            Ok(())
        });
    }

    fn probe(&self, timeout: Duration) -> Result<()> {
        let limits = Limits {
            timeout: Some(timeout),
            attempts: None,
        };
        self.worker.wait(&*self.stop, async {
            let mut quiet = |_: &Seen| ();
            let recorder = Recorder::new(&mut quiet);
            let established = self.establish(&limits, &recorder).await;
            established
                .map(drop)
                .map_err(|ended| unreachable(ended, &limits, ErrorKind::TimedOut))
        })
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
