//! What the script in the guest says it did and what it left, as plain data.
//!
//! Knows the lines of the script. What comes from the guest is hostile: every text is cut, every list bounded, and what is no
//! line of the script is passed over.

use serde::Serialize;

/// What every line begins with.
const MARK: &str = "qimg-seal ";

/// Lines of one kind that are kept.
const MOST: usize = 500;

/// Characters of a text that are kept.
const LONGEST: usize = 1000;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Something was removed.
    Done,
    /// There was nothing to remove.
    Absent,
    /// It was left on purpose; the note says why.
    Kept,
    /// It could not be removed; the note says what.
    Failed,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub state: StepState,
    /// How much was removed, in whatever the step counts.
    pub count: u64,
    /// More about it, perhaps empty.
    pub note: String,
}

/// A key that lets somebody in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AuthorizedKey {
    /// Whom it lets in.
    pub user: String,
    /// The file it stands in.
    pub path: String,
    /// `ssh-ed25519`, ...
    pub kind: String,
    /// Its comment.
    pub comment: String,
}

/// A host key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostKey {
    /// Its file.
    pub path: String,
    /// As `ssh-keygen -l` shows it; empty where it cannot be told.
    pub fingerprint: String,
}

/// What the file of the machine's id holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum MachineId {
    /// It was not looked at.
    #[default]
    Unknown,
    /// There is no file.
    Absent,
    /// Nothing: the next start makes one.
    Empty,
    /// The word `uninitialized`: the next start is the first one.
    Uninitialized,
    /// An id, which all copies of the image will share.
    Set,
}

/// Whether one can log in by password over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordLogin {
    /// It could not be found out.
    #[default]
    Unknown,
    /// Yes.
    Yes,
    /// No.
    No,
}

/// A user who can log in by password, where passwords are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PasswordUser {
    /// Login name.
    pub user: String,
    /// The password is empty.
    pub empty: bool,
}

/// What a reader of the image finds of the machine it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub struct Remains {
    /// Keys that let somebody in.
    pub authorized_keys: Vec<AuthorizedKey>,
    /// Host keys, which all copies of the image will share.
    pub host_keys: Vec<HostKey>,
    /// The machine's id.
    pub machine_id: MachineId,
    /// Users with a password.
    pub password_users: Vec<PasswordUser>,
    /// Ids of the instances that cloud-init keeps data of.
    pub cloud_init_instances: Vec<String>,
    /// Whether SSH takes passwords.
    pub ssh_password_login: PasswordLogin,
}

/// What was done in the guest, and what is left there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub struct SealReport {
    /// The steps, in the order in which they were done.
    pub steps: Vec<StepReport>,
    /// What remains.
    pub remains: Remains,
    /// The script has come to its end.
    pub complete: bool,
    /// The shutdown command was begun.
    pub shutdown_begun: bool,
    /// Its exit code, where it ended before the connection did.
    pub shutdown_code: Option<i32>,
}

impl SealReport {
    /// Reads the lines of the script; everything else is passed over.
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            report.take(line);
        }
        report
    }

    /// Takes one line.
    pub fn take(&mut self, line: &str) {
        let Some(said) = line.strip_prefix(MARK) else {
            return;
        };
        match said.split_once(' ').unwrap_or((said, "")) {
            ("step", rest) => self.step(rest),
            ("remains", rest) => self.remains.take(rest),
            ("end", _) => self.complete = true,
            ("shutdown", _) => self.shutdown_begun = true,
            ("ended", code) => self.shutdown_code = code.trim().parse().ok(),
            _ => {}
        }
    }

    /// The steps that could not be done.
    pub fn failed(&self) -> impl Iterator<Item = &StepReport> {
        self.steps
            .iter()
            .filter(|step| step.state == StepState::Failed)
    }

    fn step(&mut self, rest: &str) {
        let mut words = rest.splitn(4, ' ');
        let (Some(name), Some(state), Some(count)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        let state = match state {
            "done" => StepState::Done,
            "absent" => StepState::Absent,
            "kept" => StepState::Kept,
            "failed" => StepState::Failed,
            _ => return,
        };
        push(
            &mut self.steps,
            StepReport {
                name: cut(name),
                state,
                count: count.parse().unwrap_or(0),
                note: cut(words.next().unwrap_or_default()),
            },
        );
    }
}

impl Remains {
    fn take(&mut self, rest: &str) {
        let mut fields = rest.splitn(5, '\t');
        let kind = fields.next().unwrap_or_default();
        let mut field = || cut(fields.next().unwrap_or_default());
        match kind {
            "authorized-key" => push(
                &mut self.authorized_keys,
                AuthorizedKey {
                    user: field(),
                    path: field(),
                    kind: field(),
                    comment: field(),
                },
            ),
            "host-key" => push(
                &mut self.host_keys,
                HostKey {
                    path: field(),
                    fingerprint: field(),
                },
            ),
            "machine-id" => {
                self.machine_id = match field().as_str() {
                    "absent" => MachineId::Absent,
                    "empty" => MachineId::Empty,
                    "uninitialized" => MachineId::Uninitialized,
                    "set" => MachineId::Set,
                    _ => MachineId::Unknown,
                }
            }
            "password" => {
                let user = field();
                let empty = field() == "empty";
                push(&mut self.password_users, PasswordUser { user, empty });
            }
            "cloud-init" => push(&mut self.cloud_init_instances, field()),
            "ssh-password-login" => {
                self.ssh_password_login = match field().as_str() {
                    "yes" => PasswordLogin::Yes,
                    "no" => PasswordLogin::No,
                    _ => PasswordLogin::Unknown,
                }
            }
            _ => {}
        }
    }
}

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() < MOST {
        list.push(item);
    }
}

fn cut(text: &str) -> String {
    let shown = text.trim().chars().filter(|c| !c.is_control());
    shown.take(LONGEST).collect()
}
