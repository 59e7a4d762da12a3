//! What settings are made of: units that are read with their limits, secrets from files, and the one kind of error.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use secrecy::SecretString;

/// A duration, given in seconds; fractions are allowed.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|duration| *duration <= Duration::from_secs(10 * 365 * 86_400))
            .map(Self)
            .ok_or_else(|| "out of range".to_owned())
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_secs_f64().fmt(f)
    }
}

/// A size, given in mebibytes; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mebibytes(pub u64);

impl Mebibytes {
    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 << 20
    }
}

impl FromStr for Mebibytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: u64 = text.parse().map_err(|_| "not a whole number of MiB".to_owned())?;
        if (1..=1 << 24).contains(&number) { Ok(Self(number)) } else { Err("not in 1 to 16777216".to_owned()) }
    }
}

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A setting that is wrong, in one line that names it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(pub String);

/// Returns a secret that was given as itself, or as the name of a file that holds it.
///
/// # Errors
/// Both were given, or the file can't be read.
pub fn secret(
    name: &str,
    value: Option<&SecretString>,
    file: Option<&PathBuf>,
) -> Result<Option<SecretString>, SettingError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(SettingError(format!("{name} and {name}_FILE are both set"))),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))),
            Err(error) => Err(SettingError(format!("{name}_FILE: can't read {}: {error}", path.display()))),
        },
        (None, None) => Ok(None),
    }
}
