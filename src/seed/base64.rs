//! Base64 of RFC 4648, padded.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` in one line.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let value = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0u32, |value, &byte| (value << 8) | u32::from(byte));
        for place in 0..4 {
            let digit = DIGITS.get((value >> (18 - 6 * place)) as usize & 63);
            text.push(if place <= chunk.len() {
                digit.map_or('=', |&d| char::from(d))
            } else {
                '='
            });
        }
    }
    text
}

/// The bytes that `text` stands for; white space in it counts for nothing. `None` where it is no base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut value, mut digits, mut padding) = (0u32, 0, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        if byte == b'=' {
            padding += 1;
        } else if padding > 0 {
            return None;
        }
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            _ => return None,
        };
        value = (value << 6) | u32::from(digit);
        digits += 1;
        if digits == 4 {
            let [_, a, b, c] = value.to_be_bytes();
            bytes.extend([a, b, c]);
            (value, digits) = (0, 0);
        }
    }
    if digits != 0 || padding > 2 {
        return None;
    }
    bytes.truncate(bytes.len().checked_sub(padding)?);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_again() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode("Zm9v\nYg==").as_deref(), Some(&b"foob"[..]));
        for wrong in ["Z", "Zg=", "Zg==Zg==", "Zg%=", "===="] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
