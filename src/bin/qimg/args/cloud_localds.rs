//! The command line of cloud-localds, for those who call this program by that name.

use std::path::PathBuf;

use clap::Parser;
use qimg::seed::Dsmode;

use super::seed::{SeedArgs, SeedContentsArgs, SeedFilesystem, SeedFormat, SeedMakeArgs};
use super::typed;

/// Make a NoCloud seed, as cloud-localds does
#[derive(Debug, Parser)]
#[command(name = "cloud-localds", disable_version_flag = true, after_help = HELP)]
pub(super) struct CloudLocaldsArgs {
    /// The seed; `-` is standard output
    output: PathBuf,

    /// user-data; `-` is standard input
    #[arg(value_name = "USER-DATA")]
    user_data: PathBuf,

    /// meta-data as it is
    #[arg(value_name = "META-DATA", conflicts_with_all = ["hostname", "dsmode", "interfaces"])]
    meta_data: Option<PathBuf>,

    /// Format of the output: raw, qcow2, tar, tar-seed-local or tar-seed-net
    #[arg(short, long, value_name = "FMT", default_value = "raw", value_parser = typed::<SeedFormat>)]
    disk_format: SeedFormat,

    /// Filesystem: iso or vfat
    #[arg(short, long, value_name = "FS", default_value = "iso", value_parser = typed::<SeedFilesystem>)]
    filesystem: SeedFilesystem,

    /// Host name of the guest
    #[arg(short = 'H', long, value_name = "NAME")]
    hostname: Option<String>,

    /// Accepted, and without effect: cloud-init reads no such key
    #[arg(short, long, value_name = "FILE")]
    interfaces: Option<PathBuf>,

    /// When the seed is applied: local or net
    #[arg(short = 'm', long, value_name = "MODE", value_parser = typed::<Dsmode>)]
    dsmode: Option<Dsmode>,

    /// network-config
    #[arg(short = 'N', long, value_name = "FILE")]
    network_config: Option<PathBuf>,

    /// vendor-data
    #[arg(short = 'V', long, value_name = "FILE")]
    vendor_data: Option<PathBuf>,

    /// Say what was written
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

const HELP: &str = "\
This is `qimg seed` under another name. `qimg seed --help` has more options, examples and exit codes.";

impl From<CloudLocaldsArgs> for SeedArgs {
    fn from(typed: CloudLocaldsArgs) -> Self {
        Self {
            command: None,
            make: SeedMakeArgs {
                user_data: Some(typed.user_data),
                output: typed.output,
                disk_format: typed.disk_format,
                filesystem: typed.filesystem,
                label: qimg::seed::LABEL.to_owned(),
                time: None,
                contents: SeedContentsArgs {
                    meta_data: typed.meta_data,
                    hostname: typed.hostname,
                    dsmode: typed.dsmode,
                    network_config: typed.network_config,
                    vendor_data: typed.vendor_data,
                    ..SeedContentsArgs::default()
                },
                dry_run: false,
                json: false,
                quiet: typed.verbose == 0,
                interfaces: typed.interfaces.is_some(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn its_options_do_not_clash() {
        CloudLocaldsArgs::command().debug_assert();
    }
}
