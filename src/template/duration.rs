//! Lengths of time as Go writes them.

/// Nanoseconds of `1h15m30.5s`, `-1s`, `0`; `None`: it is no length of time.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 100 {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if !whole.is_empty() {
            let whole = whole.parse::<i64>().ok()?;
            total = total.checked_add(i128::from(whole).checked_mul(unit)?)?;
        }
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            total = total.checked_add(i128::from(digit - b'0').checked_mul(scale)?)?;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Nanoseconds as Go writes them, for texts that are made.
pub(crate) fn write(nanoseconds: i64) -> String {
    let units = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let mut left = nanoseconds.unsigned_abs();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::from(if nanoseconds < 0 { "-" } else { "" });
    for (unit, name) in units {
        if left >= unit {
            text.push_str(&format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_takes_is_taken_and_nothing_else() {
        for (text, wanted) in [
            ("5s", Some(5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1x", None),
            ("1..5s", None),
            ("9999999999999h", None),
            ("1s ", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for number in [
            0,
            1,
            1500,
            90_000_000_000,
            -1_000_000_000,
            3_661_000_000_001,
        ] {
            assert_eq!(parse(&write(number)), Some(number));
        }
    }
}
