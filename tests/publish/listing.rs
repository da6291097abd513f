//! A server that lists uploads which are going on, as the large ones do and the real one of these tests does not: a new
//! machine, which remembers nothing, goes on with what another one began.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use qimg::publish::Original;
use qimg::publish::s3::{self, Credentials, LEAST_PART, Target};

use crate::servers::{parse, read_head};
use crate::{Program, bytes, http, sum};

#[derive(Default)]
struct Kept {
    /// Parts of the one upload, by number.
    parts: BTreeMap<u16, Vec<u8>>,
    /// The ETags of parts are no MD5s, as where the server encrypts.
    encrypts: bool,
    object: Option<Vec<u8>>,
    begun: usize,
    sent: usize,
    read: usize,
}

fn etag(kept: &Kept, bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let md5 = sum("md5sum", file.path());
    if kept.encrypts {
        format!("enc-{md5}")
    } else {
        md5
    }
}

fn answer(mut stream: TcpStream, kept: &Mutex<Kept>) {
    let Ok(head) = read_head(&mut stream) else {
        return;
    };
    let request = parse(&head);
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let mut words = request.line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let asks = |name: &str| target.contains(&format!("{name}="));
    let mut kept = kept.lock().unwrap();
    let mut headers = String::new();
    let (status, text) = match method {
        "HEAD" => match &kept.object {
            None => ("404 No", Vec::new()),
            Some(object) => {
                headers = format!(
                    "content-length: {}\r\netag: \"of-its-own\"\r\n",
                    object.len()
                );
                ("200 Here", Vec::new())
            }
        },
        "GET" if asks("uploads") => {
            assert!(asks("prefix"));
            let text = "<ListMultipartUploadsResult><Upload><Key>web.qcow2</Key><UploadId>up-1</UploadId>\
                <Initiated>2026-01-01T00:00:00Z</Initiated></Upload></ListMultipartUploadsResult>";
            ("200 Here", text.into())
        }
        "GET" if asks("uploadId") => {
            // One at a time, so that the list goes on.
            let after: u16 = target
                .split("part-number-marker=")
                .nth(1)
                .map_or(0, |text| text.split('&').next().unwrap().parse().unwrap());
            let next = kept.parts.iter().find(|(number, _)| **number > after);
            let part = next.map(|(number, bytes)| {
                format!(
                    "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Part>\
                     <IsTruncated>true</IsTruncated><NextPartNumberMarker>{number}</NextPartNumberMarker>",
                    etag(&kept, bytes),
                    bytes.len()
                )
            });
            (
                "200 Here",
                format!(
                    "<ListPartsResult>{}</ListPartsResult>",
                    part.unwrap_or_default()
                )
                .into(),
            )
        }
        "GET" => {
            kept.read += 1;
            ("200 Here", kept.object.clone().unwrap_or_default())
        }
        "PUT" => {
            let number = target
                .split("partNumber=")
                .nth(1)
                .unwrap()
                .split('&')
                .next()
                .unwrap();
            headers = format!("etag: \"{}\"\r\n", etag(&kept, &body));
            kept.parts.insert(number.parse().unwrap(), body);
            kept.sent += 1;
            ("200 Here", Vec::new())
        }
        "POST" if asks("uploads") => {
            kept.begun += 1;
            kept.parts.clear();
            ("200 Here", b"<InitiateMultipartUploadResult><UploadId>up-1</UploadId></InitiateMultipartUploadResult>".to_vec())
        }
        _ => {
            let text = String::from_utf8(body).unwrap();
            for bytes in kept.parts.values() {
                assert!(text.contains(&etag(&kept, bytes)), "{text}");
            }
            kept.object = Some(kept.parts.values().flatten().copied().collect());
            ("200 Here", b"<CompleteMultipartUploadResult><ETag>\"of-its-own\"</ETag></CompleteMultipartUploadResult>".to_vec())
        }
    };
    if !headers.contains("content-length") {
        headers.push_str(&format!("content-length: {}\r\n", text.len()));
    }
    let head = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n");
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&text));
}

fn server(kept: Kept) -> (String, Arc<Mutex<Kept>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::new(Mutex::new(kept));
    let own = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let kept = Arc::clone(&own);
            std::thread::spawn(move || answer(stream.unwrap(), &kept));
        }
    });
    (format!("http://127.0.0.1:{port}"), kept)
}

/// Uploads three parts, with nothing remembered; `there` are at the server already.
fn upload(there: BTreeMap<u16, Vec<u8>>, encrypts: bool) -> (s3::Uploaded, Arc<Mutex<Kept>>) {
    let program = Program::new();
    let content = bytes(11 << 20, 21);
    let path = program.file("web.qcow2", &content);
    let (endpoint, kept) = server(Kept {
        parts: there,
        encrypts,
        ..Kept::default()
    });
    let original = Original::read(&path, LEAST_PART, &|| false, &mut |_| {}).unwrap();
    let credentials = Credentials {
        key: "k".into(),
        secret: "s".into(),
        token: None,
    };
    let target = Target::new(&endpoint, "r", "images", "web.qcow2");
    let done = s3::upload(
        &original,
        &target,
        &credentials,
        &http(),
        &|| false,
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(
        kept.lock().unwrap().object.as_deref(),
        Some(content.as_slice())
    );
    (done, kept)
}

#[test]
fn an_upload_that_the_server_lists_is_gone_on_with() {
    let content = bytes(11 << 20, 21);
    let part = LEAST_PART as usize;
    let mut there = BTreeMap::new();
    there.insert(1, content[..part].to_vec());
    // One that another file has left there, of the same length.
    there.insert(2, bytes(part, 22));
    let (done, kept) = upload(there, false);
    let kept = kept.lock().unwrap();
    assert_eq!((done.resumed_parts, kept.begun, kept.sent), (1, 0, 2));
    // The server's name for the whole says nothing: it was read back.
    assert!(done.read_back && kept.read == 1);
}

#[test]
fn uploads_of_others_are_left_alone() {
    let mut there = BTreeMap::new();
    there.insert(1, bytes(LEAST_PART as usize, 23));
    let (done, kept) = upload(there, false);
    let kept = kept.lock().unwrap();
    assert_eq!((done.resumed_parts, kept.begun, kept.sent), (0, 1, 3));
}

#[test]
fn a_server_whose_etags_are_no_md5_is_read_back() {
    let (done, kept) = upload(BTreeMap::new(), true);
    assert!(done.read_back);
    assert_eq!(kept.lock().unwrap().sent, 3);
}
