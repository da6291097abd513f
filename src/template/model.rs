//! What a build is, as plain data: the same for every dialect a template may be written in.
//!
//! Knows names, defaults that both dialects share, and which strings are filled in late. Must not know any
//! dialect's spelling, read a file, or run anything.

mod ansible;
mod publishing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use ansible::{Ansible, AnsibleLocal};
pub use publishing::{ExoscaleImport, Keys, S3Upload};

/// A string that may hold actions of the template language, filled in when it is used: what it needs
/// (a path in the guest, a port) is not known before.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

/// In which language a template is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Packer's legacy JSON. Its values never change, its silences are kept.
    Packer,
    /// qimg's own TOML.
    Native,
}

/// A template with its variables filled in and all its parts checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Where it was read from; messages name it.
    pub path: PathBuf,
    /// The language.
    pub dialect: Dialect,
    /// The builds that were chosen, in the template's order; names are unique.
    pub builds: Vec<Build>,
    /// Values that no output may show.
    pub secrets: Vec<String>,
}

/// One virtual machine to boot, provision and turn into files.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Unique within the template.
    pub name: String,
    /// Packer's word for the kind of builder; always `qemu` here.
    pub kind: String,
    /// What the machine starts from.
    pub base: Base,
    /// The main disk.
    pub disk: Disk,
    /// Sizes in bytes of further empty disks.
    pub additional_disks: Vec<u64>,
    /// The machine.
    pub machine: Machine,
    /// NoCloud data that the template brings.
    pub seed: Option<Seed>,
    /// Keys typed at the console, and when.
    pub boot: Boot,
    /// Files the guest may fetch while it boots or installs.
    pub media: Media,
    /// How to get into the guest; `None`: the guest ends by itself.
    pub communicator: Option<Ssh>,
    /// In order.
    pub provisioners: Vec<Provisioner>,
    /// Run when a provisioner failed.
    pub cleanup: Option<Provisioner>,
    /// What is removed from the guest before it is shut down.
    pub seal: Seal,
    /// How the guest is shut down.
    pub shutdown: Shutdown,
    /// States of the machine that are kept, so that unchanged steps are not run again.
    pub cache: StepCache,
    /// What files there are in the end.
    pub output: Output,
    /// Chains: each starts from the build's artifact, each member takes the one's before it.
    pub post_processors: Vec<Vec<PostProcessor>>,
}

/// What a build starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Tried in order: paths, `file:` and http(s) URLs.
    pub urls: Vec<String>,
    /// As written: `sha256:HEX`, bare hex, `file:PATH-OR-URL`, `none`; empty is none.
    pub checksum: String,
    /// A file with the key that must have signed the file of checksums.
    pub signature_key: Option<PathBuf>,
    /// Where a download is kept, instead of the cache.
    pub target_path: Option<PathBuf>,
    /// The base is a disk (true) or an installation medium (false).
    pub is_disk: bool,
}

/// Disk formats of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// qcow2.
    Qcow2,
    /// raw.
    Raw,
}

/// The main disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Virtual size in bytes; `None`: that of the base.
    pub size: Option<u64>,
    /// Format of the artifact.
    pub format: DiskFormat,
    /// Bus: `virtio`, `ide`, `scsi`, `virtio-scsi`, `sd`, `sata`.
    pub interface: String,
    /// QEMU's `cache=`.
    pub cache: String,
    /// QEMU's `discard=`.
    pub discard: String,
    /// QEMU's `detect-zeroes=`, if given.
    pub detect_zeroes: Option<String>,
    /// The artifact stays an overlay of its base.
    pub keep_backing_file: bool,
}

/// How the guest's firmware is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Firmware {
    /// The machine type's own (SeaBIOS).
    #[default]
    Default,
    /// UEFI: a pair that is found on the host, or given.
    Efi {
        /// Code, read-only.
        code: Option<PathBuf>,
        /// Variables, always copied.
        variables: Option<PathBuf>,
        /// With secure boot.
        secure: bool,
        /// Leave the variables out of the artifact.
        drop_variables: bool,
    },
    /// One file, as `-bios` or as a read-only flash.
    File {
        /// The file.
        path: PathBuf,
        /// As flash.
        flash: bool,
    },
}

/// The virtual machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// `qemu-system-x86_64`, or a path.
    pub qemu: String,
    /// `auto`, `kvm`, `tcg`, `none`, ...; `None`: not given, which is `auto`.
    pub accelerator: Option<String>,
    /// `-machine` type; `None`: `pc`, or `q35` where UEFI asks for it.
    pub machine_type: Option<String>,
    /// `-cpu`; `None`: chosen for the accelerator.
    pub cpu_model: Option<String>,
    /// Virtual processors, at least 1.
    pub cpus: u32,
    /// Topology `(sockets, cores, threads)`, where given.
    pub topology: [Option<u32>; 3],
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Network card.
    pub net_device: String,
    /// A bridge instead of QEMU's user network.
    pub net_bridge: Option<String>,
    /// Ports of the host, both included, of which one leads to the guest's SSH; `None`: the kernel chooses.
    pub host_ports: Option<(u16, u16)>,
    /// Forward no port.
    pub skip_nat_mapping: bool,
    /// No window.
    pub headless: bool,
    /// `-display`, if given.
    pub display: Option<String>,
    /// `-vga`, if given.
    pub vga: Option<String>,
    /// A VNC server is asked for: `(address, first port, last port, with a password)`.
    pub vnc: Option<Vnc>,
    /// How the installation medium is attached.
    pub cdrom_interface: Option<String>,
    /// The firmware.
    pub firmware: Firmware,
    /// A software TPM: `(device type, version 1)`.
    pub tpm: Option<Tpm>,
    /// Another name for the QMP socket that a template's own tools expect.
    pub qmp_socket: Option<PathBuf>,
    /// Further arguments by Packer's rule: each is a switch and its values. Values are filled in late with
    /// `.HTTPIP .HTTPPort .HTTPDir .OutputDir .Name .SSHHostPort`.
    pub qemu_args: Vec<(Text, Vec<Text>)>,
}

/// A VNC server for people to look on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vnc {
    /// Address it listens on.
    pub address: String,
    /// First and last port, both included.
    pub ports: (u16, u16),
    /// With a password, random where none is given.
    pub password: Option<String>,
}

/// A TPM in software.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tpm {
    /// `tpm-tis`, `tpm-crb`, ...
    pub device: String,
    /// TPM 1.2 instead of 2.0.
    pub version_1: bool,
}

/// NoCloud data that the template brings; qimg makes the volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seed {
    /// The text of user-data.
    pub user_data: Option<Vec<u8>>,
    /// The text of meta-data.
    pub meta_data: Option<Vec<u8>>,
    /// The text of vendor-data.
    pub vendor_data: Option<Vec<u8>>,
    /// The text of network-config.
    pub network_config: Option<Vec<u8>>,
    /// The guest gets it over HTTP (NoCloud-Net), which its SMBIOS tells it, instead of from a volume.
    pub over_http: bool,
}

/// A kernel that QEMU starts by itself, the first time the machine is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line; filled in late as a boot command.
    pub append: Text,
}

/// Files for the firmware's own network boot, by TFTP of QEMU's user network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkBoot {
    /// What is served.
    pub directory: PathBuf,
    /// The file in it that is started.
    pub file: String,
}

/// Keys typed at the console.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Boot {
    /// Before the first key; `None`: not given.
    pub wait: Option<Duration>,
    /// Groups of keys with what they are for; a plain command is one group without.
    pub steps: Vec<(Text, Option<String>)>,
    /// Between two events of a key.
    pub key_interval: Option<Duration>,
    /// Between two groups.
    pub group_interval: Option<Duration>,
    /// Name of the guest's keyboard layout; empty: US.
    pub keyboard: String,
    /// A kernel instead of a boot loader.
    pub kernel: Option<Kernel>,
    /// Boot from the network.
    pub network: Option<NetworkBoot>,
}

/// Files for the guest, by network or as media.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// Served by HTTP.
    pub http_directory: Option<PathBuf>,
    /// Served by HTTP, by path.
    pub http_content: BTreeMap<String, String>,
    /// Ports of the HTTP server, both included.
    pub http_ports: Option<(u16, u16)>,
    /// Its address.
    pub http_address: Option<String>,
    /// Globs of files on a CD.
    pub cd_files: Vec<String>,
    /// Files on a CD, by path.
    pub cd_content: BTreeMap<String, String>,
    /// Label of that CD.
    pub cd_label: Option<String>,
    /// Globs of files on a floppy disk.
    pub floppy_files: Vec<String>,
    /// Directories on a floppy disk.
    pub floppy_directories: Vec<String>,
    /// Files on a floppy disk, by path.
    pub floppy_content: BTreeMap<String, String>,
    /// Label of that floppy disk.
    pub floppy_label: Option<String>,
}

impl Media {
    /// A CD of the template's files is made.
    pub fn has_cd(&self) -> bool {
        !self.cd_files.is_empty() || !self.cd_content.is_empty()
    }

    /// A floppy disk of the template's files is made.
    pub fn has_floppy(&self) -> bool {
        !self.floppy_files.is_empty()
            || !self.floppy_directories.is_empty()
            || !self.floppy_content.is_empty()
    }
}

/// A way through another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bastion {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Login name.
    pub username: String,
    /// Password.
    pub password: Option<String>,
    /// Key; `None`: that of the guest.
    pub private_key: Option<PathBuf>,
    /// Certificate of that key.
    pub certificate: Option<PathBuf>,
    /// Ask the agent.
    pub agent: bool,
}

/// Whether a password is hidden wherever it would be shown. A short word, as `vagrant` in half of all templates, is
/// nobody's secret, and hiding it would hide half of the log, as would two or three signs of any kind; a variable that is
/// marked as sensitive is hidden anyway.
pub fn is_secret(password: &str) -> bool {
    let is_word = password.chars().all(char::is_alphabetic);
    password.len() >= 8 || (password.len() >= 4 && !is_word)
}

/// SSH into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Host; `None`: this machine, by the forwarded port.
    pub host: Option<String>,
    /// The guest's port.
    pub port: u16,
    /// Login name.
    pub username: String,
    /// Password, also for keyboard-interactive.
    pub password: Option<String>,
    /// Private key file; with neither this, a password nor the agent, qimg makes a key.
    pub private_key: Option<PathBuf>,
    /// Certificate of that key.
    pub certificate: Option<PathBuf>,
    /// Ask the agent for keys.
    pub agent: bool,
    /// Forward the agent to the guest.
    pub forward_agent: bool,
    /// From the machine's start until a login succeeds; `None`: the dialect's default.
    pub timeout: Option<Duration>,
    /// Refusals at most; `None`: no limit but the time.
    pub attempts: Option<u32>,
    /// With a terminal.
    pub pty: bool,
    /// Between two signs of life; `None`: none are sent.
    pub keep_alive: Option<Duration>,
    /// How files are sent.
    pub transfer: Transfer,
    /// Through another machine.
    pub bastion: Option<Bastion>,
    /// After the first login, before the second.
    pub pause_before_connecting: Option<Duration>,
    /// Remove the key that qimg brought, at the end.
    pub clear_authorized_keys: bool,
    /// Kind of the key that qimg makes: `ed25519`, `ecdsa`, `rsa`; and its bits.
    pub temporary_key: Option<(String, Option<u32>)>,
    /// Ciphers, if limited.
    pub ciphers: Vec<String>,
    /// Key exchange algorithms, if limited.
    pub key_exchanges: Vec<String>,
}

/// How files are sent over SSH; what the guest does not have is replaced by what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transfer {
    /// `scp -t` at the other end.
    #[default]
    Scp,
    /// The sftp subsystem.
    Sftp,
}

/// One thing done in or for the guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Provisioner {
    /// Its type as written: for messages, and for custom ones the program's name.
    pub kind: String,
    /// Line in the template, from 1; 0: unknown.
    pub line: usize,
    /// Before it starts.
    pub pause_before: Duration,
    /// Further tries after a failure.
    pub max_retries: u32,
    /// For one try.
    pub timeout: Option<Duration>,
    /// Whether it need not be run again while it is unchanged; `None`: by what it does.
    pub cache: Option<bool>,
    /// What it does.
    pub action: Action,
}

/// What a provisioner does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Scripts run in the guest.
    Shell(Shell),
    /// Files from or to the guest.
    File(FileTransfer),
    /// Scripts run on the host.
    ShellLocal(ShellLocal),
    /// Ansible on the host, led into the guest.
    Ansible(Ansible),
    /// Ansible in the guest.
    AnsibleLocal(AnsibleLocal),
    /// Wait.
    Sleep(Duration),
    /// Restart the guest and wait until it answers with another boot id.
    Reboot {
        /// Run to restart it; empty: `reboot` by whatever works.
        command: Text,
        /// For the guest to come back.
        timeout: Option<Duration>,
    },
    /// Ask before going on.
    Breakpoint {
        /// Said when asking.
        note: String,
        /// Do not ask.
        disabled: bool,
    },
    /// A program `qimg-provisioner-NAME` with these options.
    Custom {
        /// NAME.
        name: String,
        /// As in the template, as JSON text.
        options: String,
    },
}

/// Where scripts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scripts {
    /// Lines of one script.
    Inline(Vec<Text>),
    /// Files of the host, in order.
    Files(Vec<Text>),
}

/// Scripts run in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// The scripts.
    pub scripts: Scripts,
    /// First line of an inline script, without `#!`.
    pub inline_shebang: String,
    /// `NAME=VALUE`, in the template's order.
    pub environment: Vec<(String, Text)>,
    /// How one variable is written, `%s` twice; `None`: `NAME='VALUE' `.
    pub environment_format: Option<String>,
    /// Variables go through a file in the guest.
    pub environment_file: bool,
    /// Filled in late with `.Path .Vars .EnvVarFile`.
    pub execute_command: Text,
    /// Directory for scripts in the guest.
    pub remote_folder: String,
    /// Name of the script; `None`: one of its own for each.
    pub remote_file: Option<String>,
    /// Whole path in the guest, instead of folder and name.
    pub remote_path: Option<String>,
    /// Lines end as in the file.
    pub binary: bool,
    /// For starting again after a lost connection.
    pub start_retry_timeout: Duration,
    /// The connection may end with the script.
    pub expect_disconnect: bool,
    /// Exit codes that are no failure.
    pub valid_exit_codes: Vec<i32>,
    /// After the script.
    pub pause_after: Duration,
    /// Leave the script in the guest.
    pub skip_clean: bool,
}

/// Which way files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Upload,
    /// From the guest.
    Download,
}

/// Files from or to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTransfer {
    /// Paths or globs; a directory with `/` at its end means what is in it.
    pub sources: Vec<Text>,
    /// A file's bytes, instead of a source.
    pub content: Option<Text>,
    /// Where to.
    pub destination: Text,
    /// Which way.
    pub direction: Direction,
    /// The source need not exist when the template is checked.
    pub generated: bool,
}

/// Scripts run on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellLocal {
    /// The scripts.
    pub scripts: Scripts,
    /// First line of an inline script, without `#!`.
    pub inline_shebang: String,
    /// `NAME=VALUE`, in the template's order.
    pub environment: Vec<(String, Text)>,
    /// How one variable is written, `%s` twice; `None`: `NAME='VALUE' `.
    pub environment_format: Option<String>,
    /// Program and arguments, filled in late with `.Script .Vars .Command`.
    pub execute_command: Vec<Text>,
    /// Host systems it runs on; empty: all.
    pub only_on: Vec<String>,
    /// End of the name of the inline script's file.
    pub tempfile_extension: String,
    /// Exit codes that are no failure.
    pub valid_exit_codes: Vec<i32>,
}

/// States of the machine that are kept between steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCache {
    /// Keep them and go on from them.
    pub enabled: bool,
    /// Go on from a disk, after a reboot, where the memory cannot be had.
    pub from_disk: bool,
    /// After so much work a state is kept.
    pub after: Duration,
    /// Bytes that all states may occupy, of whatever build.
    pub limit: u64,
}

impl Default for StepCache {
    fn default() -> Self {
        Self {
            enabled: true,
            from_disk: false,
            after: Duration::from_secs(5),
            limit: 20 << 30,
        }
    }
}

/// What is removed from the guest before it is shut down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seal {
    /// Names of the steps, in order; empty: none.
    pub steps: Vec<String>,
}

/// How the guest is shut down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// Run in the guest; empty: the power button.
    pub command: Text,
    /// For the guest to end.
    pub timeout: Duration,
    /// Packer's: no shutdown at all, the guest ends by itself.
    pub disabled: bool,
}

/// Codecs of the artifact's clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// None.
    None,
    /// Deflate.
    Zlib,
    /// zstd.
    Zstd,
}

/// What files there are in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Directory; does not exist before.
    pub directory: PathBuf,
    /// Name of the disk's file.
    pub name: String,
    /// Codec of its clusters.
    pub codec: Codec,
    /// Level of the codec; `None`: its default.
    pub level: Option<i32>,
    /// Copy the disk at all: without, the work disk itself is the artifact.
    pub compact: bool,
    /// Drop what guest filesystems do not use.
    pub sparsify: bool,
}

/// An artifact made into another.
#[derive(Debug, Clone, PartialEq)]
pub struct PostProcessor {
    /// Its type as written.
    pub kind: String,
    /// Name for `-except`; the type where none is given.
    pub name: String,
    /// Line in the template, from 1; 0: unknown.
    pub line: usize,
    /// Keep what it took; `None`: its own default.
    pub keep_input: Option<bool>,
    /// What it does.
    pub job: Job,
}

/// What a post-processor does.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Pack the artifact.
    Compress {
        /// Path, whose extension decides; filled in late with `.BuildName .BuilderType`.
        output: Text,
        /// Instead of the extension.
        format: Option<String>,
        /// `None`: the format's default.
        level: Option<i32>,
    },
    /// Write digests.
    Checksum {
        /// `md5`, `sha1`, `sha224`, `sha256`, `sha384`, `sha512`.
        kinds: Vec<String>,
        /// Filled in late with `.BuildName .BuilderType .ChecksumType`.
        output: Text,
        /// Lines as `sha256sum -c` reads them, instead of Packer's.
        coreutils: bool,
    },
    /// Write or add to a manifest.
    Manifest {
        /// Path.
        output: Text,
        /// File names without directories.
        strip_path: bool,
        /// No build time.
        strip_time: bool,
        /// Added as it is, values filled in late.
        custom_data: BTreeMap<String, Text>,
    },
    /// Make a Vagrant box for libvirt.
    Vagrant {
        /// Path, filled in late with `.BuildName .BuilderType .Provider .ArtifactId`.
        output: Text,
        /// `None`: the default of gzip.
        level: Option<i32>,
        /// Further files of the box.
        include: Vec<Text>,
        /// A file with settings that come after the box's own.
        vagrantfile: Option<Text>,
    },
    /// Scripts on the host.
    ShellLocal(ShellLocal),
    /// Put other files in the artifact's place.
    Artifice {
        /// The files.
        files: Vec<Text>,
    },
    /// Put its files into an object store.
    S3(Box<S3Upload>),
    /// Make a template of Exoscale's of it.
    Exoscale(Box<ExoscaleImport>),
    /// A program `qimg-post-processor-NAME` with these options.
    Custom {
        /// NAME.
        name: String,
        /// As in the template, as JSON text.
        options: String,
    },
}
