//! HTTP PUT to a server that keeps what it gets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::servers::{Seen, parse, read_head};
use crate::{Program, bytes, sum};

type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

struct Server {
    port: u16,
    kept: Kept,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Takes what comes with this `Authorization`.
    fn new(authorization: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (kept, seen) = (Kept::default(), Arc::new(Mutex::new(Vec::new())));
        let (own, told) = (Arc::clone(&kept), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Ok(head) = read_head(&mut stream) else {
                    continue;
                };
                let request = parse(&head);
                told.lock().unwrap().push(request.clone());
                let length = request
                    .header("content-length")
                    .and_then(|text| text.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                let mut words = request.line.split(' ');
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                let (status, body) = match method {
                    _ if request.header("authorization") != Some(authorization) => {
                        ("401 No", b"who are you".to_vec())
                    }
                    "PUT" => {
                        own.lock().unwrap().insert(path.to_owned(), body);
                        ("201 Made", Vec::new())
                    }
                    _ => (
                        "200 Here",
                        own.lock().unwrap().get(path).cloned().unwrap_or_default(),
                    ),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body));
            }
        });
        Self { port, kept, seen }
    }
}

#[test]
fn a_file_is_put_with_its_digests_and_read_back() {
    let (server, mut program) = (Server::new("Bearer of-tests"), Program::new());
    let content = bytes(3 << 20, 11);
    let path = program.file("web.qcow2", &content);
    let url = format!("http://127.0.0.1:{}/images/?key=hidden", server.port);
    let place = format!("http://127.0.0.1:{}/images/", server.port);
    let said = program.fails(1, &["publish", "web.qcow2", "--to", &url]);
    assert!(
        said.contains("401: who are you") && said.contains("QIMG_PUT_AUTHORIZATION"),
        "{said}"
    );
    assert!(!said.contains("hidden"), "{said}");
    program.set("QIMG_PUT_AUTHORIZATION", "Bearer of-tests");
    let done = program.json(&["publish", "web.qcow2", "--to", &place, "--verify"]);
    assert_eq!(done["read-back"], true);
    assert_eq!(done["sha256"], sum("sha256sum", &path).as_str());
    assert_eq!(server.kept.lock().unwrap()["/images/web.qcow2"], content);
    let seen = server.seen.lock().unwrap();
    let put = seen
        .iter()
        .rfind(|seen| seen.line.starts_with("PUT "))
        .unwrap();
    assert!(put.header("repr-digest").unwrap().starts_with("sha-256=:"));
    assert_eq!(put.header("content-md5").unwrap().len(), 24);
}
