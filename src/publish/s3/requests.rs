//! One bucket's requests, each signed when it is made.
//!
//! Knows actions and what refusals mean. Must not know in which order an upload needs them.

use std::io::Read;
use std::time::Duration;

use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, DeleteObject, GetObject,
    HeadObject, ListParts, PutObject, UploadPart,
};
use rusty_s3::{Bucket, S3Action, UrlStyle};

use super::answer::{self, Part, Refusal};
use super::{Credentials, Style, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::publish::courier::{Ask, Courier, Payload, Reply, words};

/// For a signature: a request that is answered later than this began earlier.
const HOLDS: Duration = Duration::from_secs(3600);

/// Lists of parts go on so often at most.
const MOST_LISTS: usize = 1000;

/// One object's place, with what it takes to ask for it.
#[derive(Debug)]
pub(super) struct Store<'a> {
    bucket: Bucket,
    key: &'a str,
    credentials: rusty_s3::Credentials,
    courier: &'a Courier<'a>,
    shown: String,
}

/// An object that is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct There {
    pub size: Option<u64>,
    pub etag: Option<String>,
    pub sha256: Option<String>,
}

/// A header that is part of what is signed.
pub(super) type Header<'h> = (&'h str, String);

impl<'a> Store<'a> {
    pub fn new(
        target: &'a Target,
        credentials: &Credentials,
        courier: &'a Courier<'a>,
    ) -> Result<Self> {
        Ok(Self {
            bucket: bucket(target)?,
            key: &target.key,
            credentials: signer(credentials),
            courier,
            shown: target.shown(),
        })
    }

    pub fn url(target: &Target) -> Result<String> {
        Ok(bucket(target)?.object_url(&target.key).to_string())
    }

    pub fn link(target: &Target, credentials: &Credentials, holds: Duration) -> Result<String> {
        let (bucket, signer) = (bucket(target)?, signer(credentials));
        let action = GetObject::new(&bucket, Some(&signer), &target.key);
        Ok(action.sign(holds).to_string())
    }

    /// The object, if it is there.
    pub fn there(&self) -> Result<Option<There>> {
        let action = HeadObject::new(&self.bucket, Some(&self.credentials), self.key);
        let reply = self.courier.ask(
            &|| action.sign(HOLDS).to_string(),
            &Ask::new("look at", "HEAD"),
        )?;
        match reply.status {
            404 => Ok(None),
            _ if reply.is_success() => Ok(Some(There {
                size: reply
                    .header("content-length")
                    .and_then(|text| text.parse().ok()),
                etag: reply.header("etag").map(|etag| answer::plain(&etag)),
                sha256: reply.header("x-amz-meta-sha256"),
            })),
            _ => Err(self.refused("look at", &reply)),
        }
    }

    /// Sends it as a whole; the ETag.
    pub fn put(&self, headers: &[Header<'_>], payload: Payload<'_>) -> Result<Option<String>> {
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), self.key);
        let reply = self.signed(&mut action, "upload to", "PUT", headers, payload)?;
        Ok(self
            .success("upload to", reply)?
            .header("etag")
            .map(|etag| answer::plain(&etag)))
    }

    /// Begins an upload in parts; its name.
    pub fn begin(&self, headers: &[Header<'_>]) -> Result<String> {
        let mut action =
            CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), self.key);
        let reply = self.signed(&mut action, "upload to", "POST", headers, Payload::Empty)?;
        answer::begun(&self.success("upload to", reply)?.text()).map_err(|error| self.at(&error))
    }

    /// Uploads to the same key that have not ended, the youngest last; nothing where the server does not list them.
    pub fn uploads(&self) -> Result<Vec<String>> {
        let mut action = GetObject::new(&self.bucket, Some(&self.credentials), "");
        action.query_mut().insert("uploads", "");
        action.query_mut().insert("prefix", self.key);
        let reply = self.courier.ask(
            &|| action.sign(HOLDS).to_string(),
            &Ask::new("list uploads to", "GET"),
        )?;
        if !reply.is_success() {
            // It may be forbidden, or not be there: then nothing is known.
            return Ok(Vec::new());
        }
        Ok(answer::uploads(&reply.text(), self.key).unwrap_or_default())
    }

    /// The parts of an upload that have arrived; `None`: there is no such upload.
    pub fn parts(&self, upload: &str) -> Result<Option<Vec<Part>>> {
        let mut found = Vec::new();
        let mut after = None;
        for _ in 0..MOST_LISTS {
            let mut action =
                ListParts::new(&self.bucket, Some(&self.credentials), self.key, upload);
            if let Some(after) = after {
                action.set_part_number_marker(after);
            }
            let reply = self.courier.ask(
                &|| action.sign(HOLDS).to_string(),
                &Ask::new("list parts of", "GET"),
            )?;
            if reply.status == 404 {
                return Ok(None);
            }
            let reply = self.success("list parts of", reply)?;
            let (parts, marker) = answer::parts(&reply.text()).map_err(|error| self.at(&error))?;
            found.extend(parts);
            match marker {
                Some(marker) if after.is_none_or(|after| after < marker) => after = Some(marker),
                _ => return Ok(Some(found)),
            }
        }
        Ok(Some(found))
    }

    /// Sends a part; its ETag.
    pub fn part(
        &self,
        upload: &str,
        number: u16,
        headers: &[Header<'_>],
        payload: Payload<'_>,
    ) -> Result<Option<String>> {
        let mut action = UploadPart::new(
            &self.bucket,
            Some(&self.credentials),
            self.key,
            number,
            upload,
        );
        let reply = self.signed(&mut action, "upload to", "PUT", headers, payload)?;
        Ok(self
            .success("upload to", reply)?
            .header("etag")
            .map(|etag| answer::plain(&etag)))
    }

    /// Puts the parts together; the object's ETag. `None`: there is no such upload, perhaps because an earlier try, whose
    /// answer was lost, has ended it.
    pub fn complete(&self, upload: &str, etags: &[String]) -> Result<Option<String>> {
        let body = answer::complete(etags.iter().map(String::as_str));
        let mut action = CompleteMultipartUpload::new(
            &self.bucket,
            Some(&self.credentials),
            self.key,
            upload,
            std::iter::empty::<&str>(),
        );
        let headers = [("content-type", "application/xml".to_owned())];
        let reply = self.signed(
            &mut action,
            "finish the upload to",
            "POST",
            &headers,
            Payload::Bytes(body.as_bytes()),
        )?;
        let text = reply.text().into_owned();
        // A failure may come late, behind a status that promised success.
        match answer::refusal(&text) {
            Some(refusal) if refusal.code == "NoSuchUpload" => Ok(None),
            Some(_) => Err(self.refused("finish the upload to", &reply)),
            None if reply.status == 404 => Ok(None),
            None => {
                let reply = self.success("finish the upload to", reply)?;
                answer::completed(&reply.text())
                    .map(Some)
                    .map_err(|error| self.at(&error))
            }
        }
    }

    /// Gives up an upload.
    pub fn abort(&self, upload: &str) -> Result<()> {
        let action =
            AbortMultipartUpload::new(&self.bucket, Some(&self.credentials), self.key, upload);
        let reply = self.courier.ask(
            &|| action.sign(HOLDS).to_string(),
            &Ask::new("give up an upload to", "DELETE"),
        )?;
        match reply.status {
            404 => Ok(()),
            _ => self.success("give up an upload to", reply).map(drop),
        }
    }

    pub fn remove(&self) -> Result<()> {
        let action = DeleteObject::new(&self.bucket, Some(&self.credentials), self.key);
        let reply = self.courier.ask(
            &|| action.sign(HOLDS).to_string(),
            &Ask::new("remove", "DELETE"),
        )?;
        match answer::refusal(&reply.text()) {
            Some(Refusal { code, .. }) if code == "NoSuchKey" => Ok(()),
            _ => self.success("remove", reply).map(drop),
        }
    }

    /// Reads the object from its first byte on.
    pub fn read<T>(&self, take: &mut dyn FnMut(&mut dyn Read) -> std::io::Result<T>) -> Result<T> {
        let action = GetObject::new(&self.bucket, Some(&self.credentials), self.key);
        let read = self.courier.read(
            &|| action.sign(HOLDS).to_string(),
            &Ask::new("read back", "GET"),
            take,
        )?;
        read.map_err(|reply| self.refused("read back", &reply))
    }

    fn signed<'b>(
        &self,
        action: &mut impl S3Action<'b>,
        doing: &str,
        method: &str,
        headers: &[Header<'_>],
        payload: Payload<'_>,
    ) -> Result<Reply> {
        for (name, value) in headers {
            action
                .headers_mut()
                .insert((*name).to_owned(), value.clone());
        }
        let action = &*action;
        self.courier.ask(
            &|| action.sign(HOLDS).to_string(),
            &Ask {
                headers,
                payload,
                ..Ask::new(doing, method)
            },
        )
    }

    fn success(&self, doing: &str, reply: Reply) -> Result<Reply> {
        if reply.is_success() {
            return Ok(reply);
        }
        Err(self.refused(doing, &reply))
    }

    fn at(&self, error: &Error) -> Error {
        Error::new(error.kind(), format!("{}: {error}", self.shown))
    }

    fn refused(&self, doing: &str, reply: &Reply) -> Error {
        let refusal = answer::refusal(&reply.text()).unwrap_or_default();
        let said = match (refusal.code.as_str(), refusal.message.as_str()) {
            ("", _) => format!("the server says {}", reply.status),
            (code, "") => format!("the server says {} {code}", reply.status),
            (code, message) => format!("the server says {} {code}: {message}", reply.status),
        };
        let text = format!("cannot {doing} {}: {}", self.shown, words(&said));
        let error = Error::new(ErrorKind::Io, text);
        let remedy = match (refusal.code.as_str(), reply.status) {
            ("NoSuchBucket", _) => "make the bucket first, or name another one",
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => {
                "check the key, its secret and the region: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION"
            }
            ("RequestTimeTooSkewed", _) => "set this machine's clock",
            ("BadDigest" | "InvalidDigest", _) => {
                "the bytes changed on the way: run the same command again"
            }
            ("EntityTooLarge", _) => "the server takes no object of this size",
            ("AccessDenied", _) | (_, 401 | 403) => {
                "let this key read and write this object; with an ACL, also set it"
            }
            (_, 301 | 307 | 308) => {
                "the bucket is in another region, or behind another endpoint: name that one"
            }
            (_, 404) => "check the endpoint and the bucket's name",
            _ => return error,
        };
        error.with_remedy(remedy)
    }
}

fn bucket(target: &Target) -> Result<Bucket> {
    let bad = |why: &dyn std::fmt::Display| {
        Error::usage(format!(
            "no bucket '{}' at the endpoint '{}': {why}",
            target.bucket,
            crate::fetch::source::shown(&target.endpoint)
        ))
        .with_remedy("an endpoint is written as https://HOST")
    };
    if target.key.is_empty() || target.bucket.is_empty() {
        return Err(Error::usage("an object needs a bucket and a key"));
    }
    let style = match target.style {
        Style::Path => UrlStyle::Path,
        Style::VirtualHost => UrlStyle::VirtualHost,
    };
    Bucket::new(
        target.endpoint.parse().map_err(|error| bad(&error))?,
        style,
        target.bucket.clone(),
        target.region.clone(),
    )
    .map_err(|error| bad(&error))
}

fn signer(credentials: &Credentials) -> rusty_s3::Credentials {
    match &credentials.token {
        Some(token) => rusty_s3::Credentials::new_with_token(
            credentials.key.clone(),
            credentials.secret.clone(),
            token.clone(),
        ),
        None => rusty_s3::Credentials::new(credentials.key.clone(), credentials.secret.clone()),
    }
}
