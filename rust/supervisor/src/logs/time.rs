//! Times as Docker's logs have them.

use std::fmt::Write;

/// Nanoseconds since the epoch as RFC 3339 in UTC, with as many digits of a second as needed.
#[must_use]
pub fn rfc3339(nanoseconds: u64) -> String {
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = String::with_capacity(30);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
    if fraction > 0 {
        let _ = write!(text, ".{fraction:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    text
}

/// The length of what [`fixed`] gives.
pub const FIXED: usize = 30;

/// Nanoseconds since the epoch as Docker shows them before an entry: always with nine digits of a second.
#[must_use]
pub fn fixed(nanoseconds: u64) -> [u8; FIXED] {
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    for (begin, end, mut value) in [
        (0, 4, year),
        (5, 7, month),
        (8, 10, day),
        (11, 13, second / 3600),
        (14, 16, second / 60 % 60),
        (17, 19, second % 60),
        (20, 29, fraction),
    ] {
        for digit in text[begin..end].iter_mut().rev() {
            *digit = b'0' + (value % 10).to_le_bytes()[0];
            value /= 10;
        }
    }
    text
}

/// Nanoseconds since the epoch of an RFC 3339 time; None for what is none, or is before the epoch.
#[must_use]
pub fn parse(text: &[u8]) -> Option<u64> {
    let number = |begin: usize, end: usize| -> Option<u64> {
        text.get(begin..end)?.iter().try_fold(0, |value, byte| {
            byte.is_ascii_digit()
                .then(|| value * 10 + u64::from(byte - b'0'))
        })
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let mut at = 19;
    let mut fraction = 0;
    if text.get(at) == Some(&b'.') {
        at += 1;
        let mut unit = 100_000_000;
        while let Some(byte) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            fraction += u64::from(byte - b'0') * unit;
            unit /= 10;
            at += 1;
        }
    }
    let offset = match text.get(at..)? {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            let seconds = i64::try_from(minutes * 60).ok()?;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    let seconds = days(year, month, day)?
        .checked_mul(86_400)?
        .checked_add(hour * 3600 + minute * 60 + second)?
        .checked_add_signed(-offset)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// The days from the epoch to a day: the reverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// Year, month and day of a day since the epoch, in the Gregorian calendar: years begin in March here, so that
/// the leap day is a year's last.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999_999_999, "2000-02-28T23:59:59.999999999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_709_164_800_500_000_000, "2024-02-29T00:00:00.5Z"),
            (1_735_689_599_000_000_100, "2024-12-31T23:59:59.0000001Z"),
            (4_107_542_400_120_000_000, "2100-03-01T00:00:00.12Z"),
        ] {
            assert_eq!(rfc3339(nanoseconds), text);
        }
    }
    #[test]
    fn times_are_read_as_they_are_written() {
        for step in 0..20_000_u64 {
            let time = step * 212_345_678_901_234 + step % 7 * 100;
            assert_eq!(parse(rfc3339(time).as_bytes()), Some(time));
            assert_eq!(parse(&fixed(time)), Some(time));
        }
        for (text, time) in [
            ("1970-01-01T01:00:00.5+01:00", Some(500_000_000)),
            ("1970-01-01T00:00:00-01:30", Some(5_400_000_000_000)),
            ("1970-01-01T00:00:00.1234567891Z", Some(123_456_789)),
            ("1969-12-31T23:59:59Z", None),
            ("1970-13-01T00:00:00Z", None),
            ("1970-01-01 00:00:00Z", None),
            ("1970-01-01T00:00:00", None),
            ("9999-01-01T00:00:00Z", None),
            ("", None),
            ("1970-01-01T00:00:\u{e4}Z", None),
        ] {
            assert_eq!(parse(text.as_bytes()), time, "{text}");
        }
    }
}
