//! `seed serve`, as a guest and as a person meet it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::Bench;

struct Serving {
    child: Child,
    told: serde_json::Value,
}

impl Serving {
    fn start(bench: &Bench, arguments: &[&str]) -> Self {
        // Whoever starts the tests in the background makes them ignore Ctrl-C, and all that they start.
        let mut child = std::process::Command::new("env")
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_qimg")])
            .args(["seed", "serve", "--json"])
            .args(arguments)
            .current_dir(bench.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            text += &line;
            if line == "}" {
                break;
            }
        }
        Self {
            told: serde_json::from_str(&text).unwrap(),
            child,
        }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.told["address"].as_str().unwrap())
    }

    /// Ends as at Ctrl-C; what it said on stderr.
    fn end(mut self, bench: &Bench, interrupt: bool) -> String {
        if interrupt {
            bench.tool("kill", &["-INT", &self.child.id().to_string()]);
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut said = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        said
    }
}

#[test]
fn a_guest_gets_its_files() {
    let bench = Bench::new();
    let serving = Serving::start(&bench, &["user-data", "-H", "web1"]);
    let port = serving.told["address"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let told = &serving.told;
    assert_eq!(
        told["kernel-argument"],
        format!("ds=nocloud;s=http://10.0.2.2:{port}/")
    );
    assert_eq!(
        told["old-kernel-argument"],
        format!("ds=nocloud-net;s=http://10.0.2.2:{port}/")
    );
    assert_eq!(
        told["smbios"],
        format!("type=1,serial=ds=nocloud;s=http://10.0.2.2:{port}/")
    );
    assert_eq!(
        bench
            .tool("curl", &["-sSf", &serving.url("user-data")])
            .as_bytes(),
        bench.read("user-data")
    );
    let meta = bench.tool("curl", &["-sSf", &serving.url("meta-data")]);
    assert!(meta.contains("local-hostname: web1\n"), "{meta}");
    // cloud-init would ask for what is not there again and again.
    assert_eq!(
        bench.tool("curl", &["-sSf", &serving.url("vendor-data")]),
        ""
    );
    let path = format!("{}../../etc/passwd", serving.url(""));
    let missing = bench.tool(
        "curl",
        &[
            "-s",
            "--path-as-is",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &path,
        ],
    );
    assert_eq!(missing, "404");
    let script = "
import sys
from cloudinit import util
print(sorted((k, len(v) if v else 0) for k, v in util.read_seeded(sys.argv[1], timeout=5).items())
      if isinstance(util.read_seeded(sys.argv[1], timeout=5), dict) else util.read_seeded(sys.argv[1], timeout=5)[0]['local-hostname'])
";
    let got = bench.tool("/usr/bin/python3", &["-c", script, &serving.url("")]);
    assert_eq!(got.trim(), "web1");
    let said = serving.end(&bench, true);
    assert!(
        said.contains(" GET /user-data HTTP/1.1: 200, ")
            && said.contains(" GET /vendor-data HTTP/1.1: 200, 0 bytes"),
        "{said}"
    );
}

#[test]
fn a_directory_is_served_as_it_is_and_once_ends_it() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path().join("seed")).unwrap();
    bench.file("seed/user-data", "#!/bin/sh\n");
    bench.file("seed/meta-data", "instance-id: mine\n");
    bench.file("seed/secret", "not of the seed\n");
    let serving = Serving::start(&bench, &["--once", "seed"]);
    assert_eq!(serving.told["instance-id"], "mine");
    let missing = bench.tool(
        "curl",
        &[
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &serving.url("secret"),
        ],
    );
    assert_eq!(missing, "404");
    assert_eq!(
        bench.tool("curl", &["-sSf", &serving.url("user-data")]),
        "#!/bin/sh\n"
    );
    serving.end(&bench, false);
}
