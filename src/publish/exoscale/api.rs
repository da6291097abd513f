//! Exoscale's API, as far as templates need it.
//!
//! Knows requests, answers and operations. Must not know where an image comes from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::signature::authorization;
use crate::error::{Error, ErrorKind, Result};
use crate::publish::courier::{Ask, Courier, Payload, Reply, words};

/// A signature holds for so long, in seconds.
const HOLDS: u64 = 600;

/// Answers to one question after another that may fail.
const MOST_FAILURES: u32 = 5;

/// Who asks, and whom.
#[derive(Clone)]
pub struct Account {
    /// Which key: no secret.
    pub key: String,
    /// The secret. Never shown.
    pub secret: String,
    /// `api`; another word is another environment: `ppapi` for preproduction.
    pub environment: String,
    /// Instead of `https://{environment}-{zone}.exoscale.com`, in which both words are filled in.
    pub endpoint: Option<String>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("key", &self.key)
            .field("environment", &self.environment)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Account {
    fn base(&self, zone: &str) -> String {
        let pattern = self.endpoint.as_deref();
        pattern
            .unwrap_or("https://{environment}-{zone}.exoscale.com")
            .trim_end_matches('/')
            .trim_end_matches("/v2")
            .replace("{environment}", &self.environment)
            .replace("{zone}", zone)
    }
}

/// A template to be registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Registration {
    /// 1 to 255 characters.
    pub name: String,
    /// Where the cloud reads the image.
    pub url: String,
    /// MD5 of the image, in hexadecimal digits.
    pub checksum: String,
    /// The cloud makes a password.
    pub password_enabled: bool,
    /// The cloud puts a key in.
    pub ssh_key_enabled: bool,
    /// `legacy` or `uefi`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_mode: Option<String>,
    /// Who logs in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default_user: Option<String>,
    /// 255 characters at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Who cares for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub maintainer: Option<String>,
    /// Of the template.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// Of the template.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub build: Option<String>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The guest can be told to hold still for a snapshot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub application_consistent_snapshot_enabled: Option<bool>,
}

/// A template that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Template {
    /// Its id.
    pub id: String,
    /// Names of zones that have it.
    pub zones: Vec<String>,
    /// All that was said when it was registered.
    #[serde(flatten)]
    pub registration: Loose,
}

/// A registration of which fields may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[expect(missing_docs, reason = "as in Registration")]
pub struct Loose {
    pub name: Option<String>,
    pub url: Option<String>,
    pub checksum: Option<String>,
    pub password_enabled: Option<bool>,
    pub ssh_key_enabled: Option<bool>,
    pub boot_mode: Option<String>,
    pub default_user: Option<String>,
    pub description: Option<String>,
    pub maintainer: Option<String>,
    pub version: Option<String>,
    pub build: Option<String>,
    pub size: Option<u64>,
    pub application_consistent_snapshot_enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Templates {
    templates: Vec<Template>,
}

/// Something that takes the cloud a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Operation {
    pub id: String,
    /// `pending`, `success`, `failure` or `timeout`.
    pub state: String,
    reason: Option<String>,
    message: Option<String>,
    reference: Option<Reference>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Reference {
    id: String,
}

impl Operation {
    /// Of what it concerns: the template, the instance.
    pub fn reference_id(&self) -> Option<&str> {
        let id = self
            .reference
            .as_ref()
            .map(|reference| reference.id.as_str());
        id.filter(|id| is_id(id))
    }
}

/// Ids become parts of paths.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// How often an operation is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// Between the first ones; longer later, up to twenty times as long.
    pub pause: Duration,
    /// For an operation to end.
    pub timeout: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(3),
            timeout: Duration::from_secs(3600),
        }
    }
}

/// Makes requests in one account.
pub(super) struct Api<'a> {
    pub account: &'a Account,
    pub courier: &'a Courier<'a>,
    /// Seconds since 1970.
    pub clock: &'a (dyn Fn() -> u64 + Sync),
}

impl std::fmt::Debug for Api<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("account", self.account)
            .finish_non_exhaustive()
    }
}

impl Api<'_> {
    /// Templates of the account's own in a zone.
    pub fn templates(&self, zone: &str) -> Result<Vec<Template>> {
        let reply = self.call(
            zone,
            "list templates at",
            "GET",
            "/v2/template",
            &[("visibility", "private")],
            "",
        )?;
        let reply = self.success("list templates at", zone, reply)?;
        read::<Templates>("list of templates", &reply).map(|list| list.templates)
    }

    /// A template, if it is there.
    pub fn template(&self, zone: &str, id: &str) -> Result<Option<Template>> {
        let path = format!("/v2/template/{id}");
        self.found(zone, "look at a template at", "template", &path)
    }

    /// Begins to register a template. It is asked for once: twice would make two.
    pub fn register(&self, zone: &str, registration: &Registration) -> Result<Operation> {
        let body = serde_json::to_string(registration).unwrap_or_default();
        self.begin(
            zone,
            "register a template at",
            "POST",
            "/v2/template",
            &body,
        )
    }

    /// Begins to copy a template to a further zone.
    pub fn copy(&self, zone: &str, id: &str, to: &str) -> Result<Operation> {
        let body = serde_json::json!({"target-zone": {"name": to}}).to_string();
        let path = format!("/v2/template/{id}");
        self.begin(zone, "copy a template at", "POST", &path, &body)
    }

    /// An operation as it is now; `None`: nobody knows of it.
    pub fn operation(&self, zone: &str, id: &str) -> Result<Option<Operation>> {
        let doing = "look at an operation at";
        let reply = self.call(zone, doing, "GET", &format!("/v2/operation/{id}"), &[], "")?;
        if reply.status == 404 {
            return Ok(None);
        }
        let reply = self.success(doing, zone, reply)?;
        operation(&reply).map(Some)
    }

    /// Waits until an operation has succeeded.
    pub fn wait(
        &self,
        zone: &str,
        begun: Operation,
        what: &str,
        polling: Polling,
    ) -> Result<Operation> {
        let began = (self.clock)();
        let mut operation = begun;
        let mut failures = 0;
        let mut waited = Duration::ZERO;
        loop {
            match operation.state.as_str() {
                "success" => return Ok(operation),
                "failure" | "timeout" => {
                    let said: Vec<&str> = [&operation.reason, &operation.message]
                        .into_iter()
                        .flatten()
                        .map(String::as_str)
                        .collect();
                    let said = words(&said.join(": "));
                    let text = format!("cannot {what}: Exoscale says {}: {said}", operation.state);
                    return Err(Error::new(ErrorKind::Io, text).with_remedy(
                        "the image is still in the object store: run the same command again",
                    ));
                }
                _ => {}
            }
            let elapsed = Duration::from_secs((self.clock)().saturating_sub(began)).max(waited);
            if elapsed >= polling.timeout {
                let text = format!(
                    "cannot {what}: it takes longer than {} s",
                    polling.timeout.as_secs()
                );
                return Err(Error::new(ErrorKind::TimedOut, text).with_remedy(
                    "it may go on: the same command looks at it again; --timeout gives it longer",
                ));
            }
            // For ten pauses the same, then longer and longer, as the vendor's own client.
            let steps = (waited.as_millis() / polling.pause.as_millis().max(1)).saturating_sub(10);
            let factor = 1 + u32::try_from(steps.min(290)).unwrap_or(290) * 19 / 290;
            let pause = polling.pause.saturating_mul(factor);
            self.courier.work.pause(pause)?;
            waited = waited.saturating_add(pause);
            match self.operation(zone, &operation.id) {
                Ok(Some(now)) => {
                    failures = 0;
                    operation = now;
                }
                Ok(None) => {
                    let text = format!(
                        "cannot {what}: Exoscale has forgotten the operation {}",
                        operation.id
                    );
                    return Err(
                        Error::new(ErrorKind::Io, text).with_remedy("run the same command again")
                    );
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    failures += 1;
                    if failures >= MOST_FAILURES {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What is at `path`, if something is.
    pub fn found<T: for<'de> Deserialize<'de>>(
        &self,
        zone: &str,
        doing: &str,
        what: &str,
        path: &str,
    ) -> Result<Option<T>> {
        let reply = self.call(zone, doing, "GET", path, &[], "")?;
        if reply.status == 404 {
            return Ok(None);
        }
        let reply = self.success(doing, zone, reply)?;
        read(what, &reply).map(Some)
    }

    /// Begins something.
    pub fn begin(
        &self,
        zone: &str,
        doing: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Operation> {
        let reply = self.call(zone, doing, method, path, &[], body)?;
        let reply = self.success(doing, zone, reply)?;
        operation(&reply)
    }

    /// Begins to remove what is at `path`, if something is.
    pub fn delete(&self, zone: &str, doing: &str, path: &str) -> Result<Option<Operation>> {
        let reply = self.call(zone, doing, "DELETE", path, &[], "")?;
        if reply.status == 404 {
            return Ok(None);
        }
        let reply = self.success(doing, zone, reply)?;
        operation(&reply).map(Some)
    }

    fn call(
        &self,
        zone: &str,
        doing: &str,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply> {
        let base = self.account.base(zone);
        // What stands behind the host is signed as it is sent.
        let host = base
            .split_once("://")
            .map_or(base.as_str(), |(_, rest)| rest);
        let before = host
            .find('/')
            .and_then(|at| host.get(at..))
            .unwrap_or_default();
        let path_sent = format!("{before}{path}");
        let pairs: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let question = if pairs.is_empty() { "" } else { "?" };
        let url = format!("{base}{path}{question}{}", pairs.join("&"));
        let expires = (self.clock)().saturating_add(HOLDS);
        let account = self.account;
        let signed = authorization(
            &account.key,
            &account.secret,
            method,
            &path_sent,
            query,
            body,
            expires,
        );
        let mut headers = vec![
            ("authorization", signed),
            ("accept", "application/json".to_owned()),
        ];
        let payload = if body.is_empty() {
            Payload::Empty
        } else {
            headers.push(("content-type", "application/json".to_owned()));
            Payload::Bytes(body.as_bytes())
        };
        let ask = Ask {
            headers: &headers,
            payload,
            ..Ask::new(doing, method)
        };
        match method {
            "POST" => self.courier.ask_once(&url, &ask),
            _ => self.courier.ask(&|| url.clone(), &ask),
        }
    }

    fn success(&self, doing: &str, zone: &str, reply: Reply) -> Result<Reply> {
        if reply.is_success() {
            return Ok(reply);
        }
        let said: Option<Said> = serde_json::from_slice(&reply.body).ok();
        let said = said
            .and_then(|said| said.message.or(said.error))
            .unwrap_or_default();
        let colon = if said.is_empty() { "" } else { ": " };
        let text = format!(
            "cannot {doing} {} ({zone}): Exoscale says {}{colon}{}",
            self.account.environment,
            reply.status,
            words(&said)
        );
        let error = Error::new(ErrorKind::Io, text);
        Err(match reply.status {
            401 | 403 => error.with_remedy(
                "check the key, its secret and what its role may do: EXOSCALE_API_KEY, EXOSCALE_API_SECRET",
            ),
            404 => error.with_remedy("check the zone, and the environment"),
            _ => error,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    message: Option<String>,
    error: Option<String>,
}

fn operation(reply: &Reply) -> Result<Operation> {
    let operation: Operation = read("operation", reply)?;
    if !is_id(&operation.id) {
        return Err(Error::new(
            ErrorKind::Io,
            "the answer is an operation without an id",
        ));
    }
    Ok(operation)
}

fn read<T: for<'de> Deserialize<'de>>(what: &str, reply: &Reply) -> Result<T> {
    serde_json::from_slice(&reply.body).map_err(|error| {
        Error::new(ErrorKind::Io, format!("the answer is no {what}")).with_source(error)
    })
}

/// Reads bytes as every kind of answer.
#[cfg(fuzzing)]
pub fn read_all(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Templates>(bytes);
    let _ = serde_json::from_slice::<Said>(bytes);
    super::instance::read_all(bytes);
    if let Ok(operation) = serde_json::from_slice::<Operation>(bytes) {
        assert!(operation.reference_id().is_none_or(|id| !id.contains('/')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_environments_have_endpoints_of_their_own() {
        let mut account = Account {
            key: "EXO1".into(),
            secret: "hidden".into(),
            environment: "ppapi".into(),
            endpoint: None,
        };
        assert_eq!(
            account.base("ch-gva-2"),
            "https://ppapi-ch-gva-2.exoscale.com"
        );
        account.endpoint = Some("http://127.0.0.1:1/{zone}/v2/".into());
        assert_eq!(account.base("ch-gva-2"), "http://127.0.0.1:1/ch-gva-2");
        assert!(!format!("{account:?}").contains("hidden"));
    }

    #[test]
    fn answers_with_fields_that_are_not_known_are_read() {
        let text = r#"{"templates":[{"id":"a-1","name":"n","zones":["x"],"checksum":"c","family":"f","boot-mode":"uefi"},{}]}"#;
        let list: Templates = serde_json::from_str(text).unwrap();
        assert_eq!(
            list.templates[0].registration.boot_mode.as_deref(),
            Some("uefi")
        );
        let text = r#"{"id":"o","state":"success","reference":{"id":"../x"}}"#;
        let operation: Operation = serde_json::from_str(text).unwrap();
        assert_eq!(operation.reference_id(), None);
    }
}
