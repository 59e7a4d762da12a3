//! Months and the names of their leaves.

use jiff::{Timestamp, Zoned, civil::Date, tz::TimeZone};

/// A month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(Date);

impl Month {
    /// Returns the month that is `months` from the current one.
    pub fn from_now(months: i32) -> Self {
        let today = Zoned::new(Timestamp::now(), TimeZone::UTC).date().first_of_month();
        Self(today.checked_add(jiff::Span::new().months(months)).unwrap())
    }

    /// Returns the name of its leaf.
    pub fn leaf(self) -> String {
        self.0.strftime("events_%Y_%m").to_string()
    }

    /// Returns it as commands take it: `2024-02`.
    pub fn text(self) -> String {
        self.0.strftime("%Y-%m").to_string()
    }

    /// Returns the first moment of its day `day`, at noon.
    pub fn noon(self, day: i8) -> String {
        format!("{}-{day:02}T12:00:00Z", self.text())
    }

    /// Returns its first moment as PostgreSQL reads a bound.
    pub fn bound(self) -> String {
        format!("{}-01 00:00:00+00", self.text())
    }

    /// Returns the month after it.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(jiff::Span::new().months(1)).unwrap())
    }
}
