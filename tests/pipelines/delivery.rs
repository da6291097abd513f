//! One image, from its build to the boot of what was published.

use crate::oracle_tools::must;
use crate::servers::{KEY, SECRET, Store, Wire};
use crate::workshop::{Building, Native, Workshop};

#[test]
fn an_image_is_built_published_fetched_and_boots() {
    let (store, workshop) = (Store::new(), Workshop::new());
    let wire = Wire::to(store.port());
    let post = format!(
        "[[provision]]\nshell = \"echo of the build >/made\"\n\
         [[post]]\nchecksum = [\"sha256\"]\nto = \"output/SHA256SUMS\"\n\
         [[post.then]]\ns3 = \"images\"\nkey = \"small/\"\nendpoint = \"{}\"\nacl = \"public-read\"\n",
        wire.endpoint()
    );
    workshop.write("build.toml", &Native::with(&post).text());
    let mut command = workshop.qimg(&["build", "build.toml"]);
    command
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    Building::of(command).end().well().has_not(SECRET);
    // What is there is what was built, and its checksums say so.
    let here = workshop.path("");
    std::fs::create_dir(workshop.path("fetched")).unwrap();
    for name in ["disk.qcow2", "SHA256SUMS"] {
        std::fs::copy(
            store.object(&format!("small/{name}")),
            workshop.path(&format!("fetched/{name}")),
        )
        .unwrap();
    }
    must(&here, "cmp", &["output/disk.qcow2", "fetched/disk.qcow2"]);
    must(&here, "qemu-img", &["check", "-q", "fetched/disk.qcow2"]);
    assert!(
        wire.seen()
            .iter()
            .any(|seen| seen.header("x-amz-acl") == Some("public-read"))
    );
    // By a link, as whoever has no key gets it; the checksum is that of the build.
    let mut command = workshop.qimg(&[
        "publish",
        "output/disk.qcow2",
        "--to",
        "s3://images/small/",
        "--endpoint",
        &store.endpoint(),
        "--link",
        "3600",
        "--json",
    ]);
    let output = command
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .output()
        .unwrap();
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["was-there"], true);
    assert!(
        workshop
            .read("fetched/SHA256SUMS")
            .contains(done["sha256"].as_str().unwrap())
    );
    // It boots, and what the build did is in it.
    let again = Native {
        base: format!(
            "image = {:?}\nchecksum = \"sha256:{}\"\n",
            done["link"].as_str().unwrap(),
            done["sha256"].as_str().unwrap()
        ),
        ..Native::with("[[provision]]\nshell = \"grep 'of the build' /made\"\n")
    };
    std::fs::remove_dir_all(workshop.path("output")).unwrap();
    workshop.build(&again, &[]).well().has("of the build");
    workshop.assert_tidy();
}
