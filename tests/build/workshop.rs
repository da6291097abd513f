//! A directory in which `qimg build` runs: templates that start the small guest, the builds, and what they leave.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far more than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Where the small guest's files are; made once by tests/guest/small-guest.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || {
            let home = PathBuf::from(std::env::var_os("HOME").expect("there is a home"));
            home.join(".cache/qimg-tests")
        },
        PathBuf::from,
    );
    let kernel = cache.join("small/vmlinux");
    assert!(
        kernel.is_file(),
        "{kernel:?} is missing; tests/guest/small-guest makes it"
    );
    cache
}

/// Whether there is time for what another test shows nearly as well.
pub fn is_nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

/// The disk image that all builds start from.
pub fn base() -> String {
    cache().join("small.qcow2").to_str().unwrap().to_owned()
}

/// `qemuargs` as JSON (which is TOML, too) that boot the small guest from its disk without a boot loader, with
/// `told` on its kernel's command line.
pub fn boots(told: &str) -> String {
    let small = cache().join("small");
    let append = std::fs::read_to_string(small.join("append")).unwrap();
    let path = |name: &str| small.join(name).to_str().unwrap().to_owned();
    serde_json::to_string(&[
        ["-kernel".to_owned(), path("vmlinux")],
        ["-initrd".to_owned(), path("initrd")],
        [
            "-append".to_owned(),
            format!("{} root=/dev/vda1 {told}", append.trim()),
        ],
    ])
    .unwrap()
}

/// A TOML template; what is empty is left out.
#[derive(Debug, Clone, Default)]
pub struct Native {
    /// Words for the guest's kernel.
    pub told: String,
    /// Lines before the first table.
    pub top: String,
    /// Lines of `[ssh]`; the user is root where there are none.
    pub ssh: String,
    /// Lines of `[base]`, instead of the small guest's image.
    pub base: String,
    /// Lines of `[output]` besides the directory.
    pub output: String,
    /// Whole tables.
    pub rest: String,
    /// The usual steps of sealing are taken.
    pub seal: bool,
    /// A machine with nothing on its disk that nobody enters.
    pub quick: bool,
}

impl Native {
    pub fn with(rest: &str) -> Self {
        Self {
            rest: rest.to_owned(),
            ..Self::default()
        }
    }

    pub fn told(mut self, words: &str) -> Self {
        words.clone_into(&mut self.told);
        self
    }

    pub fn ssh(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.ssh);
        self
    }

    /// A build without a guest, for what happens on the host alone: a second or two.
    pub fn quick(rest: &str) -> Self {
        Self {
            quick: true,
            ..Self::with(rest)
        }
    }

    pub fn text(&self) -> String {
        if self.quick {
            return format!(
                "{}\n[base]\nimage = \"quick.qcow2\"\n[machine]\naccelerator = \"tcg\"\nmemory = \"64M\"\n\
                 [ssh]\ncommunicator = \"none\"\n[shutdown]\ntimeout = \"100ms\"\n\
                 [output]\ndirectory = \"output\"\nname = \"disk.qcow2\"\n{}\n{}",
                self.top, self.output, self.rest
            );
        }
        let mut text = self.top.clone();
        let or = |text: &str, other: String| match text {
            "" => other,
            text => text.to_owned(),
        };
        let _ = write!(
            text,
            "\n[base]\n{}\n[machine]\naccelerator = \"tcg\"\nmemory = \"256M\"\ncpus = 1\nqemu-args = {}\n",
            or(&self.base, format!("image = {:?}", base())),
            boots(&self.told)
        );
        let _ = write!(
            text,
            "\n[ssh]\n{}\n[output]\ndirectory = \"output\"\nname = \"disk.qcow2\"\n{}\n",
            or(&self.ssh, "username = \"root\"".to_owned()),
            self.output
        );
        if !self.seal {
            text.push_str("\n[seal]\nenabled = false\n");
        }
        text.push_str(&self.rest);
        text
    }
}

/// How a build ended.
#[derive(Debug)]
pub struct Ended {
    /// As a shell has it: 128 and more is a signal.
    pub code: i32,
    /// Standard output and standard error, as they came.
    pub said: String,
    pub took: Duration,
}

impl Ended {
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.said);
        self
    }

    /// It failed with this code and said all of `words`.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.said);
        for words in words {
            self.has(words);
        }
        self
    }

    #[track_caller]
    pub fn has(&self, words: &str) -> &Self {
        assert!(
            self.said.contains(words),
            "not said: {words}\n{}",
            self.said
        );
        self
    }

    #[track_caller]
    pub fn has_not(&self, words: &str) -> &Self {
        assert!(!self.said.contains(words), "said: {words}\n{}", self.said);
        self
    }
}

pub struct Workshop {
    top: tempfile::TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        let top = tempfile::Builder::new().prefix("build-").tempdir().unwrap();
        for name in ["here", "home", "tmp", "bin", "state", "cache"] {
            std::fs::create_dir(top.path().join(name)).unwrap();
        }
        Self { top }
    }

    /// A path in the directory where builds run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join("here").join(name)
    }

    /// A path beside that directory: `home`, `tmp`, `bin`, `state`, `cache`.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A program on the PATH of builds.
    pub fn program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.top.path().join("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// `qimg` in this directory, with nothing of the environment but what a build needs.
    pub fn qimg(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qimg"));
        let path = format!(
            "{}:{}",
            self.beside("bin").display(),
            std::env::var("PATH").unwrap()
        );
        command
            .args(args)
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.beside("home"))
            .env("TMPDIR", self.beside("tmp"))
            .env("XDG_STATE_HOME", self.beside("state"))
            .env("QIMG_CACHE", self.beside("cache"))
            .stdin(Stdio::null());
        command
    }

    /// Starts `qimg build` with these arguments and `build.toml` as its template.
    pub fn start(&self, template: &Native, args: &[&str]) -> Building {
        if template.quick && !self.path("quick.qcow2").exists() {
            self.make_quick();
        }
        self.write("build.toml", &template.text());
        self.start_file("build.toml", args)
    }

    pub fn start_file(&self, template: &str, args: &[&str]) -> Building {
        let mut all = vec!["build"];
        all.extend(args);
        all.push(template);
        Building::of(self.qimg(&all))
    }

    /// Runs a build to its end.
    pub fn build(&self, template: &Native, args: &[&str]) -> Ended {
        self.start(template, args).end()
    }

    /// The base of quick builds.
    pub fn make_quick(&self) {
        let status = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(self.path("quick.qcow2"))
            .arg("1M")
            .status();
        assert!(status.unwrap().success());
    }

    /// A file in an image, read without the guest.
    pub fn cat(&self, image: &str, path: &str) -> Option<String> {
        let output = self
            .qimg(&["cat", &format!("{image}:{path}")])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || error.contains(&format!("has no '{path}'")),
            "{error}"
        );
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// All files below the directory where builds run, but for those that tests write into it.
    pub fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        below(&self.path(""), &mut |path| {
            let name = path.strip_prefix(self.path("")).unwrap();
            found.insert(name.to_str().unwrap().to_owned());
        });
        found
    }

    /// Directories of runs.
    pub fn runs(&self) -> Vec<PathBuf> {
        let runs = self.beside("state").join("qimg/runs");
        let Ok(entries) = std::fs::read_dir(runs) else {
            return Vec::new();
        };
        let mut runs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs
    }

    /// No process, no lock, no temporary file and no key of any build is left.
    #[track_caller]
    pub fn assert_tidy(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        let mut left = Vec::new();
        below(&self.beside("tmp"), &mut |path| left.push(path.to_owned()));
        below(&self.path(""), &mut |path| {
            let name = path.strip_prefix(self.path("")).unwrap();
            let ours = |part: &std::ffi::OsStr| part.to_str().unwrap().contains("qimg-");
            if name.iter().any(ours) && !name.ends_with("qimg-manifest.json") {
                left.push(path.to_owned());
            }
        });
        below(&self.beside("state"), &mut |path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !["console.log", "qemu.log", "screen.png"].contains(&name) {
                left.push(path.to_owned());
            }
        });
        assert_eq!(left, Vec::<PathBuf>::new());
    }

    /// Command lines of processes that have to do with this directory.
    pub fn processes(&self) -> Vec<String> {
        let top = self.top.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            if let Ok(words) = std::fs::read(entry.path().join("cmdline")) {
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                if words.contains(top) {
                    found.push(words);
                }
            }
        }
        found
    }

    /// Numbers of the QEMUs that run here.
    pub fn qemus(&self) -> Vec<i32> {
        let top = self.top.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(words) = std::fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let words = String::from_utf8_lossy(&words).into_owned();
            let program = words.split('\0').next().unwrap_or_default();
            if program.contains("qemu-system") && words.contains(top) {
                found.push(entry.file_name().to_str().unwrap().parse().unwrap());
            }
        }
        found
    }

    /// Waits until nothing of a build runs any more.
    #[track_caller]
    pub fn wait_until_no_qemu(&self, within: Duration) {
        let started = Instant::now();
        while !self.qemus().is_empty() {
            assert!(started.elapsed() < within, "{:?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn below(directory: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            below(&path, each);
        } else {
            each(&path);
        }
    }
}

/// A build under way.
pub struct Building {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
}

impl Building {
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let follow = |stream: Box<dyn Read + Send>| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut piece = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    let text = String::from_utf8_lossy(&piece[..length]).into_owned();
                    said.lock().unwrap().push_str(&text);
                }
            })
        };
        let readers = vec![
            follow(Box::new(child.stdout.take().unwrap())),
            follow(Box::new(child.stderr.take().unwrap())),
        ];
        Self {
            child,
            said,
            readers,
            started: Instant::now(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said `words`.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        let started = Instant::now();
        while !self.said().contains(words) {
            if self.child.try_wait().unwrap().is_some() {
                std::thread::sleep(Duration::from_millis(100));
                assert!(self.said().contains(words), "{words}\n{}", self.said());
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{words}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id().cast_signed(), name);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("it does not end: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = self.started.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            said: self.said(),
            took,
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // Where a test has failed; QEMU goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(id: i32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status();
    assert!(status.unwrap().success());
}
