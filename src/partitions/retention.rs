//! How long events are kept.

use std::{fmt, str::FromStr, time::Duration};

use crate::{settings::SettingError, time::Timestamp};

/// How long events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Calendar months; a year is twelve.
    Months(u32),
    /// Days of 24 hours.
    Days(u32),
}

impl Retention {
    /// Returns the first moment that is kept when it is `now`. A month that lacks the day ends with its last one.
    pub fn oldest_kept(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Days(days) => now.minus(Duration::from_secs(u64::from(days) * 86_400)),
            Self::Months(months) => {
                let zoned = now.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
                let span = jiff::Span::new().try_months(months);
                let kept = span.and_then(|span| zoned.checked_sub(span));
                // Before the first year that the calendar knows, everything is kept.
                kept.map_or(Timestamp::from_micros(i64::MIN), |kept| kept.timestamp().into())
            }
        }
    }
}

impl FromStr for Retention {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let parse = || {
            let unit = text.find(|c: char| !c.is_ascii_digit())?;
            let number: u32 = text[..unit].parse().ok().filter(|number| (1..=100_000).contains(number))?;
            match &text[unit..] {
                "month" | "months" => Some(Self::Months(number)),
                "year" | "years" => number.checked_mul(12).map(Self::Months),
                "day" | "days" => Some(Self::Days(number)),
                _ => None,
            }
        };
        parse().ok_or_else(|| SettingError(format!("{text:?} is not a time such as 12months, 90days or 2years")))
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Months(months) => write!(f, "{months}months"),
            Self::Days(days) => write!(f, "{days}days"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_anything_else_is_refused() {
        for (text, retention) in [
            ("12months", Retention::Months(12)),
            ("1month", Retention::Months(1)),
            ("2years", Retention::Months(24)),
            ("1year", Retention::Months(12)),
            ("90days", Retention::Days(90)),
        ] {
            assert_eq!(text.parse::<Retention>().unwrap(), retention);
        }
        for text in ["", "12", "months", "0months", "0days", "-1days", "3 months", "1.5years", "9999999999days"] {
            assert!(text.parse::<Retention>().is_err(), "{text}");
        }
    }

    #[test]
    fn months_are_the_calendars() {
        let at = |text: &str| Timestamp::from(text.parse::<jiff::Timestamp>().unwrap());
        let now = at("2024-03-31T12:00:00Z");
        assert_eq!(Retention::Months(1).oldest_kept(now), at("2024-02-29T12:00:00Z"));
        assert_eq!(Retention::Months(12).oldest_kept(now), at("2023-03-31T12:00:00Z"));
        assert_eq!(Retention::Days(31).oldest_kept(now), at("2024-02-29T12:00:00Z"));
    }
}
