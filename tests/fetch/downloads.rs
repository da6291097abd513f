//! What servers do, and what comes of it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qimg::ErrorKind;
use qimg::fetch::{Event, Proxies, Step};

use super::server::{Server, file, head, status};
use super::{Bench, noise, oracle_tools, read, sha256};

#[test]
fn a_file_is_downloaded_once_and_its_progress_told() {
    let bytes = noise(3_000_000);
    let server = Server::of(bytes.clone());
    let bench = Bench::of(server.url("a/disk.img")).expecting(&bytes);
    let mut last = None;
    let fetched = bench
        .fetch_with(&|| false, &mut |event| {
            if let Event::Progress {
                step: Step::Download,
                done,
                total,
            } = event
            {
                last = Some((done, total));
            }
        })
        .unwrap();
    assert_eq!(last, Some((3_000_000, Some(3_000_000))));
    assert!(!fetched.cached);
    assert_eq!(read(&fetched.path), bytes);
    assert_eq!(fetched.sha256(), Some(&sha256(&bytes)));
    assert_eq!(fetched.virtual_size, 3_000_320, "whole sectors");
    assert!(server.requests()[0].header("accept-encoding") == Some("identity"));
    drop(fetched);
    let again = bench.fetch().unwrap();
    assert!(again.cached);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_wrong_checksum_removes_the_download() {
    let server = Server::of(noise(1000));
    let bench = Bench::of(server.url("disk.img")).expecting(b"something else");
    let error = bench.fetch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let message = error.to_string();
    assert!(
        message.contains(&sha256(&noise(1000)).to_string()),
        "{message}"
    );
    assert!(message.contains(&bench.checksum), "{message}");
    assert!(bench.options.cache.list().unwrap().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn what_was_cut_off_goes_on_where_it_ended() {
    let bytes = noise(4_000_000);
    let served = bytes.clone();
    let server = Server::new(move |request, wire| match request.number {
        0 => {
            let headers = [
                ("Content-Length", served.len().to_string()),
                ("ETag", "\"1\"".into()),
            ];
            head(wire, "200 OK", &headers);
            let _ = wire.write_all(&served[..1_500_000]);
        }
        1 => status(wire, "503 Service Unavailable"),
        2 => {
            assert_eq!(request.header("if-range"), Some("\"1\""));
            let from = request.from().unwrap();
            let headers = [
                (
                    "Content-Range",
                    format!("bytes {from}-{}/{}", served.len() - 1, served.len()),
                ),
                ("Content-Length", (served.len() - from).to_string()),
                ("ETag", "\"1\"".into()),
            ];
            head(wire, "206 Partial Content", &headers);
            let _ = wire.write_all(&served[from..from + 1_000_000]);
        }
        _ => file(request, wire, &served, Some("\"1\"")),
    });
    for checksum in [sha256(&bytes).to_string(), String::new()] {
        let mut bench = Bench::of(server.url("disk.img"));
        bench.checksum = checksum;
        let mut told = Vec::new();
        let fetched = bench.fetch_telling(&mut told).unwrap();
        assert_eq!(read(&fetched.path), bytes);
        if !bench.checksum.is_empty() {
            assert_eq!(told.len(), 3, "{told:#?}");
            assert!(told[0].contains("1500000 of 4000000"), "{told:#?}");
            assert!(told[1].contains("503"), "{told:#?}");
            assert_eq!(server.requests()[3].from(), Some(2_500_000));
        }
    }
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let bytes = noise(2_000_000);
    let served = bytes.clone();
    let server = Server::new(move |request, wire| {
        let length = ("Content-Length", served.len().to_string());
        head(wire, "200 OK", &[length, ("ETag", "\"1\"".into())]);
        let end = if request.number == 0 {
            1_200_000
        } else {
            served.len()
        };
        let _ = wire.write_all(&served[..end]);
    });
    let bench = Bench::of(server.url("disk.img")).expecting(&bytes);
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].from(), Some(1_200_000));
}

#[test]
fn a_file_that_changed_in_between_is_got_as_a_whole() {
    let (old, new) = (noise(2_000_000), vec![7; 1_900_000]);
    let served = new.clone();
    let first = old.clone();
    let server = Server::new(move |request, wire| match request.number {
        0 => {
            let length = ("Content-Length", first.len().to_string());
            head(wire, "200 OK", &[length, ("ETag", "\"old\"".into())]);
            let _ = wire.write_all(&first[..1_000_000]);
        }
        _ => file(request, wire, &served, Some("\"new\"")),
    });
    let bench = Bench::of(server.url("disk.img"));
    assert_eq!(read(&bench.fetch().unwrap().path), new);
}

/// Without a validator the parts of two states of a file can only be told by the checksum.
#[test]
fn two_states_put_together_are_noticed_and_got_anew() {
    let (old, new) = (noise(2_000_000), vec![7; 2_000_000]);
    let served = new.clone();
    let server = Server::new(move |request, wire| match request.number {
        0 => {
            head(wire, "200 OK", &[("Content-Length", old.len().to_string())]);
            let _ = wire.write_all(&old[..1_000_000]);
        }
        _ => file(request, wire, &served, None),
    });
    let bench = Bench::of(server.url("disk.img")).expecting(&new);
    assert_eq!(read(&bench.fetch().unwrap().path), new);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_server_that_lies_about_the_length_is_given_up() {
    let server = Server::new(|_, wire| {
        head(wire, "200 OK", &[("Content-Length", "1000000".into())]);
        let _ = wire.write_all(&[1; 1000]);
    });
    let bench = Bench::of(server.url("disk.img"));
    let error = bench.fetch().unwrap_err();
    assert!(
        error.to_string().contains("1000000 bytes") || error.to_string().contains("length"),
        "{error}"
    );
    assert!(server.requests().len() < 10);
}

#[test]
fn a_part_that_was_not_asked_for_is_refused() {
    let server = Server::new(|_, wire| {
        let headers = [
            ("Content-Range", "bytes 5-9/10".to_owned()),
            ("Content-Length", "5".to_owned()),
        ];
        head(wire, "206 Partial Content", &headers);
        let _ = wire.write_all(b"56789");
    });
    let error = Bench::of(server.url("disk.img")).fetch().unwrap_err();
    assert!(error.to_string().contains("another part"), "{error}");
}

#[test]
fn a_body_without_end_ends_at_the_limit() {
    let server = Server::new(|_, wire| {
        head(wire, "200 OK", &[]);
        while wire.write_all(&[1; 65536]).is_ok() {}
    });
    let mut bench = Bench::of(server.url("disk.img"));
    bench.options.most = 5 << 20;
    let error = bench.fetch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("longer than 5242880"), "{error}");
    // Said beforehand, it is not even begun.
    let server = Server::new(|_, wire| {
        head(
            wire,
            "200 OK",
            &[("Content-Length", (1u64 << 50).to_string())],
        );
    });
    let error = Bench::of(server.url("disk.img")).fetch().unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    let mut bench = Bench::of(server.url("disk.img"));
    bench.options.most = u64::MAX;
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("there is space for"), "{error}");
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let bytes = noise(1000);
    let served = bytes.clone();
    let server = Server::new(move |request, wire| match request.path.as_str() {
        "/loop" => head(
            wire,
            "302 Found",
            &[("Location", "/loop".into()), ("Content-Length", "0".into())],
        ),
        "/here" => head(
            wire,
            "301 Moved",
            &[
                ("Location", "there/disk.img".into()),
                ("Content-Length", "0".into()),
            ],
        ),
        _ => file(request, wire, &served, None),
    });
    let bench = Bench::of(server.url("here")).expecting(&bytes);
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);
    let error = Bench::of(server.url("loop")).fetch().unwrap_err();
    assert!(
        error.to_string().contains("redirects without end"),
        "{error}"
    );
    assert!(server.requests().len() < 20);
}

#[test]
fn the_next_source_is_tried_and_each_failure_told() {
    let bytes = noise(1000);
    let served = bytes.clone();
    let server = Server::new(move |request, wire| match request.path.as_str() {
        "/good" => file(request, wire, &served, None),
        "/other" => file(request, wire, b"other bytes", None),
        _ => status(wire, "404 Not Found"),
    });
    let mut bench = Bench::new().expecting(&bytes);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/disk.img", listener.local_addr().unwrap())
    };
    bench.options.http.retries = 0;
    bench.urls = vec![
        "missing.img".into(),
        server.url("none"),
        nobody,
        server.url("other"),
        server.url("good"),
    ];
    let mut told = Vec::new();
    let fetched = bench.fetch_telling(&mut told).unwrap();
    assert_eq!(read(&fetched.path), bytes);
    assert_eq!(fetched.source, server.url("good"));
    assert_eq!(told.len(), 4, "{told:#?}");
    for (line, part) in told
        .iter()
        .zip(["missing.img", "404 Not Found", "refused", "comes to"])
    {
        assert!(line.contains(part), "{line}");
    }
    bench.urls.pop();
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    let error = bench.fetch().unwrap_err();
    let message = error.to_string();
    for part in ["none of the 4", "missing.img", "404", "comes to"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(error.remedy().is_some());
}

#[test]
fn other_failures_than_passing_ones_are_final() {
    for code in [
        "404 Not Found",
        "403 Forbidden",
        "401 Unauthorized",
        "410 Gone",
    ] {
        let server = Server::new(move |_, wire| status(wire, code));
        let error = Bench::of(server.url("disk.img")).fetch().unwrap_err();
        assert!(error.to_string().contains(code), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    let server = Server::new(|_, wire| status(wire, "500 Internal Server Error"));
    assert!(Bench::of(server.url("disk.img")).fetch().is_err());
    assert_eq!(server.requests().len(), 4, "three further tries");
    let server = Server::new(|_, wire| {
        let _ = wire.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n");
    });
    assert!(Bench::of(server.url("disk.img")).fetch().is_err());
}

#[test]
fn silence_ends_a_download_and_slowness_does_not() {
    let server = Server::new(|_, wire| {
        head(wire, "200 OK", &[("Content-Length", "1000".into())]);
        let _ = wire.write_all(&[1; 10]);
        std::thread::sleep(Duration::from_secs(5));
    });
    let mut bench = Bench::of(server.url("disk.img"));
    bench.options.http.silence_timeout = Duration::from_millis(300);
    bench.options.http.retries = 0;
    let started = Instant::now();
    let error = bench.fetch().unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(error.to_string().contains("10 of 1000"), "{error}");

    let server = Server::new(|_, wire| {
        head(wire, "200 OK", &[("Content-Length", "1024".into())]);
        for _ in 0..16 {
            std::thread::sleep(Duration::from_millis(100));
            let _ = wire.write_all(&[1; 64]);
            let _ = wire.flush();
        }
    });
    let mut bench = Bench::of(server.url("disk.img"));
    bench.options.http.silence_timeout = Duration::from_millis(800);
    assert_eq!(read(&bench.fetch().unwrap().path), [1; 1024]);
}

#[test]
fn whoever_stops_does_not_wait() {
    let silent = |head_first: bool| {
        Server::new(move |_, wire| {
            if head_first {
                head(wire, "200 OK", &[("Content-Length", "1000".into())]);
            }
            std::thread::sleep(Duration::from_secs(5));
        })
    };
    let passing = Server::new(|_, wire| status(wire, "503 Service Unavailable"));
    let (no_head, no_body) = (silent(false), silent(true));
    // Nobody answers at such an address, and nobody refuses.
    let nowhere = "http://192.0.2.1/disk.img".to_owned();
    for url in [
        no_head.url("a"),
        no_body.url("a"),
        passing.url("a"),
        nowhere,
    ] {
        let mut bench = Bench::of(&url);
        bench.options.http.silence_timeout = Duration::from_secs(30);
        bench.options.http.connect_timeout = Duration::from_secs(30);
        bench.options.http.retry_pause = Duration::from_secs(30);
        let stop = Arc::new(AtomicBool::new(false));
        let (set, seen) = (Arc::clone(&stop), Arc::clone(&stop));
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            set.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let error = bench
            .fetch_with(&move || seen.load(Ordering::Relaxed), &mut |_| {})
            .unwrap_err();
        let ended = Instant::now();
        // Without a route to an address that does not answer, the kernel says so at once.
        if error.kind() == ErrorKind::Cancelled {
            let waited = ended.saturating_duration_since(stopper.join().unwrap());
            assert!(waited < Duration::from_millis(400), "{url}: {waited:?}");
        } else {
            assert!(url.contains("192.0.2.1"), "{url}: {error}");
        }
    }
}

#[test]
fn passwords_and_signatures_of_urls_are_not_told() {
    let server = Server::new(|request, wire| {
        if request.header("authorization").is_some() {
            return status(wire, "404 Not Found");
        }
        status(wire, "401 Unauthorized");
    });
    let url = server
        .url("disk.img?X-Signature=topsecret")
        .replace("http://", "http://user:topsecret@");
    let bench = Bench::of(url);
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    assert!(!format!("{error:?}").contains("topsecret"), "{error:?}");
}

#[test]
fn a_certificate_counts_only_if_its_authority_is_known() {
    let bytes = noise(1000);
    let bench = Bench::new();
    let openssl = |arguments: &[&str]| {
        oracle_tools::must(bench.directory.path(), "openssl", arguments);
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
    ]);
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
        "-subj",
        "/CN=server",
    ]);
    bench.write(
        "extensions",
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    );
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "extensions",
        "-out",
        "server.pem",
    ]);
    let served = bytes.clone();
    let plain = Server::of(bytes.clone());
    let elsewhere = plain.url("disk.img");
    let server = Server::encrypted(
        &bench.path("server.pem"),
        &bench.path("server.key"),
        move |request, wire| {
            if request.path == "/down" {
                let headers = [
                    ("Location", elsewhere.clone()),
                    ("Content-Length", "0".into()),
                ];
                return head(wire, "302 Found", &headers);
            }
            file(request, wire, &served, Some("\"1\""));
        },
    );
    let mut bench = Bench {
        urls: vec![server.url("disk.img")],
        ..bench
    };
    let error = bench.fetch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("cannot prove who it is"),
        "{error}"
    );
    assert!(error.remedy().unwrap().contains("PEM"));
    assert_eq!(server.requests().len(), 0);

    bench.options.http.ca_file = Some(bench.path("ca.pem"));
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);

    bench.urls = vec![server.url("down")];
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("without encryption"), "{error}");
    bench.checksum = sha256(&bytes).to_string();
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);

    bench.checksum = format!("file:{}", server.url("down"));
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("without encryption"), "{error}");

    bench.options.http.ca_file = Some(bench.write("none.pem", "nothing"));
    let error = bench.fetch().unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[test]
fn a_proxy_is_used_but_for_hosts_that_need_none() {
    let bytes = noise(500_000);
    let server = Server::of(bytes.clone());
    let target = server.port();
    let proxy = Server::new(move |request, wire| {
        // `CONNECT host:port`, and then both ways.
        assert_eq!(request.path, format!("127.0.0.1:{target}"));
        assert_eq!(
            request.header("proxy-authorization"),
            Some("Basic dXNlcjpwYXNz")
        );
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let mut far = std::net::TcpStream::connect(("127.0.0.1", target)).unwrap();
        let mut asked = Vec::new();
        let mut byte = [0];
        while !asked.ends_with(b"\r\n\r\n") && wire.read(&mut byte).is_ok_and(|read| read == 1) {
            asked.push(byte[0]);
        }
        far.write_all(&asked).unwrap();
        let _ = std::io::copy(&mut far, wire);
    });
    let url = proxy.url("").replace("http://", "http://user:pass@");
    let mut bench = Bench::of(server.url("disk.img")).expecting(&bytes);
    bench.options.http.proxies = Proxies {
        http: Some(url),
        https: None,
        none_for: Some("elsewhere.example".into()),
    };
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);
    assert_eq!(proxy.requests().len(), 1);
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    bench.options.http.proxies.none_for = Some("127.0.0.1".into());
    assert_eq!(read(&bench.fetch().unwrap().path), bytes);
    assert_eq!(proxy.requests().len(), 1);
}
