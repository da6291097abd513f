//! The word that was meant.

/// The one of `known` that differs least from `word`, if any is near.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A hostile key may be as long as the text: nothing known is near it.
    if word.len() > 64 {
        return None;
    }
    let most = word.chars().count().div_ceil(3).min(3);
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let typed = plain(word);
    known
        .into_iter()
        .map(|known| (distance(&typed, &plain(known)), known))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, known)| (*distance, *known))
        .map(|(_, known)| known)
}

/// Letters put in, left out, changed, or swapped with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best = at(&last, j) + usize::from(x != y);
            best = best.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_understood() {
        let known = ["runcmd", "bootcmd", "write_files", "users"];
        for (typed, meant) in [
            ("run_cmd", Some("runcmd")),
            ("rumcnd", Some("runcmd")),
            ("write-file", Some("write_files")),
            ("user", Some("users")),
            ("resolv", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
