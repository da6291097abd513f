//! `-o key=value,key=value`, as qemu-img reads it.

use std::str::FromStr;

use qimg::image::options::Qcow2Options;
use qimg::units::ByteSize;
use qimg::{Error, Result};

/// Options of a new image in the order they were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OptionList(Vec<(String, String)>);

impl FromStr for OptionList {
    type Err = Error;

    /// A comma inside a value is written twice; a key without a value is switched on.
    fn from_str(text: &str) -> Result<Self> {
        let mut pairs = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let mut pair = String::new();
            loop {
                let (part, tail) = rest.split_once(',').unwrap_or((rest, ""));
                pair.push_str(part);
                let more = rest.len() > part.len();
                rest = tail;
                if more && rest.starts_with(',') {
                    pair.push(',');
                    rest = &rest[1..];
                } else {
                    break;
                }
            }
            let (key, value) = pair.split_once('=').unwrap_or((&pair, "on"));
            if key.is_empty() {
                return Err(Error::usage(format!("-o {text}: an option without a name"))
                    .with_remedy("write -o key=value,key=value"));
            }
            pairs.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(pairs))
    }
}

impl OptionList {
    /// All lists as one.
    pub(crate) fn joined(lists: &[Self]) -> Self {
        Self(lists.iter().flat_map(|list| list.0.clone()).collect())
    }

    /// Whether qemu-img would list the options instead of doing anything.
    pub(crate) fn asks_for_help(&self) -> bool {
        self.keys().any(|key| key == "help" || key == "?")
    }

    /// All keys, in the order they were typed.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// What `key` was given last.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let pair = self.0.iter().rev().find(|(name, _)| name == key)?;
        Some(&pair.1)
    }

    /// The virtual size, which is no option of the format.
    pub(crate) fn size(&self) -> Result<Option<u64>> {
        self.value("size")
            .map(|text| ByteSize::parse(text).map(|size| size.0))
            .transpose()
    }

    /// Sets everything but the size.
    pub(crate) fn apply(&self, options: &mut Qcow2Options) -> Result<()> {
        self.0
            .iter()
            .filter(|(key, _)| key != "size")
            .try_for_each(|(key, value)| options.set(key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_comma_belongs_to_the_value() {
        let list: OptionList = "backing_file=a,,b,cluster_size=4k,extended_l2"
            .parse()
            .unwrap();
        assert_eq!(list.value("backing_file"), Some("a,b"));
        assert_eq!(list.value("cluster_size"), Some("4k"));
        assert_eq!(list.value("extended_l2"), Some("on"));
        assert_eq!(list.value("compat"), None);
    }

    #[test]
    fn the_last_word_counts() {
        let lists: Vec<OptionList> = ["size=1G", "size=2k"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(OptionList::joined(&lists).size().unwrap(), Some(2048));
    }

    #[test]
    fn an_option_has_a_name() {
        assert!("=4k".parse::<OptionList>().is_err());
        assert!("a=1,,=2".parse::<OptionList>().is_ok());
    }
}
