//! Points in time as text: Go's layouts, and strftime's letters.
//!
//! All times are UTC; knows no clock.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A point in time, in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    year: u64,
    /// From 0 on.
    month: usize,
    day: u64,
    /// From 1 on.
    day_of_year: u64,
    /// From Sunday on.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
    nanosecond: u32,
}

impl Moment {
    /// The point that lies `since` behind 1970.
    pub(crate) fn new(since: std::time::Duration) -> Self {
        let seconds = since.as_secs();
        let days = seconds / 86_400;
        let clock = seconds % 86_400;
        // Years begin in March here: the leap day comes last. Eras have 400 years.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let of_era = shifted % 146_097;
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 2
        } else {
            shifted_month - 10
        };
        let year = era * 400 + year_of_era + u64::from(month < 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let month = usize::try_from(month).unwrap_or(0);
        let passed = before.get(month).copied().unwrap_or(0) + u64::from(leap && month > 1);
        Self {
            year,
            month,
            day,
            day_of_year: passed + day,
            weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
            nanosecond: since.subsec_nanos(),
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS.get(self.month).copied().unwrap_or("")
    }

    fn day_name(&self) -> &'static str {
        DAYS.get(self.weekday).copied().unwrap_or("")
    }

    fn hour_of_half(&self) -> u64 {
        match self.hour % 12 {
            0 => 12,
            hour => hour,
        }
    }

    fn half(&self) -> &'static str {
        if self.hour < 12 { "AM" } else { "PM" }
    }
}

/// `moment` as a layout in Go's manner shows it: the layout is how 2006-01-02 15:04:05 would look.
pub(crate) fn layout(moment: &Moment, layout: &str) -> String {
    let mut text = String::new();
    let mut rest = layout;
    let starts_lower = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase());
    let is_digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    while let Some(first) = rest.chars().next() {
        let mut take = |length: usize, shown: String| {
            text.push_str(&shown);
            length
        };
        let after = |word: &str| rest.strip_prefix(word);
        let length = if after("January").is_some() {
            take(7, moment.month_name().to_owned())
        } else if after("Jan").is_some_and(|rest| !starts_lower(rest)) {
            take(3, moment.month_name()[..3].to_owned())
        } else if after("Monday").is_some() {
            take(6, moment.day_name().to_owned())
        } else if after("Mon").is_some_and(|rest| !starts_lower(rest)) {
            take(3, moment.day_name()[..3].to_owned())
        } else if after("MST").is_some() {
            take(3, "UTC".to_owned())
        } else if after("002").is_some() {
            take(3, format!("{:03}", moment.day_of_year))
        } else if after("01").is_some() {
            take(2, format!("{:02}", moment.month + 1))
        } else if after("02").is_some() {
            take(2, format!("{:02}", moment.day))
        } else if after("03").is_some() {
            take(2, format!("{:02}", moment.hour_of_half()))
        } else if after("04").is_some() {
            take(2, format!("{:02}", moment.minute))
        } else if after("05").is_some() {
            take(2, format!("{:02}", moment.second))
        } else if after("06").is_some() {
            take(2, format!("{:02}", moment.year % 100))
        } else if after("15").is_some() {
            take(2, format!("{:02}", moment.hour))
        } else if first == '1' {
            take(1, (moment.month + 1).to_string())
        } else if after("2006").is_some() {
            take(4, format!("{:04}", moment.year))
        } else if first == '2' {
            take(1, moment.day.to_string())
        } else if after("_2006").is_some() {
            take(5, format!("_{:04}", moment.year))
        } else if after("__2").is_some() {
            take(3, format!("{:3}", moment.day_of_year))
        } else if after("_2").is_some() {
            take(2, format!("{:2}", moment.day))
        } else if first == '3' {
            take(1, moment.hour_of_half().to_string())
        } else if first == '4' {
            take(1, moment.minute.to_string())
        } else if first == '5' {
            take(1, moment.second.to_string())
        } else if after("PM").is_some() {
            take(2, moment.half().to_owned())
        } else if after("pm").is_some() {
            take(2, moment.half().to_lowercase())
        } else if let Some((length, shown)) = zone(rest) {
            take(length, shown.to_owned())
        } else if let Some((length, shown)) = fraction(rest, moment.nanosecond) {
            take(length, shown)
        } else {
            take(first.len_utf8(), first.to_string())
        };
        debug_assert!(length > 0 && (length <= rest.len() || is_digit(rest)));
        rest = rest.get(length..).unwrap_or("");
    }
    text
}

fn zone(rest: &str) -> Option<(usize, &'static str)> {
    // Longer spellings first.
    const SPELLINGS: [(&str, &str); 10] = [
        ("-07:00:00", "+00:00:00"),
        ("-07:00", "+00:00"),
        ("-070000", "+000000"),
        ("-0700", "+0000"),
        ("-07", "+00"),
        ("Z07:00:00", "Z"),
        ("Z070000", "Z"),
        ("Z07:00", "Z"),
        ("Z0700", "Z"),
        ("Z07", "Z"),
    ];
    let found = SPELLINGS
        .iter()
        .find(|(layout, _)| rest.starts_with(layout));
    found.map(|(layout, shown)| (layout.len(), *shown))
}

/// `.000` and `.999`, also with a comma; not where a further digit follows.
fn fraction(rest: &str, nanosecond: u32) -> Option<(usize, String)> {
    let mark = rest.chars().next().filter(|c| ".,".contains(*c))?;
    let digit = rest[1..].chars().next().filter(|c| "09".contains(*c))?;
    let count = rest[1..].chars().take_while(|c| *c == digit).count();
    if rest[1 + count..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits: String = format!("{nanosecond:09}").chars().take(count).collect();
    if digit == '9' {
        let digits = digits.trim_end_matches('0');
        let shown = match digits.is_empty() {
            true => String::new(),
            false => format!("{mark}{digits}"),
        };
        return Some((1 + count, shown));
    }
    Some((1 + count, format!("{mark}{digits:0<count$}")))
}

/// `moment` with strftime's letters; those that Packer does not know stay as they are.
pub(crate) fn strftime(moment: &Moment, format: &str) -> String {
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            None => text.push('%'),
            Some('a') => text.push_str(&moment.day_name()[..3]),
            Some('A') => text.push_str(moment.day_name()),
            Some('b') => text.push_str(&moment.month_name()[..3]),
            Some('B') => text.push_str(moment.month_name()),
            Some('d') => text.push_str(&format!("{:02}", moment.day)),
            Some('H') => text.push_str(&format!("{:02}", moment.hour)),
            Some('I') => text.push_str(&format!("{:02}", moment.hour_of_half())),
            Some('m') => text.push_str(&format!("{:02}", moment.month + 1)),
            Some('M') => text.push_str(&format!("{:02}", moment.minute)),
            Some('L') => text.push_str(&format!(".{:03}", moment.nanosecond / 1_000_000)),
            Some('p') => text.push_str(moment.half()),
            Some('S') => text.push_str(&format!("{:02}", moment.second)),
            Some('y') => text.push_str(&format!("{:02}", moment.year % 100)),
            Some('Y') => text.push_str(&format!("{:04}", moment.year)),
            Some('z') => text.push_str("+0000"),
            Some('Z') => text.push_str("UTC"),
            Some('%') => text.push('%'),
            Some(other) => {
                text.push('%');
                text.push(other);
            }
        }
    }
    text
}
