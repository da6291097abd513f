//! An upload from its beginning, or from where an earlier run left it.
//!
//! Knows which parts are missing, who sends them, and what has to be equal in the end. Must not know signatures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::journal::Journal;
use super::requests::{Header, Store};
use super::{Target, Uploaded, Verify};
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::publish::Original;
use crate::publish::attend::Work;
use crate::publish::courier::Payload;
use crate::seed::base64;

/// Uploads to the same key that are looked into.
const MOST_UPLOADS: usize = 16;

/// Uploads that nobody knows of any more are begun anew so often.
const MOST_BEGINNINGS: usize = 3;

pub(super) fn upload(
    original: &Original,
    target: &Target,
    store: &Store<'_>,
    work: &Work,
) -> Result<Uploaded> {
    let sha256 = original.sha256().hex();
    let mut report = Uploaded {
        url: target.url()?,
        bucket: target.bucket.clone(),
        key: target.key.clone(),
        size: original.length(),
        sha256: sha256.clone(),
        md5: original.md5().hex(),
        etag: None,
        was_there: false,
        resumed_parts: 0,
        parts: original.part_md5().len(),
        read_back: false,
    };
    if let Some(there) = store.there()?
        && there.sha256.as_deref() == Some(&sha256)
        && there.size == Some(original.length())
    {
        work.note(format!(
            "{} is there already, with the same digest",
            target.shown()
        ));
        report.was_there = true;
        report.etag = there.etag;
        return Ok(report);
    }
    work.begin(format!("upload {}", target.shown()), original.length());
    let told = if original.part_md5().len() == 1 {
        whole(original, target, store, work)?
    } else {
        in_parts(original, target, store, work, &mut report)?
    };
    report.read_back = compare(original, target, store, work, told)?;
    report.etag = store.there()?.and_then(|there| there.etag);
    Ok(report)
}

/// What is said of an object when it begins.
fn described(original: &Original, target: &Target) -> Vec<Header<'static>> {
    let content_type = target.content_type.clone();
    let mut headers = vec![
        (
            "content-type",
            content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
        ),
        ("x-amz-meta-sha256", original.sha256().hex()),
        ("x-amz-meta-md5", original.md5().hex()),
    ];
    if let Some(acl) = &target.acl {
        headers.push(("x-amz-acl", acl.clone()));
    }
    if let Some(class) = &target.storage_class {
        headers.push(("x-amz-storage-class", class.clone()));
    }
    headers
}

fn content_md5(digest: &Digest) -> Header<'static> {
    ("content-md5", base64::encode(digest.bytes()))
}

fn whole(
    original: &Original,
    target: &Target,
    store: &Store<'_>,
    work: &Work,
) -> Result<Option<String>> {
    original.check_part(0)?;
    let mut headers = described(original, target);
    headers.push(content_md5(original.md5()));
    let length = original.length();
    let all = original.stretch(0, length, work);
    let etag = store.put(&headers, Payload::Reader(&all))?;
    work.advance(length);
    Ok(etag)
}

fn in_parts(
    original: &Original,
    target: &Target,
    store: &Store<'_>,
    work: &Work,
    report: &mut Uploaded,
) -> Result<Option<String>> {
    for _ in 0..MOST_BEGINNINGS {
        let (journal, there) = begin(original, target, store, work)?;
        report.resumed_parts = there.len();
        if !there.is_empty() {
            work.note(format!(
                "{} of {} parts are there from an earlier run",
                there.len(),
                report.parts
            ));
        }
        let resumed = there
            .keys()
            .map(|number| part_length(original, *number))
            .sum();
        work.advance(resumed);
        let upload = journal.upload().to_owned();
        let journal = Mutex::new(journal);
        let arrived = match send(original, target, store, work, &upload, there, &journal) {
            Ok(arrived) => arrived,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // The server may have forgotten the upload; it is the only one who knows.
            Err(error) => match store.parts(&upload) {
                Ok(None) => {
                    journal
                        .into_inner()
                        .unwrap_or_else(PoisonError::into_inner)
                        .forget()?;
                    work.begin(format!("upload {}", target.shown()), original.length());
                    continue;
                }
                _ => return Err(goes_on(error)),
            },
        };
        let etags: Vec<String> = arrived.into_values().collect();
        let completed = store.complete(&upload, &etags).map_err(goes_on)?;
        journal
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .forget()?;
        // No such upload: an earlier try may have ended it, which comparing tells.
        return Ok(completed);
    }
    Err(Error::new(
        ErrorKind::Io,
        format!(
            "{}: the server forgets uploads while they are going on",
            target.shown()
        ),
    ))
}

fn goes_on(error: Error) -> Error {
    if error.remedy().is_some() {
        return error;
    }
    error.with_remedy("what has arrived stays there: the same command goes on with it")
}

fn part_length(original: &Original, number: u16) -> u64 {
    original.part(usize::from(number).saturating_sub(1)).1
}

/// An upload with the parts of it that are there and as they should be.
fn begin(
    original: &Original,
    target: &Target,
    store: &Store<'_>,
    work: &Work,
) -> Result<(Journal, BTreeMap<u16, String>)> {
    let directory = target.journal.as_deref();
    let mut known = Vec::new();
    let remembered = Journal::of_earlier_run(directory, target, original)?;
    known.extend(remembered);
    if known.is_empty() {
        let listed = store.uploads()?;
        known.extend(
            listed
                .iter()
                .rev()
                .take(MOST_UPLOADS)
                .map(|id| Journal::new(directory, target, original, id)),
        );
    }
    for journal in known {
        work.go_on()?;
        let Some(parts) = store.parts(journal.upload())? else {
            continue;
        };
        let mut there = BTreeMap::new();
        for part in parts {
            let place = usize::from(part.number).saturating_sub(1);
            let Some(md5) = original.part_md5().get(place).filter(|_| part.number > 0) else {
                continue;
            };
            let ours = md5.hex();
            // Some servers list parts without ETags, others have ETags that are no MD5: then what they said when it
            // arrived has to do.
            let remembered = journal.parts().get(&part.number);
            let etag = part.etag.or_else(|| remembered.cloned());
            if part.size == original.part(place).1
                && let Some(etag) = etag
                && (etag == ours || Some(&etag) == remembered)
            {
                there.insert(part.number, etag);
            }
        }
        // One of others' is left alone, unless it is remembered as ours.
        if !there.is_empty() || !journal.parts().is_empty() {
            journal.write()?;
            return Ok((journal, there));
        }
    }
    let id = store.begin(&described(original, target))?;
    let journal = Journal::new(directory, target, original, &id);
    if let Err(error) = journal.write() {
        // Nobody would find it again.
        let _ = store.abort(&id);
        return Err(error);
    }
    Ok((journal, BTreeMap::new()))
}

/// Sends what is missing; all parts' ETags.
fn send(
    original: &Original,
    target: &Target,
    store: &Store<'_>,
    work: &Work,
    upload: &str,
    there: BTreeMap<u16, String>,
    journal: &Mutex<Journal>,
) -> Result<BTreeMap<u16, String>> {
    let last = u16::try_from(original.part_md5().len())
        .map_err(|_| Error::usage("the file has too many parts").with_remedy("make them larger"))?;
    let missing: Vec<u16> = (1..=last)
        .filter(|number| !there.contains_key(number))
        .collect();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let arrived = Mutex::new(there);
    let one = |number: u16| -> Result<()> {
        let place = usize::from(number) - 1;
        let Some(md5) = original.part_md5().get(place) else {
            return Ok(());
        };
        original.check_part(place)?;
        let (start, length) = original.part(place);
        let part = original.stretch(start, length, work);
        let etag = store.part(upload, number, &[content_md5(md5)], Payload::Reader(&part))?;
        let etag = match etag {
            // An ETag that is no MD5 comes from a server that encrypts, and says nothing.
            Some(etag) if is_md5(&etag) && etag != md5.hex() => {
                let text = format!(
                    "{}: part {number} arrived as something else",
                    target.shown()
                );
                return Err(Error::new(ErrorKind::Io, text)
                    .with_remedy("the bytes changed on the way: run the same command again"));
            }
            Some(etag) => etag,
            None => md5.hex(),
        };
        work.advance(length);
        journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .arrived(number, &etag)?;
        arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, etag);
        Ok(())
    };
    let worker = || -> Result<()> {
        while !failed.load(Ordering::Relaxed) {
            let Some(number) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return Ok(());
            };
            one(*number).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let threads = target.at_once.clamp(1, missing.len().max(1));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut result = Ok(());
        for worker in workers {
            let ended = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // What the first one met is the cause; that somebody asked to stop is above all.
            if result.is_ok()
                || matches!(&ended, Err(error) if error.kind() == ErrorKind::Cancelled)
            {
                result = ended.and(result);
            }
        }
        result
    })?;
    Ok(arrived.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes sure that what is there is what was sent; whether it was read back.
fn compare(
    original: &Original,
    target: &Target,
    store: &Store<'_>,
    work: &Work,
    told: Option<String>,
) -> Result<bool> {
    let other = |what: &str| {
        Error::new(ErrorKind::Io, format!("{}: {what}", target.shown()))
            .with_remedy("remove the object and upload it again")
    };
    let Some(there) = store.there()? else {
        return Err(other("the object is not there, although it arrived")
            .with_remedy("run the same command again"));
    };
    if there.size != Some(original.length()) {
        return Err(other("the object has another size than what was sent"));
    }
    let known = told
        .or(there.etag)
        .is_some_and(|etag| etag == original.md5().hex() || etag == of_parts(original.part_md5()));
    if known && target.verify == Verify::IfNeeded {
        return Ok(false);
    }
    work.begin(format!("read back {}", target.shown()), original.length());
    let digest = store.read(&mut |reader| {
        let mut digester = Digester::new(&[DigestKind::Sha256]);
        let mut buffer = vec![0; 1 << 17];
        let mut read: u64 = 0;
        let result = loop {
            let bytes = match reader.read(&mut buffer) {
                Ok(bytes) => bytes,
                Err(error) => break Err(error),
            };
            read += bytes as u64;
            digester.update(buffer.get(..bytes).unwrap_or_default());
            if bytes == 0 || read > original.length() {
                break Ok(());
            }
            work.advance(bytes as u64);
        };
        if result.is_err() {
            work.retreat(read);
        }
        result.map(|()| digester.finish())
    })?;
    if digest.first() != Some(original.sha256()) {
        return Err(other("the object holds something else than what was sent"));
    }
    Ok(true)
}

/// What servers call an object that was put together: MD5 of all MD5s, and how many.
fn of_parts(parts: &[Digest]) -> String {
    let mut digester = Digester::new(&[DigestKind::Md5]);
    for part in parts {
        digester.update(part.bytes());
    }
    let digests = digester.finish();
    let digest: String = digests.iter().map(Digest::hex).collect();
    format!("{digest}-{}", parts.len())
}
