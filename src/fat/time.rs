//! Dates as FAT has them: from 1980 on, to two seconds, in no known time zone.

/// A moment, as a date and a time of day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    date: u16,
    time: u16,
}

/// Seconds from 1970 to 1980, when FAT's dates begin.
const FIRST: u64 = 315_532_800;
/// The last second of 2107, when they end.
const LAST: u64 = 4_354_819_199;
const DAY: u64 = 86_400;

impl Default for Timestamp {
    /// The first one that there is: a date that nobody takes for a true one.
    fn default() -> Self {
        Self::from_unix(FIRST)
    }
}

impl Timestamp {
    /// Seconds since 1970; the nearest moment that FAT knows.
    pub fn from_unix(seconds: u64) -> Self {
        let seconds = seconds.clamp(FIRST, LAST);
        let (year, month, day) = civil(seconds / DAY);
        let second = seconds % DAY;
        let date = (year.saturating_sub(1980) << 9) | (month << 5) | day;
        let time = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2);
        Self {
            date: u16::try_from(date).unwrap_or(0x21),
            time: u16::try_from(time).unwrap_or(0),
        }
    }

    pub(super) fn date(self) -> u16 {
        self.date
    }

    pub(super) fn time(self) -> u16 {
        self.time
    }
}

/// Year, month and day of the day that is so many after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut left = days;
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, (year, month, day)) in [
            (FIRST, (1980, 1, 1)),
            (951_782_400, (2000, 2, 29)),
            (1_709_251_200, (2024, 3, 1)),
            (LAST, (2107, 12, 31)),
        ] {
            assert_eq!(civil(seconds / DAY), (year, month, day));
        }
        assert_eq!(Timestamp::from_unix(0), Timestamp::default());
        assert_eq!(Timestamp::from_unix(u64::MAX), Timestamp::from_unix(LAST));
        let moment = Timestamp::from_unix(951_782_400 + 3600 * 13 + 60 * 37 + 59);
        assert_eq!(moment.date, (20 << 9) | (2 << 5) | 29);
        assert_eq!(moment.time, (13 << 11) | (37 << 5) | 29);
    }
}
