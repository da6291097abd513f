use super::*;

/// One file.
struct One;

impl Site for One {
    fn find(&self, path: &str) -> Found {
        match path {
            "/user-data" => Found::Bytes(b"#cloud-config\n".to_vec(), "text/plain; charset=utf-8"),
            "/secret" => Found::Forbidden,
            _ => Found::Missing(Some("/user-data".to_owned())),
        }
    }
}

fn ask(request: &str) -> (u16, String, Vec<u8>) {
    let response = respond(&One, Some(request.as_bytes()));
    let body = match response.body {
        Body::Bytes(bytes) => bytes,
        _ => Vec::new(),
    };
    (
        response.status,
        String::from_utf8(response.head).unwrap(),
        body,
    )
}

#[test]
fn only_what_the_site_has_is_there() {
    let (status, head, body) = ask("GET /user-data HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((status, body.as_slice()), (200, &b"#cloud-config\n"[..]));
    assert!(head.contains("Content-Length: 14\r\n") && head.ends_with("\r\n\r\n"));
    assert_eq!(ask("GET //user-data?x=1 HTTP/1.0\r\n\r\n").0, 200);
    let (status, head, body) = ask("HEAD /user-data HTTP/1.1\r\n\r\n");
    assert!(status == 200 && head.contains("Content-Length: 14\r\n") && body.is_empty());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 404),
        ("GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        ("GET /user-data/ HTTP/1.1\r\n\r\n", 404),
        ("GET /secret HTTP/1.1\r\n\r\n", 403),
        ("POST /user-data HTTP/1.1\r\n\r\n", 405),
        ("GET /user-data\r\n\r\n", 400),
        ("\x16\x03\x01", 400),
        ("", 400),
    ] {
        assert_eq!(ask(request).0, status, "{request:?}");
    }
    let (_, _, body) = ask("GET /user-dat HTTP/1.1\r\n\r\n");
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("did you mean /user-data?")
    );
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(server.guest_url().starts_with("http://10.0.2.2:"));
    let stop = AtomicBool::new(false);
    let seen = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.run(&One, &stop, &|answered| {
                seen.lock()
                    .unwrap()
                    .push((answered.request.clone(), answered.status));
                false
            })
        });
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream
            .write_all(b"GET /user-data HTTP/1.1\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n#cloud-config\n")
        );
        // One that says nothing, and one that never ends, do not keep it.
        drop(TcpStream::connect(server.address()).unwrap());
        let mut endless = TcpStream::connect(server.address()).unwrap();
        endless.write_all(b"GET /").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], ("GET /user-data HTTP/1.1".to_owned(), 200));
}

#[test]
fn a_request_that_is_too_long_ends() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| server.run(&One, &stop, &|_| false));
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let long = vec![b'x'; 4 * MAX_HEAD];
        // It may hang up while this is sent.
        let _ = stream.write_all(&long);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 400"));
        stop.store(true, Ordering::Relaxed);
    });
}
