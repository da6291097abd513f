//! The proofs of who logs in, offered one after the other: keys, the agent's keys, the password.

use std::path::Path;
use std::sync::{Arc, Mutex};

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{self, Algorithm, HashAlg};
use russh::keys::{PrivateKeyWithHashAlg, signature, ssh_encoding};
use russh::{MethodKind, MethodSet, Signer};

use super::super::keys::fingerprint;
use super::super::wait::{Outcome, State, Tried};
use super::guard::{Facts, Guard, unlocked};
use super::options::{Destination, Key, hashes};

/// Keys of an agent that are offered; servers end the connection after about six refusals.
const MOST_AGENT_KEYS: usize = 16;

/// Times that the proofs are gone through.
const MOST_ROUNDS: usize = 4;

/// Rounds of questions in keyboard-interactive.
const MOST_QUESTIONS: usize = 10;

/// Logs in to `to`.
pub(super) async fn log_in(
    handle: &mut Handle<Guard>,
    to: &Destination,
    facts: &Arc<Mutex<Facts>>,
) -> Result<(), State> {
    let mut ladder = Ladder {
        handle,
        to,
        tried: Vec::new(),
        offered: MethodSet::empty(),
    };
    match ladder.climb().await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let offered = ladder.offered.iter().map(String::from).collect();
            let words = unlocked(facts, |facts| {
                [
                    std::mem::take(&mut facts.banner),
                    facts.farewell.take().unwrap_or_default(),
                ]
            });
            let words: Vec<String> = words.into_iter().filter(|w| !w.is_empty()).collect();
            Err(State::Refused {
                username: to.username.clone(),
                tried: ladder.tried,
                offered,
                words: words.join("; "),
            })
        }
        Err(error) => {
            let words = unlocked(facts, |facts| facts.farewell.take());
            Err(State::Lost {
                why: words.unwrap_or_else(|| error.to_string()),
            })
        }
    }
}

struct Ladder<'a> {
    handle: &'a mut Handle<Guard>,
    to: &'a Destination,
    tried: Vec<Tried>,
    offered: MethodSet,
}

impl Ladder<'_> {
    /// Whether one of the proofs was enough.
    async fn climb(&mut self) -> Result<bool, russh::Error> {
        let username = self.to.username.as_str();
        // Asks what there is to prove; a guest without any locks is entered by this.
        let first = self.handle.authenticate_none(username).await?;
        if self.passed(None, None, first)? {
            return Ok(true);
        }
        // A server may want several proofs, in an order of its own.
        for _ in 0..MOST_ROUNDS {
            let partial = self.partial();
            if self.offer_all().await? {
                return Ok(true);
            }
            if self.partial() == partial {
                break;
            }
        }
        // What was not asked for at first and then was is told by what became of it.
        let tried = self.tried.clone();
        self.tried.retain(|one| {
            one.outcome != Outcome::NotAsked
                || !tried
                    .iter()
                    .any(|other| other.method == one.method && other.outcome != Outcome::NotAsked)
        });
        self.tried.dedup();
        Ok(false)
    }

    /// Proofs that were taken without being enough.
    fn partial(&self) -> usize {
        let partial = |tried: &&Tried| tried.outcome == Outcome::Partial;
        self.tried.iter().filter(partial).count()
    }

    async fn offer_all(&mut self) -> Result<bool, russh::Error> {
        let username = self.to.username.as_str();
        for key in &self.to.credentials.keys {
            if self.offer_key(key).await? {
                return Ok(true);
            }
        }
        if let Some(socket) = &self.to.credentials.agent
            && self.offer_agent(socket).await?
        {
            return Ok(true);
        }
        let Some(password) = &self.to.credentials.password else {
            return Ok(false);
        };
        if self.asks(MethodKind::Password, None) {
            let result = self
                .handle
                .authenticate_password(username, password)
                .await?;
            if self.passed(Some(MethodKind::Password), None, result)? {
                return Ok(true);
            }
        }
        if self.asks(MethodKind::KeyboardInteractive, None) {
            let result = self.answer_questions(password).await?;
            if self.passed(Some(MethodKind::KeyboardInteractive), None, result)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the server would take this method; written down where it would not.
    fn asks(&mut self, method: MethodKind, key: Option<String>) -> bool {
        let asked = self.offered.contains(&method);
        if !asked {
            self.note(method, key, Outcome::NotAsked);
        }
        asked
    }

    fn note(&mut self, method: MethodKind, key: Option<String>, outcome: Outcome) {
        self.tried.push(Tried {
            method: String::from(&method),
            key,
            outcome,
        });
    }

    /// Writes down what became of a proof.
    fn passed(
        &mut self,
        method: Option<MethodKind>,
        key: Option<String>,
        result: AuthResult,
    ) -> Result<bool, russh::Error> {
        match result {
            AuthResult::Success => Ok(true),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                // A session that has ended is told as a failure without methods.
                let lost = remaining_methods.is_empty() && self.handle.is_closed();
                if !lost {
                    self.offered = remaining_methods;
                }
                if let Some(method) = method {
                    let outcome = match partial_success {
                        true => Outcome::Partial,
                        false => Outcome::Refused,
                    };
                    self.note(method, key, outcome);
                } else if lost {
                    return Err(russh::Error::Disconnect);
                }
                if lost {
                    // No further proof can be offered: those so far were refused.
                    self.offered = MethodSet::empty();
                }
                Ok(false)
            }
        }
    }

    /// How RSA keys are to be signed with, as far as the server tells.
    async fn hashes(&self, algorithm: &Algorithm) -> Result<Vec<Option<HashAlg>>, russh::Error> {
        let told = match algorithm {
            Algorithm::Rsa { .. } => self.handle.best_supported_rsa_hash().await?,
            _ => None,
        };
        Ok(hashes(algorithm, told))
    }

    async fn offer_key(&mut self, key: &Key) -> Result<bool, russh::Error> {
        let username = self.to.username.as_str();
        let algorithm = key.private.algorithm();
        if !self.asks(MethodKind::PublicKey, Some(key.name())) {
            return Ok(false);
        }
        for hash in self.hashes(&algorithm).await? {
            if let Some(certificate) = &key.certificate {
                let mut signer = Own(key);
                let result = self
                    .handle
                    .authenticate_certificate_with(username, certificate.clone(), hash, &mut signer)
                    .await?;
                let name = format!("certificate {:?} of {}", certificate.key_id(), key.name());
                if self.passed(Some(MethodKind::PublicKey), Some(name), result)? {
                    return Ok(true);
                }
                if !self.offered.contains(&MethodKind::PublicKey) {
                    return Ok(false);
                }
            }
            let private = PrivateKeyWithHashAlg::new(Arc::clone(&key.private), hash);
            let result = self
                .handle
                .authenticate_publickey(username, private)
                .await?;
            if self.passed(Some(MethodKind::PublicKey), Some(key.name()), result)? {
                return Ok(true);
            }
            if !self.offered.contains(&MethodKind::PublicKey) {
                break;
            }
        }
        Ok(false)
    }

    async fn offer_agent(&mut self, socket: &Path) -> Result<bool, russh::Error> {
        if !self.asks(MethodKind::PublicKey, Some("of the agent".to_owned())) {
            return Ok(false);
        }
        let failed = |why: String| Outcome::Failed(format!("the agent: {why}"));
        let mut agent = match AgentClient::connect_uds(socket).await {
            Ok(agent) => agent,
            Err(error) => {
                self.note(MethodKind::PublicKey, None, failed(error.to_string()));
                return Ok(false);
            }
        };
        if let Some(binding) = self.handle.agent_session_binding() {
            // Agents before OpenSSH 8.9 do not know this; those that do may hold keys back without it.
            let _ = agent.bind_session(binding, false).await;
        }
        let identities = match agent.request_identities().await {
            Ok(identities) if identities.is_empty() => Err("has no keys".to_owned()),
            Ok(identities) => Ok(identities),
            Err(error) => Err(error.to_string()),
        };
        let identities = match identities {
            Ok(identities) => identities,
            Err(why) => {
                self.note(MethodKind::PublicKey, None, failed(why));
                return Ok(false);
            }
        };
        for identity in identities.into_iter().take(MOST_AGENT_KEYS) {
            if !self.offered.contains(&MethodKind::PublicKey) {
                break;
            }
            if self.offer_identity(&identity, &mut agent).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn offer_identity(
        &mut self,
        identity: &AgentIdentity,
        agent: &mut AgentClient<tokio::net::UnixStream>,
    ) -> Result<bool, russh::Error> {
        let username = self.to.username.as_str();
        let public = identity.public_key().into_owned();
        let name = format!(
            "{} {} (agent: {})",
            public.algorithm(),
            fingerprint(&public),
            identity.comment().chars().take(100).collect::<String>()
        );
        for hash in self.hashes(&public.algorithm()).await? {
            let result = match identity {
                AgentIdentity::PublicKey { .. } => {
                    self.handle
                        .authenticate_publickey_with(username, public.clone(), hash, agent)
                        .await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle
                        .authenticate_certificate_with(username, certificate.clone(), hash, agent)
                        .await
                }
            };
            match result {
                Ok(result) => {
                    if self.passed(Some(MethodKind::PublicKey), Some(name.clone()), result)? {
                        return Ok(true);
                    }
                }
                Err(error) => {
                    let outcome = Outcome::Failed(format!("the agent: {error}"));
                    self.note(MethodKind::PublicKey, Some(name.clone()), outcome);
                }
            }
            if !self.offered.contains(&MethodKind::PublicKey) {
                break;
            }
        }
        Ok(false)
    }

    /// The password is the answer to everything that is asked.
    async fn answer_questions(&mut self, password: &str) -> Result<AuthResult, russh::Error> {
        let username = self.to.username.as_str();
        let refused = |remaining_methods, partial_success| AuthResult::Failure {
            remaining_methods,
            partial_success,
        };
        let mut response = self
            .handle
            .authenticate_keyboard_interactive_start(username, None::<String>)
            .await?;
        for _ in 0..MOST_QUESTIONS {
            match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(AuthResult::Success),
                KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods,
                    partial_success,
                } => return Ok(refused(remaining_methods, partial_success)),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let answers = vec![password.to_owned(); prompts.len()];
                    response = self
                        .handle
                        .authenticate_keyboard_interactive_respond(answers)
                        .await?;
                }
            }
        }
        Ok(refused(MethodSet::empty(), false))
    }
}

/// Signs with a key at hand, for certificates: the hash of an RSA key is chosen here.
struct Own<'a>(&'a Key);

/// A key could not sign.
#[derive(Debug)]
struct SignFailed(String);

impl From<russh::SendError> for SignFailed {
    fn from(error: russh::SendError) -> Self {
        Self(error.to_string())
    }
}

impl From<SignFailed> for russh::Error {
    fn from(failed: SignFailed) -> Self {
        Self::InvalidConfig(failed.0)
    }
}

impl Signer for Own<'_> {
    type Error = SignFailed;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignFailed> {
        let failed = |error: &dyn std::fmt::Display| SignFailed(error.to_string());
        let signed: Result<ssh_key::Signature, _> = match self.0.private.key_data() {
            KeypairData::Rsa(pair) => signature::Signer::try_sign(&(pair, hash), &to_sign),
            pair => signature::Signer::try_sign(pair, &to_sign),
        };
        let signed = signed.map_err(|error| failed(&error))?;
        // The signature follows what it signs, as a string of SSH.
        let mut bytes = Vec::new();
        ssh_encoding::Encode::encode(&signed, &mut bytes).map_err(|error| failed(&error))?;
        ssh_encoding::Encode::encode(&bytes, &mut to_sign).map_err(|error| failed(&error))?;
        Ok(to_sign)
    }
}
