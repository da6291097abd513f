//! A cloud made of what its vendor publishes: it verifies signatures with OpenSSL, reads images by their URLs with curl, and
//! compares their MD5 before a template is there.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::instances::{self, Answer, Machines};
use crate::servers::{KEY, SECRET, Store, Wire, parse, read_head};
use crate::{Program, bytes, oracle_tools, sum};

/// What the cloud knows.
#[derive(Default)]
struct Known {
    /// By environment and id.
    templates: BTreeMap<(String, String), Value>,
    operations: BTreeMap<String, Operation>,
    /// Method and path of each request.
    seen: Vec<String>,
    /// How often an operation is looked at before it ends.
    slowness: u32,
    /// Operations fail with these words.
    failing: Option<String>,
    count: u32,
    machines: Machines,
}

struct Operation {
    looks: u32,
    body: Value,
    then: Option<((String, String), Value)>,
}

pub struct Cloud {
    port: u16,
    known: Arc<Mutex<Known>>,
}

impl Cloud {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = Arc::new(Mutex::new(Known {
            slowness: 2,
            ..Known::default()
        }));
        let own = Arc::clone(&known);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let known = Arc::clone(&own);
                std::thread::spawn(move || answer(stream.unwrap(), &known));
            }
        });
        Self { port, known }
    }

    /// For EXOSCALE_API_ENDPOINT.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{{environment}}/{{zone}}", self.port)
    }

    /// A template that is there.
    pub fn put(&self, environment: &str, template: Value) {
        let id = template["id"].as_str().unwrap().to_owned();
        let mut known = self.known.lock().unwrap();
        known
            .templates
            .insert((environment.to_owned(), id), template);
    }

    /// Looks at the instances, or changes how they are.
    pub fn machines<T>(&self, look: impl FnOnce(&mut Machines) -> T) -> T {
        look(&mut self.known.lock().unwrap().machines)
    }

    fn templates(&self, environment: &str) -> Vec<Value> {
        let known = self.known.lock().unwrap();
        let own = known
            .templates
            .iter()
            .filter(|((name, _), _)| name == environment);
        own.map(|(_, template)| template.clone()).collect()
    }

    fn requests(&self, start: &str) -> usize {
        let known = self.known.lock().unwrap();
        known
            .seen
            .iter()
            .filter(|line| line.starts_with(start))
            .count()
    }

    fn forget(&self) {
        self.known.lock().unwrap().seen.clear();
    }
}

fn answer(mut stream: TcpStream, known: &Mutex<Known>) {
    let Ok(head) = read_head(&mut stream) else {
        return;
    };
    let request = parse(&head);
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let mut words = request.line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let signed = request.header("authorization").unwrap_or_default();
    let (status, text) = match verify(method, target, &body, signed) {
        Err(why) => (403, json!({ "message": why })),
        Ok(()) => respond(method, target, &body, known),
    };
    let text = text.to_string();
    let head = format!(
        "HTTP/1.1 {status} so\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(text.as_bytes()));
}

/// As the vendor describes it, by another program than the one that is tested.
fn verify(method: &str, target: &str, body: &str, signed: &str) -> Result<(), String> {
    let fields = signed
        .strip_prefix("EXO2-HMAC-SHA256 ")
        .ok_or("no signature of this kind")?;
    let fields: BTreeMap<_, _> = fields
        .split(',')
        .filter_map(|field| field.split_once('='))
        .collect();
    if fields.get("credential") != Some(&KEY) {
        return Err("no such key".into());
    }
    let expires = fields.get("expires").ok_or("no end")?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let end: u64 = expires.parse().map_err(|_| "no number")?;
    if end < now || end > now + 3600 {
        return Err("the signature is over".into());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let arguments: BTreeMap<_, _> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let names: Vec<_> = arguments.keys().copied().collect();
    if fields.get("signed-query-args").copied().unwrap_or_default() != names.join(";") {
        return Err("arguments are not signed".into());
    }
    let values: String = arguments.values().copied().collect();
    let message = format!("{method} {path}\n{body}\n{values}\n\n{expires}");
    let mut openssl = Command::new("openssl")
        .args([
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-macopt",
            &format!("key:{SECRET}"),
            "-binary",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl must be installed");
    openssl
        .stdin
        .take()
        .unwrap()
        .write_all(message.as_bytes())
        .unwrap();
    let digest = openssl.wait_with_output().unwrap().stdout;
    let signature = fields.get("signature").copied().unwrap_or_default();
    if base64(&digest) != signature {
        return Err("the signature is not right".into());
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn respond(method: &str, target: &str, body: &str, known: &Mutex<Known>) -> (u16, Value) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let [environment, zone, "v2", rest @ ..] = parts.as_slice() else {
        return (404, json!({"message": "no such path"}));
    };
    let mut known = known.lock().unwrap();
    known.seen.push(format!("{method} {path}"));
    known.count += 1;
    let id = format!("00000000-0000-4000-8000-{:012}", known.count);
    let of = |id: &str| ((*environment).to_owned(), id.to_owned());
    match (method, rest) {
        ("GET", ["template"]) => {
            assert_eq!(query, "visibility=private");
            let own = known
                .templates
                .iter()
                .filter(|((name, _), _)| name == environment);
            let list: Vec<_> = own.map(|(_, template)| template.clone()).collect();
            (200, json!({ "templates": list }))
        }
        ("GET", ["template", id]) => match known.templates.get(&of(id)) {
            Some(template) => (200, template.clone()),
            None => (404, json!({"message": "Not Found"})),
        },
        ("POST", ["template"]) => {
            let wanted: Value = serde_json::from_str(body).unwrap();
            for field in [
                "name",
                "url",
                "checksum",
                "password-enabled",
                "ssh-key-enabled",
            ] {
                if wanted.get(field).is_none() {
                    return (400, json!({"message": format!("{field} is missing")}));
                }
            }
            let failure = known.failing.clone().or_else(|| fetched(&wanted));
            let mut template = wanted;
            template["id"] = json!(id);
            template["zones"] = json!([zone]);
            template["visibility"] = json!("private");
            let then = failure.is_none().then(|| (of(&id), template));
            begin(&mut known, &id, failure.as_deref(), then)
        }
        ("POST", ["template", id]) => {
            let wanted: Value = serde_json::from_str(body).unwrap();
            let further = wanted["target-zone"]["name"].as_str().unwrap().to_owned();
            let Some(mut template) = known.templates.get(&of(id)).cloned() else {
                return (404, json!({"message": "Not Found"}));
            };
            template["zones"]
                .as_array_mut()
                .unwrap()
                .push(json!(further));
            let then = Some((of(id), template));
            begin(&mut known, id, None, then)
        }
        ("GET", ["operation", id]) => {
            let Some(operation) = known.operations.get_mut(*id) else {
                return (404, json!({"message": "Not Found"}));
            };
            operation.looks = operation.looks.saturating_sub(1);
            if operation.looks > 0 {
                let mut pending = operation.body.clone();
                pending["state"] = json!("pending");
                return (200, pending);
            }
            let (body, then) = (operation.body.clone(), operation.then.take());
            known.templates.extend(then);
            (200, body)
        }
        _ => match instances::respond(&mut known.machines, method, rest, body, &id) {
            Some(Answer::Told(told)) => (200, told),
            Some(Answer::Refused(status, why)) => (status, why),
            Some(Answer::Begun(of)) => begin(&mut known, &of, None, None),
            None => (404, json!({"message": "no such path"})),
        },
    }
}

/// Why an image cannot be had by its URL.
fn fetched(wanted: &Value) -> Option<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let url = wanted["url"].as_str().unwrap();
    let got = oracle_tools::run(Path::new("/"), "curl", &["-sf", "-o", path, url]);
    if !got.status.success() {
        return Some("the image cannot be read".into());
    }
    (wanted["checksum"] != sum("md5sum", file.path()).as_str())
        .then(|| "the checksum is another one".into())
}

fn begin(
    known: &mut Known,
    template: &str,
    failure: Option<&str>,
    then: Option<((String, String), Value)>,
) -> (u16, Value) {
    let id = format!("operation-{}", known.count);
    let state = if failure.is_some() {
        "failure"
    } else {
        "success"
    };
    let body = json!({
        "id": id, "state": state, "message": failure, "reason": failure.map(|_| "incorrect"),
        "reference": {"id": template, "link": format!("/v2/template/{template}"), "command": "get-template"},
    });
    let mut answer = body.clone();
    answer["state"] = json!("pending");
    let looks = known.slowness;
    known.operations.insert(id, Operation { looks, body, then });
    (200, answer)
}

/// A program that has the cloud and its store.
pub fn program(cloud: &Cloud) -> Program {
    let mut program = Program::new();
    program.set("EXOSCALE_API_KEY", KEY);
    program.set("EXOSCALE_API_SECRET", SECRET);
    program.set("EXOSCALE_API_ENDPOINT", &cloud.endpoint());
    program
}

/// An image that nobody could start: its rules are looked at elsewhere.
fn image(program: &Program, name: &str, pattern: u8) -> std::path::PathBuf {
    let here = program.home.path();
    oracle_tools::must(
        here,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", name, "10G"],
    );
    oracle_tools::qemu_io(here, name, &[&format!("write -q -P {pattern} 1M 1M")]);
    program.path(name)
}

const PUBLISH: [&str; 15] = [
    "publish",
    "web.qcow2",
    "--to",
    "exoscale",
    "--bucket",
    "images",
    "--name",
    "Web 12",
    "--zone",
    "ch-gva-2,de-fra-1",
    "--poll",
    "0.05",
    "--force",
    "--boot-mode",
    "uefi",
];

#[test]
fn an_image_becomes_a_template_in_all_zones_and_its_object_goes() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let wire = Wire::to(store.port());
    let program = program(&cloud);
    let path = image(&program, "web.qcow2", 1);
    let endpoint = wire.endpoint();
    let fields = [
        "--endpoint",
        &endpoint,
        "--description",
        "the web",
        "--username",
        "debian",
        "--maintainer",
        "us",
        "--version-name",
        "12",
        "--build-name",
        "7",
        "--disable-password",
        "--consistent-snapshots",
    ];
    let done = program.json(&[&PUBLISH[..], &fields].concat());
    assert_eq!(done["zones"], json!(["ch-gva-2", "de-fra-1"]));
    assert_eq!(done["checksum"], sum("md5sum", &path).as_str());
    assert_eq!(
        (done["object-kept"].as_bool(), done["was-there"].as_bool()),
        (Some(false), Some(false))
    );
    assert!(!store.object("web.qcow2").exists());
    let templates = cloud.templates("api");
    assert_eq!(templates.len(), 1);
    let template = &templates[0];
    for (field, value) in [
        ("name", json!("Web 12")),
        ("description", json!("the web")),
        ("default-user", json!("debian")),
        ("maintainer", json!("us")),
        ("version", json!("12")),
        ("build", json!("7")),
        ("boot-mode", json!("uefi")),
        ("password-enabled", json!(false)),
        ("ssh-key-enabled", json!(true)),
        ("application-consistent-snapshot-enabled", json!(true)),
        ("zones", json!(["ch-gva-2", "de-fra-1"])),
    ] {
        assert_eq!(template[field], value, "{field}");
    }
    assert!(
        template["url"]
            .as_str()
            .unwrap()
            .contains("X-Amz-Signature="),
        "{template}"
    );
    let put = wire
        .seen()
        .into_iter()
        .find(|seen| seen.line.starts_with("PUT "))
        .unwrap();
    assert_eq!(put.header("x-amz-acl"), None);
    assert!(put.line.contains("%2Fch-gva-2%2Fs3"), "{}", put.line);
    // Once more: nothing is sent, and nothing registered.
    cloud.forget();
    wire.forget();
    let again = program.json(&[&PUBLISH[..], &fields].concat());
    assert_eq!(
        (again["was-there"].as_bool(), &again["template"]),
        (Some(true), &done["template"])
    );
    assert_eq!(cloud.requests("POST"), 0);
    assert!(!wire.seen().iter().any(|seen| seen.line.starts_with("PUT ")));
    // Another image of the same name is another template.
    image(&program, "web.qcow2", 2);
    assert_eq!(
        program.json(&[&PUBLISH[..], &fields].concat())["was-there"],
        false
    );
    assert_eq!(cloud.templates("api").len(), 2);
}

#[test]
fn the_object_is_public_when_that_is_asked_for() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let wire = Wire::to(store.port());
    let program = program(&cloud);
    image(&program, "web.qcow2", 3);
    let endpoint = wire.endpoint();
    // The server keeps no ACLs, so the cloud cannot read it; the header is signed all the same.
    let said = program.fails(
        1,
        &[&PUBLISH[..], &["--endpoint", &endpoint, "--public"]].concat(),
    );
    assert!(
        said.contains("failure: incorrect: the image cannot be read"),
        "{said}"
    );
    let put = wire
        .seen()
        .into_iter()
        .find(|seen| seen.line.starts_with("PUT "))
        .unwrap();
    assert_eq!(put.header("x-amz-acl"), Some("public-read"));
    assert!(put.line.contains("x-amz-acl"), "{}", put.line);
    // A failed publish keeps both; the next one goes on from there.
    assert!(program.path("web.qcow2").exists() && store.object("web.qcow2").exists());
    wire.forget();
    program.json(&[&PUBLISH[..], &["--endpoint", &endpoint]].concat());
    assert!(!wire.seen().iter().any(|seen| seen.line.starts_with("PUT ")));
}

#[test]
fn a_template_of_preproduction_is_released() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let program = program(&cloud);
    image(&program, "web.qcow2", 4);
    let endpoint = store.endpoint();
    let further = [
        "--endpoint",
        &endpoint,
        "--environment",
        "ppapi",
        "--keep-object",
        "--version-name",
        "9",
    ];
    let done = program.json(&[&PUBLISH[..], &further].concat());
    assert!(store.object("web.qcow2").exists());
    assert!(cloud.templates("api").is_empty());
    let id = done["template"].as_str().unwrap();
    let release = [
        "release",
        id,
        "--zone",
        "ch-gva-2,at-vie-1",
        "--endpoint",
        &endpoint,
        "--poll",
        "0.05",
    ];
    let released = program.json(&[&release[..], &["--keep-object"]].concat());
    assert_eq!(released["checksum"], done["checksum"]);
    assert_eq!(released["zones"], json!(["ch-gva-2", "at-vie-1"]));
    let (before, after) = (&cloud.templates("ppapi")[0], &cloud.templates("api")[0]);
    for field in [
        "name",
        "checksum",
        "boot-mode",
        "version",
        "password-enabled",
        "ssh-key-enabled",
    ] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert!(store.object("web.qcow2").exists());
    // Once more: it is there, and now its object goes.
    let again = program.json(&release);
    assert_eq!(
        (again["was-there"].as_bool(), again["object-kept"].as_bool()),
        (Some(true), Some(false))
    );
    assert!(!store.object("web.qcow2").exists());
    assert_eq!(cloud.templates("api").len(), 1);
    let said = program.fails(1, &["release", "no-such", "--zone", "ch-gva-2"]);
    assert!(
        said.contains("there is no template no-such in ppapi"),
        "{said}"
    );
    let said = program.fails(1, &["release", "../x", "--zone", "ch-gva-2"]);
    assert!(said.contains("is no template's id"), "{said}");
}

#[test]
fn a_publish_that_is_killed_while_the_cloud_works_registers_once() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let program = program(&cloud);
    image(&program, "web.qcow2", 5);
    let endpoint = store.endpoint();
    let arguments = [&PUBLISH[..], &["--endpoint", &endpoint]].concat();
    cloud.known.lock().unwrap().slowness = 1_000_000;
    let mut child = program.command(&arguments).spawn().unwrap();
    let began = std::time::Instant::now();
    while cloud.requests("GET /api/ch-gva-2/v2/operation/") < 2 {
        assert!(began.elapsed().as_secs() < 120);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut known = cloud.known.lock().unwrap();
    known.slowness = 2;
    for operation in known.operations.values_mut() {
        operation.looks = 2;
    }
    drop(known);
    program.json(&arguments);
    assert_eq!(
        cloud.requests("POST /api/ch-gva-2/v2/template"),
        2,
        "one template, and one copy of it"
    );
    assert_eq!(cloud.templates("api").len(), 1);
}

#[test]
fn refusals_of_the_cloud_are_told_with_what_to_do() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let mut program = program(&cloud);
    image(&program, "web.qcow2", 6);
    let endpoint = store.endpoint();
    let arguments = [&PUBLISH[..], &["--endpoint", &endpoint]].concat();
    cloud.known.lock().unwrap().failing = Some("the quota is used up".into());
    let said = program.fails(1, &arguments);
    assert!(
        said.contains("the quota is used up") && said.contains("hint: the image is still"),
        "{said}"
    );
    program.set("EXOSCALE_API_SECRET", "another-secret");
    let said = program.fails(1, &arguments);
    assert!(
        said.contains("403: the signature is not right") && said.contains("EXOSCALE_API_SECRET"),
        "{said}"
    );
    assert!(!said.contains("another-secret"), "{said}");
    program.unset("EXOSCALE_API_KEY");
    assert!(
        program
            .fails(1, &arguments)
            .contains("there is no key for Exoscale")
    );
    for missing in ["--zone", "--bucket", "--name"] {
        let at = PUBLISH.iter().position(|word| *word == missing).unwrap();
        let fewer = [&PUBLISH[..at], &PUBLISH[at + 2..]].concat();
        let said = program.fails(1, &fewer);
        assert!(said.contains(&format!("give {missing}")), "{said}");
    }
}

#[test]
fn an_image_that_breaks_the_rules_is_not_sent() {
    let (cloud, store) = (Cloud::new(), Store::new());
    let program = program(&cloud);
    let here = program.home.path();
    let wire = Wire::to(store.port());
    let endpoint = wire.endpoint();
    let publish = |name: &str, mode: &str| {
        program.fails(
            2,
            &[
                "publish",
                name,
                "--to",
                "exoscale",
                "--bucket",
                "images",
                "--name",
                "n",
                "--zone",
                "ch-gva-2",
                "--boot-mode",
                mode,
                "--endpoint",
                &endpoint,
            ],
        )
    };
    // A real system: small, without files for UEFI or with them.
    let debian = std::env::var("QIMG_TEST_IMAGE").unwrap_or_else(|_| {
        format!(
            "{}/.cache/qimg-tests/debian-12.qcow2",
            std::env::var("HOME").unwrap()
        )
    });
    oracle_tools::must(here, "cp", &["--sparse=always", &debian, "d.qcow2"]);
    let said = publish("d.qcow2", "legacy");
    assert!(
        said.contains("the least is 10 GiB") && said.contains("qimg resize d.qcow2 10G"),
        "{said}"
    );
    oracle_tools::must(here, "qemu-img", &["resize", "-q", "d.qcow2", "10G"]);
    for mode in ["legacy", "uefi"] {
        let findings = qimg::publish::exoscale::preflight(&program.path("d.qcow2"), mode).unwrap();
        assert_eq!(findings, [], "the real system keeps all rules");
    }
    image(&program, "blank.qcow2", 7);
    for (mode, firmware) in [("legacy", "BIOS"), ("uefi", "UEFI")] {
        let said = publish("blank.qcow2", mode);
        assert!(said.contains(&format!("to boot by {firmware}")), "{said}");
        assert!(said.contains("cloud-init is not looked for"), "{said}");
    }
    // Raw, too large, and in need of another file.
    oracle_tools::must(here, "truncate", &["-s", "101G", "large.raw"]);
    let said = publish("large.raw", "legacy");
    assert!(
        said.contains("is no qcow2 image") && said.contains("the most is 100 GiB"),
        "{said}"
    );
    oracle_tools::must(
        here,
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-b", "d.qcow2", "-F", "qcow2", "o.qcow2",
        ],
    );
    let said = publish("o.qcow2", "legacy");
    assert!(said.contains("needs the file d.qcow2"), "{said}");
    assert!(wire.seen().is_empty());
    assert_eq!(cloud.requests(""), 0);
}

/// Also for tests of post-processors.
pub fn template_names(cloud: &Cloud) -> Vec<String> {
    let templates = cloud.templates("api");
    templates
        .iter()
        .map(|template| template["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Bytes that are an image, for whoever does not look.
pub fn any_image(program: &Program) -> std::path::PathBuf {
    assert!(!bytes(1, 1).is_empty());
    image(program, "output.qcow2", 9)
}
