//! What an object store answers: small documents of XML.
//!
//! Knows elements and their texts, whatever namespace a server puts them in. Must not know requests.

use xmlparser::{ElementEnd, Token, Tokenizer};

use crate::error::{Error, ErrorKind, Result};

/// Elements of one answer at most: a list has a thousand entries.
const MOST_ELEMENTS: usize = 1 << 17;

/// Elements in elements at most.
const DEEPEST: usize = 32;

/// An element, from the root's children on: names joined with `/`, without prefixes.
#[derive(Debug, PartialEq, Eq)]
struct Element {
    path: String,
    text: String,
}

/// All elements of a document, each after those within it.
fn elements(xml: &str) -> Result<Vec<Element>> {
    let broken = |why: String| Error::new(ErrorKind::Io, format!("the answer is no XML: {why}"));
    let mut open: Vec<(String, String)> = Vec::new();
    let mut found = Vec::new();
    let mut close = |open: &mut Vec<(String, String)>| {
        let names: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
        let path = names.join("/");
        if let Some((_, text)) = open.pop() {
            found.push(Element { path, text });
        }
        found.len() <= MOST_ELEMENTS
    };
    for token in Tokenizer::from(xml) {
        let token = token.map_err(|error| broken(error.to_string()))?;
        match token {
            Token::ElementStart { local, .. } => {
                open.push((local.as_str().to_owned(), String::new()));
                if open.len() > DEEPEST {
                    return Err(broken("it is nested too deep".to_owned()));
                }
            }
            Token::ElementEnd { end, .. } => {
                let ends = match end {
                    ElementEnd::Open => false,
                    ElementEnd::Empty => true,
                    ElementEnd::Close(_, local) => {
                        if open.last().is_none_or(|(name, _)| name != local.as_str()) {
                            return Err(broken(format!("</{local}> closes nothing")));
                        }
                        true
                    }
                };
                if ends && !close(&mut open) {
                    return Err(broken("it has too many elements".to_owned()));
                }
            }
            Token::Text { text } => {
                if let Some((_, inside)) = open.last_mut() {
                    inside.push_str(&unescaped(text.as_str()));
                }
            }
            Token::Cdata { text, .. } => {
                if let Some((_, inside)) = open.last_mut() {
                    inside.push_str(text.as_str());
                }
            }
            _ => {}
        }
    }
    if !open.is_empty() {
        return Err(broken("it ends too early".to_owned()));
    }
    Ok(found)
}

/// The five entities that XML has by itself, and numbers; anything else stays as it is.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let entity = after.split_once(';').filter(|(name, _)| name.len() <= 8);
        let sign = entity.and_then(|(name, _)| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => {
                let number = name.strip_prefix('#')?;
                let number = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(number)
            }
        });
        match (sign, entity) {
            (Some(sign), Some((_, behind))) => {
                out.push(sign);
                rest = behind;
            }
            _ => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// What a server says that refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `NoSuchBucket`.
    pub code: String,
    pub message: String,
}

/// The refusal in an answer, if it is one.
pub(super) fn refusal(xml: &str) -> Option<Refusal> {
    let elements = elements(xml.trim_start()).ok()?;
    let text = |path: &str| {
        let found = elements.iter().find(|element| element.path == path);
        found.map(|element| element.text.trim().to_owned())
    };
    let code = text("Error/Code")?;
    Some(Refusal {
        code,
        message: text("Error/Message").unwrap_or_default(),
    })
}

/// The one text of an element below the root.
fn only(xml: &str, path: &str) -> Result<String> {
    let elements = elements(xml.trim_start())?;
    elements
        .into_iter()
        .find(|element| element.path == path && !element.text.trim().is_empty())
        .map(|element| element.text.trim().to_owned())
        .ok_or_else(|| Error::new(ErrorKind::Io, format!("the answer has no {path}")))
}

/// The name of an upload that begins.
pub(super) fn begun(xml: &str) -> Result<String> {
    only(xml, "InitiateMultipartUploadResult/UploadId")
}

/// The ETag of an object whose parts were put together.
pub(super) fn completed(xml: &str) -> Result<String> {
    only(xml, "CompleteMultipartUploadResult/ETag").map(|etag| plain(&etag))
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// From 1.
    pub number: u16,
    pub size: u64,
    /// Without quotes; some servers do not say.
    pub etag: Option<String>,
}

/// Parts that are there, and after which one the list goes on.
pub(super) fn parts(xml: &str) -> Result<(Vec<Part>, Option<u16>)> {
    const HERE: &str = "ListPartsResult";
    let mut parts = Vec::new();
    let (mut number, mut size, mut etag) = (None, None, None);
    let (mut truncated, mut marker) = (false, None);
    for element in elements(xml.trim_start())? {
        let text = element.text.trim();
        match element.path.strip_prefix(HERE).unwrap_or_default() {
            "/Part/PartNumber" => number = text.parse().ok(),
            "/Part/Size" => size = text.parse().ok(),
            "/Part/ETag" => etag = (!text.is_empty()).then(|| plain(text)),
            "/Part" => {
                if let (Some(number), Some(size)) = (number.take(), size.take()) {
                    parts.push(Part {
                        number,
                        size,
                        etag: etag.take(),
                    });
                }
            }
            "/IsTruncated" => truncated = text == "true",
            "/NextPartNumberMarker" => marker = text.parse().ok(),
            _ => {}
        }
    }
    Ok((parts, marker.filter(|_| truncated)))
}

/// Uploads of `key` that are going on, the youngest last.
pub(super) fn uploads(xml: &str, key: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let (mut named, mut id, mut since) = (String::new(), String::new(), String::new());
    for element in elements(xml.trim_start())? {
        let text = element.text.trim();
        match element.path.as_str() {
            "ListMultipartUploadsResult/Upload/Key" => named = element.text.clone(),
            "ListMultipartUploadsResult/Upload/UploadId" => id = text.to_owned(),
            "ListMultipartUploadsResult/Upload/Initiated" => since = text.to_owned(),
            "ListMultipartUploadsResult/Upload" => {
                let (named, id) = (std::mem::take(&mut named), std::mem::take(&mut id));
                let since = std::mem::take(&mut since);
                if named == key && !id.is_empty() {
                    found.push((since, id));
                }
            }
            _ => {}
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// The body that puts parts together, whose ETags come in order.
pub(super) fn complete<'a>(etags: impl Iterator<Item = &'a str>) -> String {
    let mut body =
        String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (place, etag) in etags.enumerate() {
        let number = place + 1;
        let etag: String = etag.chars().filter(|c| !"<>&\"".contains(*c)).collect();
        body.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"
        ));
    }
    body.push_str("</CompleteMultipartUpload>");
    body
}

/// An ETag without quotes.
pub(super) fn plain(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Reads bytes as every kind of answer.
#[cfg(fuzzing)]
pub fn read_all(text: &str) {
    let _ = refusal(text);
    let _ = begun(text);
    let _ = completed(text);
    let _ = uploads(text, "a");
    if let Ok((parts, marker)) = parts(text) {
        assert!(parts.len() <= MOST_ELEMENTS);
        assert!(marker.is_none() || text.contains("true"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_found_in_any_namespace_and_not_in_other_answers() {
        let text = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>a &lt;b&gt; &#x41;&amp; &foo;</Message></Error>";
        let found = refusal(text).unwrap();
        assert_eq!(found.code, "NoSuchBucket");
        assert_eq!(found.message, "a <b> A& &foo;");
        assert!(refusal("<s:Error xmlns:s=\"x\"><s:Code>A</s:Code></s:Error>").is_some());
        for text in [
            "",
            "<a>",
            "</a>",
            "<Error/>",
            "no",
            "<Other><Code>x</Code></Other>",
        ] {
            assert_eq!(refusal(text), None, "{text}");
        }
    }

    #[test]
    fn parts_and_where_the_list_goes_on_are_read() {
        let text = "<ListPartsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>true</IsTruncated>\
            <NextPartNumberMarker>2</NextPartNumberMarker><Part><PartNumber>1</PartNumber><Size>5</Size>\
            <ETag>&quot;ab&quot;</ETag></Part><Part><PartNumber>2</PartNumber><Size>6</Size></Part>\
            <Part><PartNumber>x</PartNumber></Part></ListPartsResult>";
        let (found, marker) = parts(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].etag.as_deref(), Some("ab"));
        assert_eq!((found[1].number, found[1].size), (2, 6));
        assert_eq!(found[1].etag, None);
        assert_eq!(marker, Some(2));
    }

    #[test]
    fn the_youngest_upload_of_the_same_key_comes_last() {
        let upload = |key: &str, id: &str, since: &str| {
            format!(
                "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{since}</Initiated></Upload>"
            )
        };
        let text = format!(
            "<ListMultipartUploadsResult>{}{}{}</ListMultipartUploadsResult>",
            upload("k", "young", "2026-02-01"),
            upload("k", "old", "2026-01-01"),
            upload("k2", "other", "2026-03-01"),
        );
        assert_eq!(uploads(&text, "k").unwrap(), ["old", "young"]);
    }

    #[test]
    fn deep_and_open_documents_are_refused() {
        assert!(elements(&"<a>".repeat(100)).is_err());
        assert!(elements("<a><b></a>").is_err());
        assert_eq!(begun("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>").unwrap(), "u");
        assert!(begun("<InitiateMultipartUploadResult/>").is_err());
    }
}
