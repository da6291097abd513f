//! What a connection lets the server do: show its host key, say a word of farewell, and, where the caller wants
//! it, use the agent. Everything else that a server may begin is refused.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::{Algorithm, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, Error};

use super::super::keys::{line, public};
use super::{Notice, Notices};
use crate::error::Result;

/// Longest text of a server that is kept.
const LONGEST_WORDS: usize = 1024;

/// Agent connections that the guest may hold at a time.
const MOST_AGENTS: usize = 16;

/// The host keys of one server: pinned, or the first one shown.
pub(super) struct Trust {
    pinned: Vec<PublicKey>,
    remembered: Mutex<Option<PublicKey>>,
    notices: Option<Arc<Notices>>,
}

impl Trust {
    pub(super) fn new(pinned: &[String], notices: Option<Arc<Notices>>) -> Result<Self> {
        let pinned = pinned.iter().map(|line| public(line));
        Ok(Self {
            pinned: pinned.collect::<Result<_>>()?,
            remembered: Mutex::new(None),
            notices,
        })
    }

    /// The algorithm of the key that the server is known to have.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        let remembered = lock(&self.remembered);
        let known = self.pinned.first().or(remembered.as_ref());
        known.map(PublicKey::algorithm)
    }

    /// The line of the key that the server showed last, where it is not pinned.
    pub(super) fn shown(&self) -> Option<String> {
        lock(&self.remembered).as_ref().map(line)
    }

    /// Whether `key` will do; the keys that would have, where it does not.
    fn accept(&self, key: &PublicKey) -> std::result::Result<(), Vec<String>> {
        let same = |other: &PublicKey| other.key_data() == key.key_data();
        if !self.pinned.is_empty() {
            return match self.pinned.iter().any(same) {
                true => Ok(()),
                false => Err(self.pinned.iter().map(line).collect()),
            };
        }
        let before = lock(&self.remembered).replace(key.clone());
        if let (Some(before), Some(notices)) =
            (before.filter(|before| !same(before)), &self.notices)
        {
            notices(&Notice::HostKeyChanged {
                before: line(&before),
                now: line(key),
            });
        }
        Ok(())
    }
}

/// What one connection learned from its server beside data.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The server's key was not one of these.
    pub(super) wrong_key: Option<(Vec<String>, String)>,
    /// Text before the login.
    pub(super) banner: String,
    /// Why it ended the connection, in its own words.
    pub(super) farewell: Option<String>,
}

/// The handler of one connection.
pub(super) struct Guard {
    pub(super) trust: Arc<Trust>,
    pub(super) facts: Arc<Mutex<Facts>>,
    pub(super) agent: Option<PathBuf>,
    agents: Arc<()>,
}

impl Guard {
    pub(super) fn new(trust: &Arc<Trust>, agent: Option<PathBuf>) -> Self {
        Self {
            trust: Arc::clone(trust),
            facts: Arc::default(),
            agent,
            agents: Arc::new(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at what a mutex holds, for no longer than `look` takes.
pub(super) fn unlocked<T, R>(mutex: &Mutex<T>, look: impl FnOnce(&mut T) -> R) -> R {
    look(&mut lock(mutex))
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim().to_owned()
}

impl Handler for Guard {
    type Error = Error;

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Error> {
        lock(&self.facts).banner = shortened(banner);
        Ok(())
    }

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let key = key.public_key();
        match self.trust.accept(&key) {
            Ok(()) => Ok(true),
            Err(expected) => {
                lock(&self.facts).wrong_key = Some((expected, line(&key)));
                Ok(false)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        let words = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => info.message.clone(),
            DisconnectReason::Error(error) => error.to_string(),
        };
        lock(&self.facts).farewell = Some(shortened(&words));
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        let Some(socket) = self.agent.clone() else {
            return Ok(());
        };
        let agents = Arc::clone(&self.agents);
        if Arc::strong_count(&agents) > MOST_AGENTS + 1 {
            return Ok(());
        }
        tokio::spawn(async move {
            let _counted = agents;
            // An agent that does not answer is the guest's error to report: it sees the channel refused or closed.
            if let Ok(mut agent) = tokio::net::UnixStream::connect(socket).await {
                reply.accept().await;
                let mut guest = channel.into_stream();
                let _ = tokio::io::copy_bidirectional(&mut guest, &mut agent).await;
            }
        });
        Ok(())
    }

    // To let the reply go refuses the channel.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }
}
