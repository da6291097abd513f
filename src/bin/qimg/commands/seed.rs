//! `qimg seed`, `seed show` and `seed serve`.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use qimg::image::{Depth, Image};
use qimg::seed::check::{self, Finding, Severity};
use qimg::seed::compose::{Composition, WriteFile};
use qimg::seed::serve::Server;
use qimg::seed::{self, File, MetaData, Part, SeedRequest, output};
use qimg::store::{read_file, write_file};
use qimg::volume::Volume;
use qimg::{Error, Result};

use super::{Failure, Status};
use crate::args::{ComposeArgs, SeedArgs, SeedCommand, SeedContentsArgs, SeedFormat, SeedMakeArgs};
use crate::args::{SeedServeArgs, SeedShowArgs};
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

/// Bytes of an input at most: what one file of an ISO9660 volume holds, and more than a guest would take.
const MAX_INPUT: u64 = (4 << 30) - 1;
/// --strict, and something was found.
const FOUND: u8 = 2;

pub(super) fn run(args: &SeedArgs, console: &mut Console<'_>) -> Status {
    match &args.command {
        None => make(&args.make, console),
        Some(SeedCommand::Show(args)) => show(args, console),
        Some(SeedCommand::Serve(args)) => serve(args, console),
    }
}

fn make(args: &SeedMakeArgs, console: &mut Console<'_>) -> Status {
    let mut inputs = Inputs::default();
    let mut request = inputs.request(args.user_data.as_deref(), &args.contents)?;
    request.layout = match args.disk_format {
        SeedFormat::Image(_) => args.filesystem.0,
        SeedFormat::Archive(layout) => layout,
    };
    request.label.clone_from(&args.label);
    request.time = args.time.map_or_else(source_date_epoch, Ok)?;
    if args.interfaces {
        human::seed::warning(
            console.err,
            "-i has no effect: cloud-init reads no 'interfaces'",
            "give the network with -N",
        )?;
    }
    let findings = check::check(&request);
    let passes = judge(&findings, args.contents.strict, args.json, console)?;
    let built = seed::build(&request)?;
    let report = human::seed::Report::new(args, &request, &built, &findings, passes);
    let to_stdout = args.output == Path::new("-");
    if passes && !args.dry_run {
        write(args, &inputs, &built.bytes, console)?;
    }
    // Standard output has the seed, or the result: not both.
    if args.json && (!to_stdout || args.dry_run) {
        json::print(&mut console.out, &report)?;
    } else if !args.quiet && !to_stdout && passes {
        report.print(&mut console.out, args.dry_run)?;
    }
    Ok(if passes { 0 } else { FOUND })
}

fn write(
    args: &SeedMakeArgs,
    inputs: &Inputs,
    bytes: &[u8],
    console: &mut Console<'_>,
) -> std::result::Result<(), Failure> {
    if args.output == Path::new("-") {
        match args.disk_format {
            SeedFormat::Image(format) => console
                .out
                .write_all(&output::image_bytes(bytes, format)?)?,
            SeedFormat::Archive(_) => console.out.write_all(bytes)?,
        }
        return Ok(());
    }
    inputs.refuse_destination(&args.output)?;
    match args.disk_format {
        SeedFormat::Image(format) => output::write_image(&args.output, bytes, format)?,
        SeedFormat::Archive(_) => write_file(&args.output, bytes)?,
    }
    Ok(())
}

/// Tells what was found; whether to go on.
fn judge(
    findings: &[Finding],
    strict: bool,
    json: bool,
    console: &mut Console<'_>,
) -> std::io::Result<bool> {
    let fails = strict
        && findings
            .iter()
            .any(|finding| finding.severity > Severity::Note);
    if !json {
        human::seed::findings(console.err, findings)?;
        if fails {
            human::seed::strict(console.err)?;
        }
    }
    Ok(!fails)
}

/// <https://reproducible-builds.org/specs/source-date-epoch/>
fn source_date_epoch() -> Result<i64> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(0);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    seconds.ok_or_else(|| Error::usage("SOURCE_DATE_EPOCH is no number of seconds"))
}

/// What was read.
#[derive(Default)]
struct Inputs {
    paths: Vec<PathBuf>,
    stdin: bool,
}

impl Inputs {
    fn request(&mut self, first: Option<&Path>, args: &SeedContentsArgs) -> Result<SeedRequest> {
        let mut user_data = Vec::new();
        for path in first
            .into_iter()
            .chain(args.parts.iter().map(PathBuf::as_path))
        {
            let name = if path == Path::new("-") {
                "user-data".into()
            } else {
                path.to_string_lossy()
            };
            user_data.push(Part {
                name: name.into_owned(),
                bytes: self.read(path)?,
            });
        }
        let composition = self.composition(&args.compose)?;
        if !composition.is_empty() {
            user_data.push(composition.compose()?);
        }
        // A host name alone is a seed, too: meta-data has it, and user-data is empty.
        if user_data.is_empty()
            && args.hostname.is_none()
            && args.network_config.is_none()
            && args.meta_data.is_none()
        {
            return Err(Error::usage("there is nothing to put into a seed")
                .with_remedy("name a file with user-data, or compose one with --user, --ssh-key, --run and others"));
        }
        let meta_data = match &args.meta_data {
            Some(path) => MetaData::Given(self.read(path)?),
            None => MetaData::Made {
                instance_id: args.instance_id.clone(),
                hostname: args.hostname.clone(),
                dsmode: args.dsmode,
            },
        };
        let files = args.add.iter().map(|extra| {
            Ok(File {
                name: extra.name.clone(),
                bytes: self.read(&extra.path)?,
            })
        });
        let files = files.collect::<Result<_>>()?;
        Ok(SeedRequest {
            user_data,
            meta_data,
            network_config: args
                .network_config
                .as_deref()
                .map(|path| self.read(path))
                .transpose()?,
            vendor_data: args
                .vendor_data
                .as_deref()
                .map(|path| self.read(path))
                .transpose()?,
            files,
            gzip: args.gzip,
            ..SeedRequest::default()
        })
    }

    fn composition(&mut self, args: &ComposeArgs) -> Result<Composition> {
        let mut ssh_keys = Vec::new();
        for key in &args.ssh_key {
            // A key has a space between its type and itself; a file that is there has its own name.
            if key.contains(' ') && !Path::new(key).exists() {
                ssh_keys.push(key.clone());
                continue;
            }
            let bytes = self.read(Path::new(key))?;
            let text = String::from_utf8_lossy(&bytes);
            if text.contains("PRIVATE KEY") {
                return Err(
                    Error::usage("is a private key, which nobody else should see")
                        .with_remedy("name the public one, which ends with .pub")
                        .at_path(key),
                );
            }
            let lines = text.lines().map(str::trim);
            ssh_keys.extend(
                lines
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(str::to_owned),
            );
        }
        let mut write_files = Vec::new();
        for file in &args.write_file {
            write_files.push(WriteFile {
                path: file.guest.clone(),
                bytes: self.read(&file.host)?,
                permissions: file.mode.clone(),
            });
        }
        Ok(Composition {
            user: args.user.clone(),
            ssh_keys,
            password_hash: args.password_hash.clone(),
            packages: args.package.clone(),
            run: args.run.clone(),
            write_files,
            timezone: args.timezone.clone(),
        })
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>> {
        if path != Path::new("-") {
            let bytes = read_file(path, MAX_INPUT)?;
            self.paths.push(path.to_owned());
            return Ok(bytes);
        }
        if std::mem::replace(&mut self.stdin, true) {
            return Err(Error::usage("standard input is named twice"));
        }
        let mut bytes = Vec::new();
        let read = std::io::stdin()
            .lock()
            .take(MAX_INPUT)
            .read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read standard input", error))?;
        Ok(bytes)
    }

    /// An input is never written over, by whatever name.
    fn refuse_destination(&self, destination: &Path) -> Result<()> {
        let identity = |path: &Path| {
            std::fs::metadata(path)
                .ok()
                .map(|found| (found.dev(), found.ino()))
        };
        let Some(there) = identity(destination) else {
            return Ok(());
        };
        if self.paths.iter().any(|path| identity(path) == Some(there)) {
            return Err(Error::usage("is an input, and would be overwritten").at_path(destination));
        }
        Ok(())
    }
}

fn show(args: &SeedShowArgs, console: &mut Console<'_>) -> Status {
    let image = Image::open(&args.image, &args.input.open_options())?;
    let chain = image.chain(Depth::Chain, None)?;
    let contents =
        seed::read::read(&Volume::whole(&chain)).map_err(|error| error.at_path(image.path()))?;
    if args.json {
        json::print(&mut console.out, &contents)?;
    } else {
        human::seed::contents(&mut console.out, &contents)?;
    }
    let passes = judge(&contents.findings, args.strict, args.json, console)?;
    Ok(if passes { 0 } else { FOUND })
}

fn serve(args: &SeedServeArgs, console: &mut Console<'_>) -> Status {
    let mut inputs = Inputs::default();
    let directory = args.source.as_deref().filter(|path| path.is_dir());
    let (files, instance_id, findings) = match directory {
        Some(directory) => of_directory(&mut inputs, directory, &args.contents)?,
        None => {
            let request = inputs.request(args.source.as_deref(), &args.contents)?;
            let (files, instance_id) = seed::files(&request)?;
            (files, instance_id, check::check(&request))
        }
    };
    if !judge(&findings, args.contents.strict, false, console)? {
        return Ok(FOUND);
    }
    let server = Server::bind(args.listen, files.clone())?;
    let interrupt = Interrupt::watch()?;
    let report = human::seed::Served::new(&server, &files, instance_id);
    if args.json {
        json::print(&mut console.out, &report)?;
    } else {
        report.print(&mut console.out)?;
    }
    console.out.flush()?;
    let err = Mutex::new(&mut *console.err);
    server.run(interrupt.flag(), &|answered| {
        let mut err = err
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Whoever reads along may go away; the guest still gets its seed.
        let _ = human::seed::answered(&mut **err, answered);
        args.once && answered.status == 200 && answered.request.contains("/user-data")
    })?;
    Ok(0)
}

/// The files of a seed that lie in a directory as they are.
fn of_directory(
    inputs: &mut Inputs,
    directory: &Path,
    args: &SeedContentsArgs,
) -> Result<(Vec<File>, Option<String>, Vec<Finding>)> {
    let made = !args.parts.is_empty() || args.hostname.is_some() || args.instance_id.is_some();
    if made || args.meta_data.is_some() || args.network_config.is_some() || args.gzip {
        return Err(Error::usage(
            "a directory is served as it is: other options have no effect on it",
        )
        .with_remedy("name a file with user-data instead"));
    }
    let mut request = SeedRequest {
        user_data: vec![Part {
            name: "user-data".to_owned(),
            bytes: inputs.read(&directory.join("user-data"))?,
        }],
        ..SeedRequest::default()
    };
    let mut optional = |name: &str| {
        let path = directory.join(name);
        path.exists().then(|| inputs.read(&path)).transpose()
    };
    if let Some(bytes) = optional("meta-data")? {
        request.meta_data = MetaData::Given(bytes);
    }
    request.vendor_data = optional("vendor-data")?;
    request.network_config = optional("network-config")?;
    let findings = check::check(&request);
    let (files, instance_id) = seed::files(&request)?;
    Ok((files, instance_id, findings))
}
