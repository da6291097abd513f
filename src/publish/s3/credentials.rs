//! Who asks: keys from where AWS's own tools look for them.
//!
//! Knows variables and the text of profile files, both handed in. Must not know requests.

use std::collections::BTreeMap;

/// A key with its secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Which key: no secret.
    pub key: String,
    /// The secret.
    pub secret: String,
    /// For keys that are lent for a while.
    pub token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What was found of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Who asks.
    pub credentials: Option<Credentials>,
    /// Where buckets are.
    pub region: Option<String>,
    /// The server: `https://HOST[:PORT]`.
    pub endpoint: Option<String>,
}

/// Looks into variables, then into the profile of the two files (`~/.aws/credentials` and `~/.aws/config`, as texts;
/// empty ones are files that are not there): `asked`, else `AWS_PROFILE`, else `default`. A profile that was asked for
/// comes before variables.
pub fn find(
    environment: &BTreeMap<String, String>,
    asked: Option<&str>,
    credentials_file: &str,
    config_file: &str,
) -> Found {
    let variable = |name: &str| {
        environment
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    let profile = asked
        .map(str::to_owned)
        .or_else(|| variable("AWS_PROFILE"))
        .unwrap_or_else(|| "default".to_owned());
    let credentials_section = section(credentials_file, &[&profile]);
    let of_config = format!("profile {profile}");
    let config = section(config_file, &[&of_config, &profile]);
    let setting = |name: &str| {
        let found = credentials_section.get(name).or_else(|| config.get(name));
        found.filter(|value| !value.is_empty()).cloned()
    };
    let of_variables = || {
        Some(Credentials {
            key: variable("AWS_ACCESS_KEY_ID")?,
            secret: variable("AWS_SECRET_ACCESS_KEY")?,
            token: variable("AWS_SESSION_TOKEN"),
        })
    };
    let of_profile = || {
        Some(Credentials {
            key: setting("aws_access_key_id")?,
            secret: setting("aws_secret_access_key")?,
            token: setting("aws_session_token"),
        })
    };
    let region_set = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let endpoint_set = || variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let (region, endpoint) = (|| setting("region"), || setting("endpoint_url"));
    match asked {
        Some(_) => Found {
            credentials: of_profile().or_else(of_variables),
            region: region().or_else(region_set),
            endpoint: endpoint().or_else(endpoint_set),
        },
        None => Found {
            credentials: of_variables().or_else(of_profile),
            region: region_set().or_else(region),
            endpoint: endpoint_set().or_else(endpoint),
        },
    }
}

/// The settings of the first section that has one of these names; nested ones, which are set in from the margin, are
/// left out.
fn section(text: &str, names: &[&str]) -> BTreeMap<String, String> {
    for name in names {
        let mut found = BTreeMap::new();
        let (mut inside, mut there) = (false, false);
        for line in text.lines() {
            if line.starts_with([' ', '\t', '#', ';']) {
                continue;
            }
            if let Some(rest) = line.trim_end().strip_prefix('[') {
                inside = rest.strip_suffix(']').map(str::trim) == Some(name);
                there |= inside;
            } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
                found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        if there {
            return found;
        }
    }
    BTreeMap::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "[default]\naws_access_key_id = D\naws_secret_access_key=ds\n\n[work]\naws_access_key_id=W\naws_secret_access_key = ws\naws_session_token=t\n";
    const CONFIG: &str = "[default]\nregion = r1\n# region = no\n[profile work]\nregion=r2\ns3 =\n  endpoint_url = nested\nendpoint_url = http://e\n";

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn variables_come_before_the_default_profile_and_after_one_that_was_asked_for() {
        let variables = environment(&[
            ("AWS_ACCESS_KEY_ID", "V"),
            ("AWS_SECRET_ACCESS_KEY", "vs"),
            ("AWS_REGION", "r0"),
        ]);
        let found = find(&variables, None, KEYS, CONFIG);
        assert_eq!(found.credentials.unwrap().key, "V");
        assert_eq!(found.region.as_deref(), Some("r0"));
        let found = find(&variables, Some("work"), KEYS, CONFIG);
        let credentials = found.credentials.unwrap();
        assert_eq!(
            (credentials.key.as_str(), credentials.token.as_deref()),
            ("W", Some("t"))
        );
        assert_eq!(found.region.as_deref(), Some("r2"));
        assert_eq!(found.endpoint.as_deref(), Some("http://e"));
    }

    #[test]
    fn a_profile_is_named_by_a_variable_too() {
        let found = find(&environment(&[("AWS_PROFILE", "work")]), None, KEYS, CONFIG);
        assert_eq!(found.credentials.unwrap().key, "W");
        let found = find(&environment(&[]), None, KEYS, CONFIG);
        assert_eq!(found.credentials.unwrap().secret, "ds");
        assert_eq!(
            find(&environment(&[]), Some("no"), KEYS, CONFIG).credentials,
            None
        );
        assert_eq!(find(&environment(&[]), None, "", ""), Found::default());
    }

    #[test]
    fn secrets_are_not_shown() {
        let found = find(&environment(&[]), None, KEYS, CONFIG);
        assert!(!format!("{found:?}").contains("ds"));
    }
}
