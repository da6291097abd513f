//! Servers that stop somewhere on the way to a login.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::servers::Listener;

/// Says these bytes and then nothing, until the other end goes.
pub fn says(bytes: impl Into<Vec<u8>>) -> Listener {
    let bytes = bytes.into();
    Listener::start(move |mut stream| {
        let _ = stream.write_all(&bytes);
        drain(&mut stream);
    })
}

/// Says these bytes and closes.
pub fn says_and_closes(bytes: impl Into<Vec<u8>>) -> Listener {
    let bytes = bytes.into();
    Listener::start(move |mut stream| {
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        drain(&mut stream);
    })
}

/// Says this piece again and again.
pub fn says_without_end(before: &'static [u8], piece: Vec<u8>) -> Listener {
    Listener::start(move |mut stream| {
        let mut reader = stream.try_clone().unwrap();
        std::thread::spawn(move || drain(&mut reader));
        let _ = stream.write_all(before);
        while stream.write_all(&piece).is_ok() {}
    })
}

pub fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

/// A binary packet of SSH, not encrypted.
pub fn packet(payload: &[u8]) -> Vec<u8> {
    let mut padding = 8 - (payload.len() + 5) % 8;
    if padding < 4 {
        padding += 8;
    }
    let length = u32::try_from(payload.len() + padding + 1).unwrap();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(u8::try_from(padding).unwrap());
    bytes.extend_from_slice(payload);
    bytes.extend(vec![0; padding]);
    bytes
}

/// A server's offer of algorithms.
pub fn offer(key_exchange: &str) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
    for list in [
        key_exchange,
        "ssh-ed25519",
        "aes256-ctr",
        "aes256-ctr",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ] {
        payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]);
    packet(&payload)
}
