//! `qimg publish` and `qimg release`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use qimg::units::ByteSize;

use super::{ProgressArgs, ReportArgs, typed};

/// Bring an image to where others take it from
///
/// To an object store that speaks S3, to Exoscale as a template, to a directory with a stream of versions, or to a server that
/// takes HTTP PUT. What arrives is compared with what was sent. The image is only read: whatever ends the work, the same
/// command goes on with it, and what is there already is not sent again.
#[derive(Debug, Args)]
#[command(after_long_help = PUBLISH_HELP)]
pub(crate) struct PublishArgs {
    /// The image
    #[arg(value_name = "ARTIFACT")]
    pub(crate) artifact: PathBuf,

    /// Where to: s3://BUCKET[/KEY], exoscale, http(s)://HOST/PATH, or a directory
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: String,

    /// Publish it as disk.raw in a tar.gz, as some clouds import disks
    #[arg(long = "as", value_enum, value_name = "FORM")]
    pub(crate) form: Option<PublishForm>,

    /// Its name there [default: the image's own; for Exoscale, the template's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// The version: of a directory's stream [default: the time], or of Exoscale's template
    #[arg(long, value_name = "VERSION")]
    pub(crate) version_name: Option<String>,

    /// Read back what was published as a whole, and compare
    #[arg(long)]
    pub(crate) verify: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) directory: DirectoryArgs,

    #[command(flatten)]
    pub(crate) template: ExoscaleArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// What is made of an image before it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublishForm {
    /// disk.raw, a whole number of GiB, in a tar.gz
    #[value(name = "tar.gz")]
    TarGz,
}

/// An object store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct StoreArgs {
    /// The server [default: $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, the profile's, AWS; for Exoscale its own]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,

    /// Where the bucket is [default: $AWS_REGION, $AWS_DEFAULT_REGION, the profile's, us-east-1]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,

    /// The bucket is part of the host's name, or of the path (=false) [default: true at AWS]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) virtual_host: Option<bool>,

    /// The section of ~/.aws/credentials and ~/.aws/config [default: keys in the environment, $AWS_PROFILE, default]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// Who else may read the object: public-read, authenticated-read, bucket-owner-full-control
    #[arg(long, value_name = "ACL")]
    pub(crate) acl: Option<String>,

    /// The object's MIME type [default: application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,

    /// The object's class, as the server names it: STANDARD_IA
    #[arg(long, value_name = "CLASS")]
    pub(crate) storage_class: Option<String>,

    /// Size of the parts, 5M at least [default: 16M, or more for very large images]
    #[arg(long, value_name = "SIZE", value_parser = typed::<ByteSize>)]
    pub(crate) part_size: Option<ByteSize>,

    /// Parts that are sent at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) parallel: NonZeroUsize,

    /// Also print a link by which anybody can read the object for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) link: Option<u64>,
}

/// A stream of versions.
#[derive(Debug, Args)]
#[command(next_help_heading = "Directory")]
pub(crate) struct DirectoryArgs {
    /// Keep this many versions, the latest ones [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<NonZeroUsize>,
}

/// A template of Exoscale's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exoscale")]
pub(crate) struct ExoscaleArgs {
    /// Zones, of which the first one registers the template
    #[arg(long = "zone", value_name = "ZONE", value_delimiter = ',')]
    pub(crate) zones: Vec<String>,

    /// The bucket where the image waits for the cloud; it exists
    #[arg(long, value_name = "BUCKET")]
    pub(crate) bucket: Option<String>,

    /// The bucket's zone [default: the first --zone]
    #[arg(long, value_name = "ZONE")]
    pub(crate) image_zone: Option<String>,

    /// api, or ppapi for preproduction
    #[arg(long, value_name = "NAME", default_value = "api")]
    pub(crate) environment: String,

    /// How it boots
    #[arg(long, value_name = "MODE", default_value = "legacy", value_parser = ["legacy", "uefi"])]
    pub(crate) boot_mode: String,

    /// Up to 255 characters
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// Who logs in
    #[arg(long, value_name = "USER")]
    pub(crate) username: Option<String>,

    /// Who cares for it
    #[arg(long, value_name = "TEXT")]
    pub(crate) maintainer: Option<String>,

    /// The template's build
    #[arg(long, value_name = "TEXT")]
    pub(crate) build_name: Option<String>,

    /// The cloud makes no password
    #[arg(long)]
    pub(crate) disable_password: bool,

    /// The cloud puts no key in
    #[arg(long)]
    pub(crate) disable_ssh_key: bool,

    /// The guest can be told to hold still for a snapshot
    #[arg(long)]
    pub(crate) consistent_snapshots: bool,

    /// Everybody may read the object while it is there; without, the cloud has a link
    #[arg(long)]
    pub(crate) public: bool,

    /// Leave the object in the bucket, for `qimg release`
    #[arg(long)]
    pub(crate) keep_object: bool,

    /// Publish an image that breaks the cloud's rules
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// How long operations of the cloud may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exoscale")]
pub(crate) struct WaitArgs {
    /// Seconds for one operation of the cloud
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) timeout: u64,

    /// Seconds between two looks at an operation; longer later
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3.0,
        hide_short_help = true
    )]
    pub(crate) poll: f64,
}

const PUBLISH_HELP: &str = "\
Examples:
  qimg publish web.qcow2 --to s3://images/web.qcow2
  qimg publish web.qcow2 --to s3://images/ --endpoint https://minio.example:9000 --acl public-read
  qimg publish web.qcow2 --to /srv/images/web --keep 5
  qimg publish web.qcow2 --to exoscale --bucket images --zone ch-gva-2,de-fra-1 --name 'Web 12'
  qimg publish web.qcow2 --to https://repository.example/images/web.qcow2
  qimg publish web.qcow2 --as tar.gz --to s3://images/

Keys are read from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; EXOSCALE_API_KEY,
EXOSCALE_API_SECRET; QIMG_PUT_AUTHORIZATION for HTTP PUT) or from ~/.aws (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE,
AWS_CONFIG_FILE), never from the command line. EXOSCALE_API_ENDPOINT is asked instead of
https://{environment}-{zone}.exoscale.com. `http_proxy`, `https_proxy`, `no_proxy` and SSL_CERT_FILE are obeyed.
Exoscale's service itself was not available to this project's tests: they run against a server made of its documentation.

Exit codes:
  0    published, or there already with the same digest
  1    failed, or used wrongly; the image is as it was, and the same command goes on
  2    the image breaks the cloud's rules, and nothing was sent
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; the same command goes on";

/// Register a template of one environment in another one
///
/// Reads URL, checksum and all else of the template, registers the same image, and copies it to further zones. The image's
/// object is removed from the account's store after that.
#[derive(Debug, Args)]
#[command(after_long_help = RELEASE_HELP)]
pub(crate) struct ReleaseArgs {
    /// The template's id
    #[arg(value_name = "TEMPLATE-ID")]
    pub(crate) template: String,

    /// The environment it is in
    #[arg(long, value_name = "NAME", default_value = "ppapi")]
    pub(crate) from: String,

    /// The environment it goes to
    #[arg(long, value_name = "NAME", default_value = "api")]
    pub(crate) to: String,

    /// The zone that is asked for it [default: the first --zone]
    #[arg(long, value_name = "ZONE")]
    pub(crate) from_zone: Option<String>,

    /// Zones that get it, of which the first one registers
    #[arg(
        long = "zone",
        value_name = "ZONE",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) zones: Vec<String>,

    /// Leave the object in the bucket
    #[arg(long)]
    pub(crate) keep_object: bool,

    /// The object store's server, where it is not the zone's own
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

const RELEASE_HELP: &str = "\
Examples:
  qimg release 0d8bb0f4-8a0a-4a8e-9d0a-5f0e6f0f8a11 --zone ch-gva-2
  qimg release 0d8bb0f4-8a0a-4a8e-9d0a-5f0e6f0f8a11 --from ppapi --to api --zone ch-gva-2,de-fra-1 --keep-object

EXOSCALE_API_KEY and EXOSCALE_API_SECRET are the key for both environments; EXOSCALE_FROM_API_KEY and
EXOSCALE_FROM_API_SECRET are another one for reading. EXOSCALE_API_ENDPOINT may hold {environment} and {zone}.

Exit codes:
  0    registered, or there already with the same checksum
  1    failed, or used wrongly; the same command goes on
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; the same command goes on";
