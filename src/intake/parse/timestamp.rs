//! Reads an RFC 3339 time with an offset, to the microsecond, by integers alone.

use crate::time::Timestamp;

/// Reads a time such as `2024-02-29T23:59:59.5+01:00`; `None` when `text` is none.
///
/// The years are 1 to 9999, digits beyond microseconds are cut, and second 60 is refused: `timestamptz` has no place for
/// it. With its offset a time may lie up to a day before year 1 or behind year 9999.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let (local, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let &[y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2] = local else {
        return None;
    };
    let year = number(&[y1, y2, y3, y4])?;
    let (month, day) = (number(&[o1, o2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    let in_calendar = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    if !in_calendar || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, rest) = fraction(rest)?;
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(rest)?;
    Some(Timestamp::from_micros(seconds * 1_000_000 + micros))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9).then_some(number * 10 + i64::from(digit))
    })
}

/// Reads the digits behind the point, if one stands there; returns them as microseconds, and what follows.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', rest @ ..] = rest else {
        return Some((0, rest));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(length);
    let kept = number(&digits[..length.min(6)])?;
    (length > 0).then(|| (kept * 10_i64.pow(6 - length.min(6) as u32), rest))
}

/// Reads the offset from UTC, which must be all that is left; returns it in seconds.
fn offset(rest: &[u8]) -> Option<i64> {
    match *rest {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let seconds = hours * 3600 + minutes * 60;
            (hours <= 23 && minutes <= 59).then_some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Counts the days since 1970-01-01 for a year from 1 on: years begin in March, so that the leap day is their last.
///
/// Method: <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<String> {
        parse(text).map(|timestamp| timestamp.to_string())
    }

    #[test]
    fn times_with_an_offset_are_read_in_utc() {
        for (text, utc) in [
            ("2013-01-01T10:15:00Z", "2013-01-01T10:15:00Z"),
            ("2013-01-01t10:15:00z", "2013-01-01T10:15:00Z"),
            ("2024-02-29T23:30:00-01:00", "2024-03-01T00:30:00Z"),
            ("2024-03-01T00:30:00+23:59", "2024-02-29T00:31:00Z"),
            ("2024-03-01T00:30:00-00:00", "2024-03-01T00:30:00Z"),
            ("2000-02-29T00:00:00.1Z", "2000-02-29T00:00:00.1Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2024-01-01T00:00:00.1234567890123456789+00:00", "2024-01-01T00:00:00.123456Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-30T21:59:59Z", "9999-12-30T21:59:59Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(utc), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "infinity",
            "1700000000",
            "2024-01-01",
            "2024-01-01T00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00 Z",
            "2024-01-01T00:00:00ZZ",
            " 2024-01-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+01:60",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00+01",
            "2024-01-01T00:00:00+1:00",
            "0000-01-01T00:00:00Z",
            "-001-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "2024-01-01T00:00:00Z BC",
            "2024-1-1T00:00:00Z",
            "٢٠٢٤-01-01T00:00:00Z",
            "2024-01-01T00:00:00Z[UTC]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_as_jiff_reads_it(
            (year, month, day) in (1..=9998, 1..=12, 1..=31),
            (hour, minute, second) in (0..=24, 0..=60, 0..=59),
            fraction in "(\\.[0-9]{1,9})?",
            offset in "Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}");
            let expected = text.parse::<jiff::Timestamp>().ok().map(Timestamp::from);
            prop_assert_eq!(parse(&text), expected, "{}", text);
        }

        #[test]
        fn what_is_taken_is_a_time_for_jiff_too(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-9:.Zz+-]{8,20}") {
            if let Some(timestamp) = parse(&text) {
                prop_assert_eq!(text.parse::<jiff::Timestamp>().ok().map(Timestamp::from), Some(timestamp));
            }
        }
    }
}
