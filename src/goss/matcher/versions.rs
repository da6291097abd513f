//! Ranges of semantic versions: `>1.0.0 <2.0.0 !=1.5.0 || 3.x`.

use std::cmp::Ordering;

use semver::Version;

/// Versions between bounds; one of several ranges has to hold, and all of its bounds.
#[derive(Debug, Clone)]
pub(super) struct Constraint {
    ranges: Vec<Vec<(Sign, Version)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A version as it is written in packages' own words.
pub(super) fn version(text: &str) -> Result<Version, String> {
    Version::parse(text.trim()).map_err(|error| format!("'{text}' is no semantic version: {error}"))
}

impl Constraint {
    /// Reads a range.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for part in text.split("||") {
            let mut bounds = Vec::new();
            // A sign may stand apart from its version.
            let mut waiting = String::new();
            for word in part.split_whitespace() {
                if word.chars().all(|c| "<>=!".contains(c)) {
                    waiting.push_str(word);
                    continue;
                }
                let word = std::mem::take(&mut waiting) + word;
                bound(&word, &mut bounds)?;
            }
            if !waiting.is_empty() || bounds.is_empty() {
                return Err(format!("'{text}' is no range of versions"));
            }
            ranges.push(bounds);
        }
        Ok(Self { ranges })
    }

    /// Whether `version` lies in it.
    pub(super) fn holds(&self, version: &Version) -> bool {
        self.ranges.iter().any(|bounds| {
            bounds.iter().all(|(sign, bound)| {
                // What was built from it does not count.
                let order = version.cmp_precedence(bound);
                match sign {
                    Sign::Equal => order == Ordering::Equal,
                    Sign::NotEqual => order != Ordering::Equal,
                    Sign::Less => order == Ordering::Less,
                    Sign::AtMost => order != Ordering::Greater,
                    Sign::More => order == Ordering::Greater,
                    Sign::AtLeast => order != Ordering::Less,
                }
            })
        })
    }
}

fn bound(word: &str, bounds: &mut Vec<(Sign, Version)>) -> Result<(), String> {
    let split = word.find(|c| !"<>=!".contains(c)).unwrap_or(word.len());
    let (sign, rest) = word.split_at(split);
    let wrong = || format!("'{word}' is no bound of a version");
    let sign = match sign {
        "" | "=" | "==" => Sign::Equal,
        "!" | "!=" => Sign::NotEqual,
        "<" => Sign::Less,
        "<=" => Sign::AtMost,
        ">" => Sign::More,
        ">=" => Sign::AtLeast,
        _ => return Err(wrong()),
    };
    let parts: Vec<&str> = rest.split('.').collect();
    let is_any = |part: &str| matches!(part, "x" | "X" | "*");
    let Some(wild) = parts.iter().position(|part| is_any(part)) else {
        bounds.push((sign, Version::parse(rest).map_err(|_| wrong())?));
        return Ok(());
    };
    let numbers: Option<Vec<u64>> = parts
        .iter()
        .take(wild)
        .map(|part| part.parse().ok())
        .collect();
    let (low, high) = match numbers.as_deref() {
        Some([major]) => (
            Version::new(*major, 0, 0),
            Version::new(major.saturating_add(1), 0, 0),
        ),
        Some([major, minor]) => (
            Version::new(*major, *minor, 0),
            Version::new(*major, minor.saturating_add(1), 0),
        ),
        _ => return Err(wrong()),
    };
    match sign {
        Sign::Equal => bounds.extend([(Sign::AtLeast, low), (Sign::Less, high)]),
        Sign::Less => bounds.push((Sign::Less, low)),
        Sign::AtMost => bounds.push((Sign::Less, high)),
        Sign::More => bounds.push((Sign::AtLeast, high)),
        Sign::AtLeast => bounds.push((Sign::AtLeast, low)),
        // Two ranges in one place are more than a list of bounds can say.
        Sign::NotEqual => return Err(wrong()),
    }
    Ok(())
}
