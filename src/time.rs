//! Moments and months, always in UTC.
//!
//! A [`Timestamp`] is what PostgreSQL's `timestamptz` holds: whole microseconds. A [`Month`] is what one leaf of the
//! `events` table covers. Both are plain numbers, so that the path of an event compares integers.

use std::{fmt, str::FromStr};

/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A moment in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the moment that lies `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads PostgreSQL's binary form: microseconds since 2000-01-01T00:00:00Z.
    pub const fn from_postgres(micros: i64) -> Self {
        Self(micros + POSTGRES_EPOCH_MICROS)
    }

    /// Returns PostgreSQL's binary form: microseconds since 2000-01-01T00:00:00Z.
    pub const fn to_postgres(self) -> i64 {
        self.0 - POSTGRES_EPOCH_MICROS
    }

    /// Returns the month that the moment lies in.
    pub fn month(self) -> Month {
        let date = self.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).date();
        Month(i32::from(date.year()) * 12 + i32::from(date.month()) - 1)
    }

    /// Returns the moment as jiff knows it; beyond jiff's years (-9999 to 9999) the nearest that it knows.
    pub fn to_jiff(self) -> jiff::Timestamp {
        let limit = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(limit)
    }

    /// Returns the moment `duration` later.
    pub const fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as i64))
    }

    /// Returns the moment `duration` earlier.
    pub const fn minus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_micros() as i64))
    }

    /// Returns how long after `earlier` this moment is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(timestamp: jiff::Timestamp) -> Self {
        // Floors: digits beyond microseconds are cut, also before 1970.
        Self(timestamp.as_nanosecond().div_euclid(1000) as i64)
    }
}

/// RFC 3339 in UTC, with as many digits as the fraction needs.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_jiff().fmt(f)
    }
}

/// Tells the time. A process has one, handed to whatever decides by time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Microseconds that this clock is ahead of the system's. Only tests set it.
    offset_micros: i64,
}

impl Clock {
    /// Returns a clock that is `offset_micros` microseconds ahead of the system's.
    pub const fn ahead_by(offset_micros: i64) -> Self {
        Self { offset_micros }
    }

    /// Returns the moment of now.
    pub fn now(self) -> Timestamp {
        Timestamp(Timestamp::from(jiff::Timestamp::now()).0 + self.offset_micros)
    }
}

/// A calendar month in UTC, as months since January of year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

impl Month {
    /// Returns the month of a year; `month` counts from 1.
    ///
    /// # Errors
    /// `None` unless the year lies in 1 to 9998 and the month in 1 to 12.
    pub fn new(year: i32, month: u32) -> Option<Self> {
        ((1..=9998).contains(&year) && (1..=12).contains(&month)).then(|| Self(year * 12 + month as i32 - 1))
    }

    /// Returns the months since January of year 0, for the journal.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Reads what [`Month::number`] returned.
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Returns the calendar year.
    pub const fn year(self) -> i32 {
        self.0.div_euclid(12)
    }

    /// Returns the month of the year, 1 to 12.
    pub const fn month(self) -> u32 {
        self.0.rem_euclid(12) as u32 + 1
    }

    /// Returns the month `months` later, or earlier when negative.
    pub const fn plus(self, months: i32) -> Self {
        Self(self.0 + months)
    }

    /// Returns the first moment of the month. The month ends, exclusively, where the next one starts.
    pub fn start(self) -> Timestamp {
        let date = jiff::civil::date(self.year().clamp(-9999, 9999) as i16, self.month() as i8, 1);
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC);
        zoned.map_or(Timestamp(i64::MAX), |start| start.timestamp().into())
    }

    /// Returns the name of the month's leaf: `events_2024_02`.
    pub fn leaf(self) -> String {
        format!("events_{:04}_{:02}", self.year(), self.month())
    }
}

/// As in `2024-02`.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.month())
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (year, month) = text.split_once('-')?;
            (year.len() == 4 && month.len() == 2 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
                .then(|| Self::new(year.parse().ok()?, month.parse().ok()?))?
        };
        parse().ok_or_else(|| format!("{text:?} is not a month such as 2024-02"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn month_starts_where_the_one_before_ends() {
        let month: Month = "2013-12".parse().unwrap();
        assert_eq!(month.start().to_string(), "2013-12-01T00:00:00Z");
        assert_eq!(month.plus(1).to_string(), "2014-01");
        assert_eq!(month.plus(1).start().month(), month.plus(1));
        assert_eq!(Timestamp::from_micros(month.plus(1).start().as_micros() - 1).month(), month);
        assert_eq!(month.leaf(), "events_2013_12");
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in ["2024", "2024-13", "2024-00", "24-01", "2024-1", "2024-02-01", "+024-01", ""] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    #[test]
    fn digits_beyond_microseconds_are_cut() {
        let timestamp: jiff::Timestamp = "2024-01-01T00:00:00.123456999Z".parse().unwrap();
        assert_eq!(Timestamp::from(timestamp).to_string(), "2024-01-01T00:00:00.123456Z");
        assert_eq!(Timestamp::from_postgres(Timestamp::from(timestamp).to_postgres()), timestamp.into());
    }
}
