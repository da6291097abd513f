//! Instances for a test: made of a template with a key and a security group of their own, and destroyed with both.
//!
//! Knows the order of these steps, and how all that a test has made is found again: it has one name. Must not know what is
//! tested.
//!
//! An instance costs money for as long as it is there. Its name is written down before it is asked for, so that the next
//! test destroys what one left that was killed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Api, Loose, Operation, Template, is_id};
use super::{Account, Means, Polling, api};
use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::publish::attend::{Event, Work, attended};
use crate::publish::courier::Courier;
use crate::seed::base64;
use crate::store::{
    Attempt, Hold, Share, make_private_directory, names_in, read_file, remove_file, write_file,
};

/// What all names begin with.
const PREFIX: &str = "qimg-test-";

/// Bytes of user-data that the service takes.
const LONGEST_USER_DATA: usize = 32 << 10;

/// GiB of the smallest disk.
const LEAST_DISK: u64 = 10;

/// Bytes of a note of ours.
const LONGEST_NOTE: u64 = 4 << 10;

/// What an instance is to be.
#[derive(Debug, Clone)]
pub struct InstanceRequest {
    /// Who asks.
    pub account: Account,
    /// Where.
    pub zone: String,
    /// Id of the template.
    pub template: String,
    /// `family.size`, as `standard.small`, or an id.
    pub instance_type: String,
    /// In GiB; `None`: as large as the template, at least 10.
    pub disk_gib: Option<u64>,
    /// Names or ids of groups that are there; none: one is made, which lets nothing in but SSH.
    pub security_groups: Vec<String>,
    /// The port of SSH.
    pub port: u16,
    /// Eight characters or more that no other test has: part of the name.
    pub token: String,
    /// Of the key that logs in, in OpenSSH's one line.
    pub public_key: String,
    /// Whether the cloud puts that key in; the guest's user-data may do that instead.
    pub key_by_cloud: bool,
    /// What the guest is told.
    pub user_data: Vec<u8>,
    /// How operations are waited for.
    pub polling: Polling,
    /// Where names of instances are written down.
    pub journal: Option<PathBuf>,
}

/// A template as it is, before an instance is made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Who logs in, as the template says.
    pub default_user: Option<String>,
    /// Whether the cloud puts a key in.
    pub takes_key: bool,
    /// Whether the cloud makes a password.
    pub has_password: bool,
    /// `legacy` or `uefi`.
    pub boot_mode: Option<String>,
    /// Bytes of its disk.
    pub size: Option<u64>,
}

impl From<Loose> for Known {
    fn from(known: Loose) -> Self {
        Self {
            default_user: known.default_user.filter(|user| !user.is_empty()),
            takes_key: known.ssh_key_enabled.unwrap_or(true),
            has_password: known.password_enabled.unwrap_or(false),
            boot_mode: known.boot_mode,
            size: known.size,
        }
    }
}

/// An instance that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: String,
    /// Where it answers.
    pub address: IpAddr,
    /// GiB of its disk.
    pub disk_gib: u64,
}

/// All that one test has in the cloud, which has one name. It is there until [`Rented::give_back`].
#[derive(Debug)]
pub struct Rented {
    /// The name.
    pub name: String,
    account: Account,
    zone: String,
    polling: Polling,
    note: Option<Note>,
}

/// A note of a name, held by whoever uses it.
#[derive(Debug)]
struct Note {
    path: PathBuf,
    hold: Hold,
}

/// What a note says. No secret is in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    name: String,
    zone: String,
    environment: String,
    key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Instance {
    id: String,
    name: Option<String>,
    state: Option<String>,
    public_ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Instances {
    instances: Vec<Instance>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InstanceType {
    id: String,
    family: String,
    size: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct InstanceTypes {
    instance_types: Vec<InstanceType>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    id: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Groups {
    security_groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Password {
    password: Option<String>,
}

/// Reads a template.
///
/// # Errors
/// There is no such template in this zone; the service refuses or does not answer; cancelled.
pub fn look_at_template(
    account: &Account,
    zone: &str,
    id: &str,
    means: &Means<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Known> {
    if !is_id(id) {
        return Err(Error::usage(format!("'{id}' is no template's id")));
    }
    if zone.is_empty() || !is_id(zone) {
        return Err(Error::usage(format!("'{zone}' is no zone")).with_remedy("name one: ch-gva-2"));
    }
    attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(account, &courier, means);
        let found: Option<Template> = api.template(zone, id)?;
        let template = found.ok_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!(
                    "there is no template {id} in {zone} of {}",
                    account.environment
                ),
            )
            .with_remedy("check the id, the environment and the zone: --environment, --zone")
        })?;
        Ok(Known::from(template.registration))
    })
}

/// Writes down the name of what is going to be made; nothing is made yet.
///
/// # Errors
/// The host's own.
pub fn rent(request: &InstanceRequest) -> Result<Rented> {
    let name = format!("{PREFIX}{}", request.token);
    if !is_id(&name) {
        return Err(Error::usage(format!("'{name}' is no name for an instance")));
    }
    let note = match &request.journal {
        Some(journal) => Some(Note::write(
            &directory(journal),
            &Noted {
                name: name.clone(),
                zone: request.zone.clone(),
                environment: request.account.environment.clone(),
                key: request.account.key.clone(),
            },
        )?),
        None => None,
    };
    Ok(Rented {
        name,
        account: request.account.clone(),
        zone: request.zone.clone(),
        polling: request.polling,
        note,
    })
}

impl Note {
    fn write(directory: &Path, noted: &Noted) -> Result<Self> {
        make_private_directory(directory)?;
        let lock = directory.join(format!("{}.lock", noted.name));
        let hold = match Hold::attempt(&lock, Share::Alone)? {
            Attempt::Held(hold) => hold,
            Attempt::Busy { .. } => {
                return Err(Error::usage("another test has this name").at_path(&lock));
            }
        };
        let path = directory.join(&noted.name);
        let text = serde_json::to_vec(noted).unwrap_or_default();
        write_file(&path, &text)?;
        Ok(Self { path, hold })
    }

    fn forget(self) -> Result<()> {
        remove_file(&self.path)?;
        self.hold.remove()
    }
}

fn directory(journal: &Path) -> PathBuf {
    journal.join("instances")
}

/// Makes the instance, and waits until it has an address.
///
/// # Errors
/// There is no such type or group; the service refuses or does not answer; cancelled. What was made until then is there
/// until [`Rented::give_back`].
pub fn launch(
    request: &InstanceRequest,
    known: &Known,
    rented: &Rented,
    means: &Means<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Running> {
    if request.user_data.len() > LONGEST_USER_DATA {
        return Err(Error::unsupported(format!(
            "the user-data has {} bytes, and Exoscale takes {LONGEST_USER_DATA}",
            request.user_data.len()
        ))
        .with_remedy("make it shorter"));
    }
    let disk_gib = request
        .disk_gib
        .unwrap_or_else(|| known.size.unwrap_or(0).div_ceil(1 << 30).max(LEAST_DISK));
    attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(&request.account, &courier, means);
        let making = Making {
            api: &api,
            request,
            name: &rented.name,
            work,
        };
        let instance_type = making.instance_type()?;
        let groups = making.groups()?;
        if request.key_by_cloud {
            let body = json!({"name": rented.name, "public-key": request.public_key});
            making.make("register a key", "POST", "/v2/ssh-key", &body)?;
        }
        let groups: Vec<Value> = groups.iter().map(|id| json!({ "id": id })).collect();
        let mut body = json!({
            "name": rented.name,
            "template": {"id": request.template},
            "instance-type": {"id": instance_type},
            "disk-size": disk_gib,
            "security-groups": groups,
            "public-ip-assignment": "inet4",
            "user-data": base64::encode(&request.user_data),
        });
        if request.key_by_cloud
            && let Some(fields) = body.as_object_mut()
        {
            fields.insert("ssh-keys".to_owned(), json!([{"name": rented.name}]));
        }
        let what = format!("make instance {} in {}", rented.name, request.zone);
        let id = making.make(&what, "POST", "/v2/instance", &body)?;
        let id = id.ok_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!("cannot {what}: Exoscale does not say its id"),
            )
        })?;
        let address = making.address(&id)?;
        Ok(Running {
            id,
            address,
            disk_gib,
        })
    })
}

/// The password that the cloud has made, if it has.
///
/// # Errors
/// As [`launch`].
pub fn password(
    request: &InstanceRequest,
    id: &str,
    means: &Means<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Option<String>> {
    attended(means.stop, tell, |work| {
        let courier = Courier::new(means.http, work)?;
        let api = api(&request.account, &courier, means);
        let found: Option<Password> = api.found(
            &request.zone,
            "look at a password at",
            "password",
            &format!("/v2/instance/{id}:password"),
        )?;
        let password = found.and_then(|found| found.password);
        Ok(password.filter(|password| !password.is_empty()))
    })
}

impl Rented {
    /// Destroys the instance, its key and its group, as far as they are there. Nothing stops it.
    ///
    /// # Errors
    /// The service refuses or does not answer: something may be left, and the next test tries again.
    pub fn give_back(self, means: &Means<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        let never: &Stop = &|| false;
        let done = attended(never, tell, |work| {
            let courier = Courier::new(means.http, work)?;
            let api = api(&self.account, &courier, means);
            destroy(&api, &self.zone, &self.name, self.polling, work)
        });
        if let Err(error) = done {
            let name = &self.name;
            let text = format!("{name} may still be there, and cost money: {error}");
            return Err(Error::new(error.kind(), text).with_remedy(format!(
                "the next test tries again; or: exo compute instance delete {name} -z {}",
                self.zone
            )));
        }
        self.note.map_or(Ok(()), Note::forget)
    }
}

/// Destroys what tests have left that were killed; how many there were. What another key has made stays.
///
/// # Errors
/// The host's own; the service refuses or does not answer.
pub fn sweep(
    account: &Account,
    journal: &Path,
    polling: Polling,
    means: &Means<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<usize> {
    let mut swept = 0;
    for path in names_in(directory(journal))? {
        let is_note = path.extension().is_none();
        let Some(noted) = is_note.then(|| read(&path)).flatten() else {
            continue;
        };
        if (&noted.environment, &noted.key) != (&account.environment, &account.key) {
            continue;
        }
        let Attempt::Held(hold) = Hold::attempt(path.with_extension("lock"), Share::Alone)? else {
            continue;
        };
        // Its test may have ended well meanwhile.
        if read(&path).is_none() {
            hold.remove()?;
            continue;
        }
        tell(Event::Note(format!(
            "{} is left of a test that was killed: it is destroyed",
            noted.name
        )));
        let left = Rented {
            name: noted.name,
            account: account.clone(),
            zone: noted.zone,
            polling,
            note: Some(Note { path, hold }),
        };
        left.give_back(means, tell)?;
        swept += 1;
    }
    Ok(swept)
}

/// A note, as far as it is one of ours.
fn read(path: &Path) -> Option<Noted> {
    let noted: Noted = serde_json::from_slice(&read_file(path, LONGEST_NOTE).ok()?).ok()?;
    let ours = noted.name.starts_with(PREFIX) && is_id(&noted.name) && is_id(&noted.zone);
    (ours && path.file_name()?.to_str()? == noted.name).then_some(noted)
}

/// Destroys all that has the name.
fn destroy(api: &Api<'_>, zone: &str, name: &str, polling: Polling, work: &Work) -> Result<()> {
    work.begin(format!("destroy {name}"), 0);
    let wait = |begun: Option<Operation>, what: &str| match begun {
        Some(begun) => api
            .wait(zone, begun, &format!("destroy {what} {name}"), polling)
            .map(drop),
        None => Ok(()),
    };
    let listed: Option<Instances> = api.found(zone, "list instances at", "list", "/v2/instance")?;
    let listed = listed.unwrap_or_default();
    let is_gone = |state: Option<&str>| matches!(state, Some("destroyed" | "expunging"));
    for instance in { listed.instances.iter() }
        .filter(|one| one.name.as_deref() == Some(name) && is_id(&one.id))
        .filter(|one| !is_gone(one.state.as_deref()))
    {
        let path = format!("/v2/instance/{}", instance.id);
        wait(
            api.delete(zone, "destroy an instance at", &path)?,
            "instance",
        )?;
    }
    let path = format!("/v2/ssh-key/{name}");
    wait(api.delete(zone, "remove a key at", &path)?, "key")?;
    let listed: Option<Groups> = api.found(zone, "list groups at", "list", "/v2/security-group")?;
    let listed = listed.unwrap_or_default();
    for group in
        { listed.security_groups.iter() }.filter(|group| group.name == name && is_id(&group.id))
    {
        let path = format!("/v2/security-group/{}", group.id);
        wait(api.delete(zone, "remove a group at", &path)?, "group")?;
    }
    Ok(())
}

/// The steps that make an instance.
struct Making<'a> {
    api: &'a Api<'a>,
    request: &'a InstanceRequest,
    name: &'a str,
    work: &'a Work,
}

impl Making<'_> {
    /// Asks for something, and waits until it is there; its id.
    fn make(&self, what: &str, method: &str, path: &str, body: &Value) -> Result<Option<String>> {
        self.work.begin(what.to_owned(), 0);
        let (zone, polling) = (&self.request.zone, self.request.polling);
        let begun = self
            .api
            .begin(zone, &format!("{what} at"), method, path, &body.to_string())?;
        let done = self.api.wait(zone, begun, what, polling)?;
        Ok(done.reference_id().map(str::to_owned))
    }

    fn list<T: for<'de> Deserialize<'de> + Default>(&self, what: &str, path: &str) -> Result<T> {
        let doing = format!("list {what} at");
        let found = self.api.found(&self.request.zone, &doing, "list", path)?;
        Ok(found.unwrap_or_default())
    }

    fn instance_type(&self) -> Result<String> {
        let wanted = self.request.instance_type.to_ascii_lowercase();
        let types: InstanceTypes = self.list("types of instances", "/v2/instance-type")?;
        let named = |one: &InstanceType| format!("{}.{}", one.family, one.size);
        let found = types
            .instance_types
            .iter()
            .find(|one| one.id == wanted || named(one) == wanted)
            .filter(|one| is_id(&one.id));
        found.map(|one| one.id.clone()).ok_or_else(|| {
            let standard: Vec<String> = { types.instance_types.iter() }
                .filter(|one| one.family == "standard")
                .map(named)
                .collect();
            Error::usage(format!("there is no type of instance '{wanted}'"))
                .with_remedy(format!("there are {}, and others", standard.join(", ")))
        })
    }

    /// Ids of groups: those that are named, or one that is made.
    fn groups(&self) -> Result<Vec<String>> {
        if self.request.security_groups.is_empty() {
            let body = json!({
                "name": self.name,
                "description": "SSH for a test by qimg, which destroys it",
            });
            let made = self.make("make a security group", "POST", "/v2/security-group", &body)?;
            let id = made.ok_or_else(|| {
                Error::new(
                    ErrorKind::Io,
                    "Exoscale does not say the id of a security group",
                )
            })?;
            let port = self.request.port;
            let rule = json!({
                "flow-direction": "ingress", "protocol": "tcp", "start-port": port, "end-port": port,
                "network": "0.0.0.0/0",
            });
            let path = format!("/v2/security-group/{id}/rules");
            self.make("let SSH in", "POST", &path, &rule)?;
            return Ok(vec![id]);
        }
        let there: Groups = self.list("security groups", "/v2/security-group")?;
        { self.request.security_groups.iter() }
            .map(|wanted| {
                let found = { there.security_groups.iter() }
                    .find(|group| group.id == *wanted || group.name == *wanted)
                    .filter(|group| is_id(&group.id));
                found.map(|group| group.id.clone()).ok_or_else(|| {
                    Error::usage(format!("there is no security group '{wanted}'"))
                        .with_remedy("name one that is there, or none: one is made for the test")
                })
            })
            .collect()
    }

    /// Looks at the instance until it has an address.
    fn address(&self, id: &str) -> Result<IpAddr> {
        let (zone, polling) = (&self.request.zone, self.request.polling);
        let began = (self.api.clock)();
        loop {
            let found: Option<Instance> = self.api.found(
                zone,
                "look at an instance at",
                "instance",
                &format!("/v2/instance/{id}"),
            )?;
            let found = found.unwrap_or_default();
            match found.public_ip.as_deref().map(str::parse) {
                Some(Ok(address)) => return Ok(address),
                Some(Err(_)) => {
                    let text = format!("instance {id} has an address that is none");
                    return Err(Error::new(ErrorKind::Io, text));
                }
                None => {}
            }
            let state = found.state.unwrap_or_default();
            let waited = (self.api.clock)().saturating_sub(began);
            if ["error", "destroyed", "destroying", "expunging"].contains(&&*state)
                || waited >= polling.timeout.as_secs()
            {
                let text = format!("instance {id} has no address, and its state is '{state}'");
                return Err(Error::new(ErrorKind::Io, text));
            }
            self.work.pause(polling.pause)?;
        }
    }
}

/// Reads bytes as every kind of answer.
#[cfg(fuzzing)]
pub(super) fn read_all(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Instances>(bytes);
    let _ = serde_json::from_slice::<InstanceTypes>(bytes);
    let _ = serde_json::from_slice::<Groups>(bytes);
    let _ = serde_json::from_slice::<Password>(bytes);
    let _ = serde_json::from_slice::<Noted>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(name: &str) -> Noted {
        Noted {
            name: name.to_owned(),
            zone: "ch-gva-2".to_owned(),
            environment: "api".to_owned(),
            key: "EXO1".to_owned(),
        }
    }

    #[test]
    fn a_note_is_read_under_its_own_name_alone() {
        let directory = tempfile::tempdir().unwrap();
        let note = Note::write(directory.path(), &noted("qimg-test-0011aabb")).unwrap();
        assert_eq!(read(&note.path), Some(noted("qimg-test-0011aabb")));
        let other = directory.path().join("qimg-test-2");
        std::fs::copy(&note.path, &other).unwrap();
        assert_eq!(read(&other), None);
        for foreign in ["web-1", "qimg-test-/../x", "qimg-test-a b"] {
            let path = directory.path().join("x");
            std::fs::write(&path, serde_json::to_vec(&noted(foreign)).unwrap()).unwrap();
            assert_eq!(read(&path), None, "{foreign}");
        }
        let held = Hold::attempt(note.path.with_extension("lock"), Share::Alone).unwrap();
        assert!(matches!(held, Attempt::Busy { .. }));
        let path = note.path.clone();
        note.forget().unwrap();
        assert!(!path.exists() && !path.with_extension("lock").exists());
    }

    #[test]
    fn answers_with_fields_that_are_not_known_are_read() {
        let text = r#"{"instances":[{"id":"a","name":"n","state":"running","labels":{}},{}]}"#;
        let list: Instances = serde_json::from_str(text).unwrap();
        assert_eq!(list.instances[0].name.as_deref(), Some("n"));
        let text = r#"{"instance-types":[{"id":"t","family":"standard","size":"small","cpus":2}]}"#;
        let list: InstanceTypes = serde_json::from_str(text).unwrap();
        assert_eq!(list.instance_types[0].size, "small");
    }
}
