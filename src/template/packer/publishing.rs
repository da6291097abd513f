//! Names that Packer's plugins have for what object stores and clouds need.

use super::weak::Take;

type Keys = &'static [(&'static str, &'static str, Take)];

/// As the importers of AWS name them; what those have not has the store's own name.
pub(super) const S3: Keys = &[
    ("s3_bucket_name", "s3", Take::Text),
    ("s3_key_name", "key", Take::Text),
    ("endpoint", "endpoint", Take::Text),
    ("region", "region", Take::Text),
    ("use_virtual_host", "virtual-host", Take::Flag),
    ("acl", "acl", Take::Text),
    ("content_type", "content-type", Take::Text),
    ("storage_class", "storage-class", Take::Text),
    ("profile", "profile", Take::Text),
    ("access_key", "access-key", Take::Text),
    ("secret_key", "secret-key", Take::Text),
    ("token", "token", Take::Text),
    ("part_size", "part-size", Take::Text),
];

/// As the vendor's plugin names them; the last two are qimg's own.
pub(super) const EXOSCALE: Keys = &[
    ("template_name", "exoscale", Take::Text),
    ("image_bucket", "bucket", Take::Text),
    ("template_zones", "zones", Take::Texts),
    ("image_zone", "image-zone", Take::Text),
    ("sos_endpoint", "store-endpoint", Take::Text),
    ("api_environment", "environment", Take::Text),
    ("api_endpoint", "api-endpoint", Take::Text),
    ("api_timeout", "timeout", Take::Int),
    ("api_key", "api-key", Take::Text),
    ("api_secret", "api-secret", Take::Text),
    ("template_description", "description", Take::Text),
    ("template_username", "username", Take::Text),
    ("template_boot_mode", "boot-mode", Take::Text),
    ("template_disable_password", "disable-password", Take::Flag),
    ("template_disable_sshkey", "disable-ssh-key", Take::Flag),
    ("template_maintainer", "maintainer", Take::Text),
    ("template_version", "version", Take::Text),
    ("template_build", "build", Take::Text),
    ("skip_clean", "keep-object", Take::Flag),
    ("use_link", "link", Take::Flag),
    ("skip_preflight", "force", Take::Flag),
];
