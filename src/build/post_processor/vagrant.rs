//! A Vagrant box for libvirt: the image, what Vagrant must know of it, and settings for those who use it.
//!
//! Knows the three files of a box. Must not know how archives are written.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compress::{Order, packed};
use super::{Context, Event};
use crate::build::artifact::Artifact;
use crate::error::{Error, Result};
use crate::image::{Format, Image, OpenOptions};
use crate::store::{read_file, write_file};
use crate::template::model::Text;

/// Longest file of settings.
const LONGEST: u64 = 1 << 20;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Box<'a> {
    pub output: &'a Path,
    pub level: Option<i32>,
    /// Further files of the box.
    pub include: &'a [Text],
    /// Settings that come after the box's own.
    pub vagrantfile: Option<&'a Text>,
}

/// What Vagrant reads first.
#[derive(Serialize)]
struct Metadata {
    provider: &'static str,
    format: &'static str,
    /// In GiB, rounded up.
    virtual_size: u64,
}

/// Packs the artifact's image into a box, which appears when it is complete.
pub(super) fn pack(
    order: &Box<'_>,
    artifact: &Artifact,
    context: &Context<'_>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Artifact> {
    let (image, size) = image(artifact, context)?;
    let place = tempfile::tempdir_in(
        context
            .place(order.output)
            .parent()
            .unwrap_or(Path::new(".")),
    )
    .map_err(|error| Error::io("make a directory for the box", error).at_path(order.output))?;
    let metadata = serde_json::to_vec(&Metadata {
        provider: "libvirt",
        format: "qcow2",
        virtual_size: size.div_ceil(1 << 30),
    })
    .map_err(|error| Error::io("write metadata.json", error.into()))?;
    let driver = driver(context.accelerator);
    let mut settings = format!(
        "Vagrant.configure(\"2\") do |config|\n  config.vm.provider :libvirt do |libvirt|\n    \
         libvirt.driver = \"{driver}\"\n  end\nend\n",
    );
    if let Some(template) = order.vagrantfile {
        let path = context.output(template, &[("Provider", "libvirt")])?;
        let text = read_file(context.place(&path), LONGEST)?;
        let text = String::from_utf8(text)
            .map_err(|_| Error::usage("is no text in UTF-8").at_path(&path))?;
        settings.push('\n');
        settings.push_str(&text);
    }
    let at = |name: &str| place.path().join(name);
    write_file(at("metadata.json"), &metadata)?;
    write_file(at("Vagrantfile"), settings.as_bytes())?;
    let named = |name: &str, path: PathBuf| (name.to_owned(), path);
    // Vagrant reads the small ones first.
    let mut files = vec![
        named("metadata.json", at("metadata.json")),
        named("Vagrantfile", at("Vagrantfile")),
    ];
    for include in order.include {
        let path = context.output(include, &[("Provider", "libvirt")])?;
        let name = path
            .file_name()
            .ok_or_else(|| Error::usage("names no file").at_path(&path))?
            .to_string_lossy()
            .into_owned();
        files.push((name, path));
    }
    files.push(named("box.img", image));
    let packing = Order {
        output: order.output,
        format: None,
        level: order.level,
    };
    packed(&packing, &files, context, tell)?;
    let mut made = Artifact::of_post_processor("vagrant", vec![order.output.to_owned()]);
    made.builder_id = "mitchellh.post-processor.vagrant".to_owned();
    "libvirt".clone_into(&mut made.id);
    Ok(made)
}

/// What libvirt calls a template's accelerator. Which one the host has does not count: a box is not for this host.
fn driver(accelerator: Option<&str>) -> &'static str {
    match accelerator {
        Some("tcg" | "none") => "qemu",
        _ => "kvm",
    }
}

/// The artifact's image and the size of its disk.
fn image(artifact: &Artifact, context: &Context<'_>) -> Result<(PathBuf, u64)> {
    for file in &artifact.files {
        let place = context.place(file);
        let image = Image::open(&place, &OpenOptions::default())?;
        if image.format() == Format::Qcow2 {
            return Ok((place, image.virtual_size()?));
        }
    }
    Err(
        Error::usage("a box for libvirt needs a qcow2 image, and the artifact has none")
            .with_remedy("make the artifact a qcow2 image, and do not pack it before"),
    )
}
