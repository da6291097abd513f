//! The host as builds see it: environment, directories, chance and time.
//!
//! The library asks for none of them: they are gathered here, once.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qimg::build::Surroundings;
use qimg::build::provisioner::Host;
use qimg::fetch::{self, Cache, HttpOptions, Proxies};
use qimg::machine::{Launcher, accelerator, firmware};
use qimg::publish::Access;
use qimg::{Error, Result};

/// Since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Twelve bytes that nobody can guess.
pub(super) fn random() -> [u8; 12] {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    let other = uuid::Uuid::new_v4().into_bytes();
    // Six bits of each are fixed: bytes 6 and 8 are left out.
    let mut random = [0; 12];
    let chosen = bytes.iter().take(6).chain(other.iter().take(6));
    for (to, from) in random.iter_mut().zip(chosen) {
        *to = *from;
    }
    random
}

/// The environment that is text.
pub(super) fn environment() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The current directory.
pub(super) fn directory() -> Result<PathBuf> {
    env::current_dir().map_err(|error| Error::io("find the current directory", error))
}

/// Where downloads are kept: as asked for, by `QIMG_CACHE`, or where the user's caches are.
pub(super) fn cache(asked: Option<&Path>) -> Result<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = asked
        .map(Path::to_owned)
        .or_else(|| set("QIMG_CACHE"))
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("qimg")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/qimg")))
        .ok_or_else(|| {
            Error::usage("there is no place for downloads: neither QIMG_CACHE, XDG_CACHE_HOME nor HOME is set")
                .with_remedy("--cache DIR names one")
        })?;
    // Disks name files of it, and are elsewhere.
    Ok(directory()?.join(cache))
}

/// Where runs keep logs, pictures, and scripts while they run.
pub(super) fn runs() -> PathBuf {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map_or_else(
            || {
                // Straight in a directory of everybody's, where only we can have made it so that we may use it.
                let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
                env::temp_dir().join(format!("qimg-runs-{user}"))
            },
            |base| {
                let runs = base.join("qimg/runs");
                std::path::absolute(&runs).unwrap_or(runs)
            },
        )
}

/// Where uploads and operations that are going on are remembered.
fn journal() -> Option<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("qimg/uploads"))
}

/// A small text of the user's; nothing, where there is none.
fn own_text(variable: &str, path: &str) -> Result<String> {
    const MOST: u64 = 1 << 20;
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let named = set(variable).map(PathBuf::from);
    let Some(path) = named.or_else(|| Some(Path::new(&set("HOME")?).join(path))) else {
        return Ok(String::new());
    };
    if qimg::store::look(&path)?.is_none() {
        return Ok(String::new());
    }
    let bytes = qimg::store::read_file(&path, MOST)?;
    String::from_utf8(bytes).map_err(|_| Error::usage("is no text").at_path(path))
}

/// Everything that publishing needs to know.
pub(super) fn access() -> Result<Access> {
    Ok(Access {
        environment: environment(),
        credentials_file: own_text("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")?,
        config_file: own_text("AWS_CONFIG_FILE", ".aws/config")?,
        http: http(),
        journal: journal(),
        clock: &|| now().as_secs(),
    })
}

/// How bases are got, and where they are kept.
pub(super) fn fetching(cache_directory: &Path) -> fetch::Options {
    fetch::Options {
        http: http(),
        ..fetch::Options::new(Cache::new(cache_directory))
    }
}

/// How servers are reached from here.
fn http() -> HttpOptions {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let text = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    HttpOptions {
        proxies: Proxies {
            http: text(&["http_proxy"]),
            https: text(&["https_proxy", "HTTPS_PROXY"]),
            none_for: text(&["no_proxy", "NO_PROXY"]),
        },
        ca_file: set("SSL_CERT_FILE").map(PathBuf::from),
        ..HttpOptions::default()
    }
}

/// Everything that builds need to know; `run` is this run's name.
pub(super) fn gather(cache_directory: &Path, threads: usize) -> Result<Surroundings> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let program = env::current_exe().map_err(|error| Error::io("find this program", error))?;
    let fetch = fetching(cache_directory);
    let time = now();
    let uuid = uuid::Uuid::new_v4();
    let (runs, run) = (runs(), format!("{}-{}", time.as_secs(), std::process::id()));
    Ok(Surroundings {
        directory: directory()?,
        run_uuid: uuid.to_string(),
        time: time.as_secs(),
        started: std::time::Instant::now(),
        host: Host {
            environment: env::vars_os().collect::<Vec<(OsString, OsString)>>(),
            // What a killed run leaves there is swept by a later one.
            temporary: runs.join(&run),
            system: env::consts::OS.replace("macos", "darwin"),
        },
        runs,
        run,
        launcher: Launcher::new(program),
        agent: set("SSH_AUTH_SOCK").map(PathBuf::from),
        has_display: set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some(),
        fetch,
        publish: Some(Arc::new(access()?)),
        kvm: accelerator::Host::default(),
        firmware: firmware::Places::of_host(
            set("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))
                .as_deref(),
        ),
        threads,
    })
}
