//! A repository of images and the pipelines around it: which images have changed, whether the examples are what their own
//! tools take, whether their `qimg` lines do what they say, and one image from its build to a boot of what was published.

mod commands;
mod delivery;
mod images;
mod lints;
#[path = "../oracle_tools/mod.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod oracle_tools;
#[path = "../publish/servers.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod servers;
#[path = "../build/workshop.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod workshop;

use std::path::{Path, PathBuf};
use std::process::Output;

use workshop::{Native, Workshop};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

/// A checkout as a team has it, whose images are made without a guest.
struct Repository {
    workshop: Workshop,
}

const IMAGES: [&str; 3] = ["debian-cloud", "debian-installer", "debian-uefi"];

impl Repository {
    fn new() -> Self {
        let workshop = Workshop::new();
        for image in IMAGES {
            let text = Native::quick("").text();
            // Inputs are named from the template on.
            let text = text
                .replace("quick.qcow2", "../../quick.qcow2")
                .replace(
                    "directory = \"output\"",
                    &format!("directory = \"output/{image}\""),
                )
                .replace("disk.qcow2", &format!("{image}.qcow2"));
            workshop.write(
                &format!("images/{image}/image.toml"),
                &format!("name = \"{image}\"\n{text}"),
            );
            workshop.write(&format!("images/{image}/checks.yaml"), "{}\n");
        }
        workshop.write("images/shared/clean.sh", "true\n");
        workshop.write(".gitignore", "output\n*.json\n*.xml\nquick.qcow2\n");
        workshop.make_quick();
        let repository = Self { workshop };
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit();
        repository
    }

    fn git(&self, arguments: &[&str]) -> String {
        let own = [
            "-c",
            "user.name=tests",
            "-c",
            "user.email=tests@example",
            "-c",
            "commit.gpgsign=false",
        ];
        let output = oracle_tools::must(
            &self.workshop.path(""),
            "git",
            &[&own[..], arguments].concat(),
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "images"]);
    }

    fn qimg(&self, arguments: &[&str]) -> Output {
        self.workshop.qimg(arguments).output().unwrap()
    }

    /// Exit code 0; what it printed.
    #[track_caller]
    fn well(&self, arguments: &[&str]) -> String {
        let output = self.qimg(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{said}{}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}
