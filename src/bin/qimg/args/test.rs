//! `qimg test`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use qimg::image::Format;

use super::{WaitArgs, typed};

/// How results are written; the names are Goss's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TestFormat {
    /// What failed, for people
    #[default]
    Human,
    /// A dot or letter for each result, then the failures
    Rspecish,
    /// A line for each result
    Documentation,
    /// Goss's JSON
    Json,
    /// JUnit's XML
    Junit,
    /// Test Anything Protocol
    Tap,
    /// A line for Nagios; exit code 2 on failure
    Nagios,
    /// Metrics for Prometheus
    Prometheus,
}

/// Which firmware boots the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BootWith {
    /// BIOS
    #[default]
    Bios,
    /// UEFI
    Uefi,
    /// First one, then the other
    Both,
}

/// Where the guest finds its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TestDatasource {
    /// A seed volume
    #[default]
    Nocloud,
    /// Exoscale's metadata and password services
    Exoscale,
}

/// Boot images and check what is in them, with Goss files
///
/// An image is booted from a throwaway overlay, with a seed and a key made for the test, looked at over SSH with nothing
/// installed in it, and left as it was: its digest is compared before and after.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct TestArgs {
    /// The images; exoscale:TEMPLATE-ID is a template of that cloud, of which an instance is made, and destroyed
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "host",
        conflicts_with = "host"
    )]
    pub(crate) images: Vec<PathBuf>,

    /// Files of checks: Goss files in YAML or JSON
    #[arg(
        short = 's',
        long = "spec",
        value_name = "FILE",
        required_unless_present = "generate"
    )]
    pub(crate) specs: Vec<PathBuf>,

    /// Set the template variables of a YAML or JSON file; the last file wins
    #[arg(long, value_name = "FILE")]
    pub(crate) vars: Vec<PathBuf>,

    /// Set template variables, as YAML or JSON; they win over those of files
    #[arg(long, value_name = "TEXT")]
    pub(crate) vars_inline: Vec<String>,

    /// Check a machine that is up instead of an image
    #[arg(long, value_name = "USER@HOST[:PORT]")]
    pub(crate) host: Option<String>,

    /// The private key for --host [default: those of the agent]
    #[arg(short, long, value_name = "FILE", requires = "host")]
    pub(crate) identity: Option<PathBuf>,

    /// The public line of the host key that --host has to show
    #[arg(long, value_name = "KEY", requires = "host")]
    pub(crate) host_key: Option<String>,

    /// Print a file of checks that the machine passes as it is; of these types only [default: all but package]
    #[arg(long, value_name = "TYPES", num_args = 0..=1, require_equals = true, default_missing_value = "", value_delimiter = ',')]
    pub(crate) generate: Option<Vec<String>>,

    /// Leave the machine running at the end until Ctrl-C, and say how to log in
    #[arg(long, conflicts_with = "host")]
    pub(crate) keep: bool,

    #[command(flatten)]
    pub(crate) asking: TestAskingArgs,

    #[command(flatten)]
    pub(crate) machine: TestMachineArgs,

    #[command(flatten)]
    pub(crate) cloud: TestCloudArgs,

    #[command(flatten)]
    pub(crate) output: TestOutputArgs,
}

/// The instance that is made of a template.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exoscale")]
pub(crate) struct TestCloudArgs {
    /// Where the template is
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,

    /// api, or ppapi for preproduction
    #[arg(long, value_name = "NAME", default_value = "api")]
    pub(crate) environment: String,

    /// What the instance is: family.size
    #[arg(long, value_name = "TYPE", default_value = "standard.small")]
    pub(crate) instance_type: String,

    /// A security group that is there and lets SSH in [default: one is made for the test]
    #[arg(long = "security-group", value_name = "NAME")]
    pub(crate) security_groups: Vec<String>,

    /// The port of SSH
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub(crate) port: u16,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// How the guest is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Asking")]
pub(crate) struct TestAskingArgs {
    /// Ask again until all is as expected, for so long
    #[arg(short, long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub(crate) retry_timeout: Duration,

    /// Between two rounds
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s")]
    pub(crate) sleep: Duration,

    /// Commands and requests in the guest at the same time
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) max_concurrent: usize,

    /// Ask as the user who logs in, without sudo
    #[arg(long)]
    pub(crate) no_sudo: bool,
}

/// The machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct TestMachineArgs {
    /// The firmware
    #[arg(long, value_enum, value_name = "FIRMWARE", default_value_t)]
    pub(crate) boot: BootWith,

    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) cpus: u32,

    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: String,

    /// Size of the image's disk [default: as it is]
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk_size: Option<String>,

    /// Add an empty disk
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Vec<String>,

    /// Add a network card of this model, as virtio-net or e1000
    #[arg(long, value_name = "MODEL")]
    pub(crate) net: Vec<String>,

    /// Who logs in [default: the user that the image's cloud-init makes, else qimg]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// How long the guest may take to answer [default: 5m, four times as long where it is emulated]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) ssh_timeout: Option<Duration>,

    /// Where the guest finds its settings
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub(crate) datasource: TestDatasource,

    /// A further part of user-data
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,

    /// What runs the guest: kvm or tcg [default: the best that works]
    #[arg(long, value_name = "NAME")]
    pub(crate) accel: Option<String>,

    /// Format of the images, raw or qcow2; taken from their first bytes when not given
    #[arg(short = 'f', long = "image-format", value_name = "FMT", value_parser = typed::<Format>)]
    pub(crate) image_format: Option<Format>,

    /// Machines at the same time [default: as many as the host has processors and memory for]
    #[arg(long, value_name = "N")]
    pub(crate) parallel: Option<std::num::NonZeroUsize>,
}

/// How results are told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TestOutputArgs {
    /// How results are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: TestFormat,

    /// Write results to a file as well, in another format
    #[arg(long, value_name = "FORMAT=FILE", value_parser = report)]
    pub(crate) report: Vec<(TestFormat, PathBuf)>,

    /// Do not tell what is being done
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

fn report(text: &str) -> Result<(TestFormat, PathBuf), String> {
    let (format, file) = text
        .split_once('=')
        .ok_or("write FORMAT=FILE, as junit=results.xml")?;
    let format =
        TestFormat::from_str(format, false).map_err(|_| format!("there is no format {format}"))?;
    Ok((format, PathBuf::from(file)))
}

/// `90`, `90s`, `500ms`, `5m`, `1h`, `1m30s`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time: write 90s, 5m or 1h");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(wrong()),
        };
        total += unit.checked_mul(number).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(total)
    }
}

const HELP: &str = "\
Examples:
  qimg test debian.qcow2 -s goss.yaml
  qimg test --boot both -s goss.yaml --report junit=results.xml debian.qcow2
  qimg test --datasource exoscale -s cloud.yaml debian.qcow2
  qimg test --host admin@203.0.113.7 -i key -s goss.yaml    a machine that is up
  qimg test --generate debian.qcow2 > goss.yaml             a file to begin with
  qimg test exoscale:0d8bb0f4-8a0a-4a8e-9d0a-5f0e6f0f8a11 --zone ch-gva-2 -s goss.yaml

Besides Goss's types a file may have cloud-init, boot, login, reboot, grow, sealed, serial, shutdown and migrate: README says
what they compare. `.Env` and getEnv in templates read this environment.

For a template of Exoscale's, EXOSCALE_API_KEY and EXOSCALE_API_SECRET are the key, and EXOSCALE_API_ENDPOINT is asked instead of
https://{environment}-{zone}.exoscale.com. The instance has a name that begins with qimg-test-, and so have its key and its
security group: all are destroyed at the end, after Ctrl-C too; what a killed test leaves is destroyed by the next one. Checks
that need an image or its machine (sealed, serial, shutdown, migrate) are skipped.

Exit codes:
  0    everything is as expected
  1    something is not, or could not be found out; or used wrongly
  2    as 1, with --format nagios
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; no QEMU and no file is left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (text, seconds) in [
            ("90", 90.0),
            ("1m30s", 90.0),
            ("500ms", 0.5),
            ("1h", 3600.0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "s", "5x", "5m3", "99999999999s"] {
            time(text).unwrap_err();
        }
    }
}
