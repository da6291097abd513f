//! A guest for tests: commands run by a shell of this host, files below a directory.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::build::local::{self, Ended, Program};
use crate::communicator::{Communicator, Exit, Lines};
use crate::error::{Error, ErrorKind, Result};

/// What the next call to [`LocalGuest::run`] comes to, instead of running anything.
pub(crate) type Instead = Result<Exit>;

pub(crate) struct LocalGuest {
    pub(crate) shell: Vec<&'static str>,
    /// Where it works: relative paths are below it.
    pub(crate) directory: PathBuf,
    pub(crate) path: String,
    /// Commands that were run, uploads as `upload PATH MODE`.
    pub(crate) calls: Mutex<Vec<String>>,
    /// What is written otherwise in commands.
    pub(crate) rewrite: Vec<(String, String)>,
    /// Answers to the first commands that hold the text.
    pub(crate) instead: Mutex<Vec<(&'static str, Instead)>>,
}

impl LocalGuest {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            shell: vec!["dash"],
            directory: directory.to_owned(),
            path: "/usr/bin:/bin:/usr/sbin:/sbin".to_owned(),
            calls: Mutex::new(Vec::new()),
            rewrite: Vec::new(),
            instead: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn with_shell(mut self, shell: &[&'static str]) -> Self {
        self.shell = shell.to_vec();
        self
    }

    pub(crate) fn answer(self, part: &'static str, instead: Instead) -> Self {
        self.instead.lock().unwrap().push((part, instead));
        self
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: &str) -> Option<Instead> {
        self.calls.lock().unwrap().push(call.to_owned());
        let mut instead = self.instead.lock().unwrap();
        let at = instead.iter().position(|(part, _)| call.contains(part))?;
        Some(instead.remove(at).1)
    }

    fn command(&self, command: &str) -> Command {
        let mut shell = Command::new(self.shell[0]);
        shell
            .args(&self.shell[1..])
            .args(["-c", command])
            .current_dir(&self.directory)
            .env_clear()
            .envs([("PATH", self.path.as_str()), ("HOME", "/nonexistent")]);
        shell
    }
}

fn exit(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(format!("{signal:?}")),
    }
}

impl Communicator for LocalGuest {
    fn run(&self, command: &str, timeout: Option<Duration>, lines: &mut Lines<'_>) -> Result<Exit> {
        if let Some(instead) = self.note(command) {
            return instead;
        }
        let mut command = command.to_owned();
        for (from, to) in &self.rewrite {
            command = command.replace(from, to);
        }
        let mut arguments: Vec<_> = self.shell[1..].iter().map(Into::into).collect();
        arguments.extend(["-c".into(), command.into()]);
        let program = Program {
            program: self.shell[0].into(),
            arguments,
            environment: vec![("PATH".into(), (&self.path).into())],
            directory: Some(self.directory.clone()),
            input: Vec::new(),
        };
        Ok(match local::run(&program, timeout, &|| false, lines)? {
            Ended::Code(code) => Exit::Code(code),
            Ended::Signal(signal) => Exit::Signal(signal.to_string()),
        })
    }

    fn pipe(
        &self,
        command: &str,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
        lines: &mut Lines<'_>,
    ) -> Result<Exit> {
        if let Some(instead) = self.note(command) {
            return instead;
        }
        let mut child = self
            .command(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let words = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut bytes = vec![0; 65536];
                while let Ok(length @ 1..) = input.read(&mut bytes) {
                    if stdin.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
            });
            let words = scope.spawn(move || {
                let mut text = Vec::new();
                stderr.read_to_end(&mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            });
            let copied = std::io::copy(&mut stdout, output);
            copied.map(|_| words.join().unwrap())
        });
        let status = child.wait().unwrap();
        let words = words.map_err(|error| Error::io("copy", error))?;
        words
            .lines()
            .for_each(|line| lines(crate::communicator::Stream::Err, line));
        Ok(exit(status))
    }

    fn upload(&self, from: &mut (dyn Read + Send), length: u64, to: &str, mode: u32) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        if let Some(instead) = self.note(&format!("upload {to} {mode:o}")) {
            return instead.map(drop);
        }
        let path = self.directory.join(to);
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)
            .map_err(|error| Error::io("read", error))?;
        assert_eq!(bytes.len() as u64, length);
        let refused =
            |error: std::io::Error| Error::new(ErrorKind::Guest, format!("refused: {error}"));
        std::fs::write(&path, bytes).map_err(refused)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(refused)
    }

    fn download(&self, from: &str, into: &mut (dyn Write + Send)) -> Result<()> {
        if let Some(instead) = self.note(&format!("download {from}")) {
            return instead.map(drop);
        }
        let bytes = std::fs::read(self.directory.join(from))
            .map_err(|error| Error::new(ErrorKind::Guest, format!("{from} refused: {error}")))?;
        into.write_all(&bytes)
            .map_err(|error| Error::io("write the file that is fetched", error))
    }

    fn disconnect(&self) {
        self.note("disconnect");
    }

    fn probe(&self, _timeout: Duration) -> Result<()> {
        self.note("probe")
            .map_or(Ok(()), |instead| instead.map(drop))
    }
}
