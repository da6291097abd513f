//! Signatures of Exoscale's API: EXO2-HMAC-SHA256.
//!
//! Knows what of a request is signed. Must not know what requests there are.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::seed::base64;

/// The header `Authorization` of a request.
///
/// `path` is as it is sent, from `/` on; `query` holds names and values as they are meant, without `%`; `expires` is in seconds
/// since 1970.
pub fn authorization(
    key: &str,
    secret: &str,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &str,
    expires: u64,
) -> String {
    let mut sorted = query.to_vec();
    sorted.sort_unstable();
    let values: String = sorted.iter().map(|(_, value)| *value).collect();
    // An empty line for headers, of which none is signed.
    let message = format!("{method} {path}\n{body}\n{values}\n\n{expires}");
    let signature = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map(|mut mac| {
        mac.update(message.as_bytes());
        mac.finalize().into_bytes()
    });
    // A key of any length will do: there is no other result.
    let signature = signature
        .map(|bytes| base64::encode(&bytes))
        .unwrap_or_default();
    let names: Vec<&str> = sorted.iter().map(|(name, _)| *name).collect();
    let signed = match names.is_empty() {
        true => String::new(),
        false => format!(",signed-query-args={}", names.join(";")),
    };
    format!("EXO2-HMAC-SHA256 credential={key}{signed},expires={expires},signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "EXOxxxxxxxxxxxxxxxxxxxxxxxx";
    const EXPIRES: u64 = 3_376_684_800;

    #[test]
    fn signatures_are_those_of_the_published_vectors() {
        let secret = "X".repeat(43);
        let sign = |query: &[(&str, &str)]| {
            authorization(KEY, &secret, "GET", "/v2/zone", query, "", EXPIRES)
        };
        assert_eq!(
            sign(&[]),
            format!(
                "EXO2-HMAC-SHA256 credential={KEY},expires={EXPIRES},signature=Ntbq/p0HVmA3Zg1HHY+Lq1vjFGi7HeMrrgXDS5jRNlY="
            )
        );
        let with_query = format!(
            "EXO2-HMAC-SHA256 credential={KEY},signed-query-args=k1;k2,expires={EXPIRES},signature=iqOBz13+44L5j0uJclE8hmUhQQcvtCSoPEOXYK6liqY="
        );
        assert_eq!(sign(&[("k1", "v1"), ("k2", "v2")]), with_query);
        assert_eq!(sign(&[("k2", "v2"), ("k1", "v1")]), with_query);
    }
}
