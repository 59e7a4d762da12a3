//! What `import` is told.

use std::{ffi::OsString, fs, path::PathBuf};

use secrecy::SecretString;
use url::Url;

use crate::settings::SettingError;

/// Arguments of `import`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// File of events: .ndjson or .csv, also with .gz or .zst; - reads NDJSON from the standard input.
    pub file: PathBuf,

    /// Where the server is.
    #[arg(long, default_value = "http://localhost:8000", value_parser = parse_url)]
    pub url: Url,

    /// File that holds the API key.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Service of a CSV file's events. Unset, it is the file's name without its endings.
    #[arg(long)]
    pub service_name: Option<String>,

    /// Priority of all batches, 0 (the default) to 10 (the most urgent).
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=10))]
    pub priority: Option<u8>,
}

/// How events are written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// An event as JSON on each line.
    Ndjson,
    /// Five columns.
    Csv,
}

/// How the file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    Plain,
    /// gzip, one member or several.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// What the file's name says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub rows: Rows,
    pub packing: Packing,
    /// The name without its endings.
    pub stem: String,
}

impl Args {
    /// Returns whether the events come from the standard input.
    pub(super) fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// Reads the format from the file's name.
    pub(super) fn format(&self) -> Result<Format, SettingError> {
        if self.is_stdin() {
            return Ok(Format { rows: Rows::Ndjson, packing: Packing::Plain, stem: "stdin".into() });
        }
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        read_format(&name).ok_or_else(|| {
            let file = self.file.display();
            SettingError(format!("{file}: the name must end in .ndjson or .csv, then .gz or .zst if it is compressed"))
        })
    }

    /// Reads the API key.
    pub(super) fn api_key(&self) -> Result<Option<SecretString>, SettingError> {
        let Some(path) = &self.api_key_file else {
            return Ok(None);
        };
        let key = fs::read_to_string(path)
            .map_err(|error| SettingError(format!("--api-key-file: can't read {}: {error}", path.display())))?;
        match key.trim() {
            "" => Err(SettingError(format!("--api-key-file: {} is empty", path.display()))),
            key => Ok(Some(key.to_owned().into())),
        }
    }

    /// Returns the path of a file that lies beside the input; in the current folder for the standard input.
    pub(super) fn beside(&self, ending: &str) -> PathBuf {
        let mut path = if self.is_stdin() { OsString::from("stdin") } else { self.file.clone().into_os_string() };
        path.push(ending);
        path.into()
    }
}

fn read_format(name: &str) -> Option<Format> {
    let lower = name.to_ascii_lowercase();
    let (packing, plain) = match lower.rsplit_once('.')? {
        (rest, "gz") => (Packing::Gzip, rest),
        (rest, "zst") => (Packing::Zstd, rest),
        _ => (Packing::Plain, lower.as_str()),
    };
    let (stem, rows) = match plain.rsplit_once('.')? {
        (stem, "ndjson") => (stem, Rows::Ndjson),
        (stem, "csv") => (stem, Rows::Csv),
        _ => return None,
    };
    // The lower-case copy has the same length: only ASCII letters were changed.
    (!stem.is_empty()).then(|| Format { rows, packing, stem: name[..stem.len()].to_owned() })
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let mut url = url.ok_or("not the address of an HTTP server such as http://localhost:8000")?;
    // Paths of the API are joined to it, and a proxy may serve it below a path.
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_read_from_the_name() {
        for (name, rows, packing, stem) in [
            ("flights-2013-01.csv.gz", Rows::Csv, Packing::Gzip, "flights-2013-01"),
            ("Ünder.v2.NDJSON", Rows::Ndjson, Packing::Plain, "Ünder.v2"),
            ("a.ndjson.zst", Rows::Ndjson, Packing::Zstd, "a"),
        ] {
            assert_eq!(read_format(name), Some(Format { rows, packing, stem: stem.into() }), "{name}");
        }
        for name in ["a", "a.gz", "a.json", ".csv", "a.csv.bz2", "csv", "a.csv.gz.gz"] {
            assert_eq!(read_format(name), None, "{name}");
        }
    }

    #[test]
    fn address_may_have_a_path() {
        let joined = |text| parse_url(text).unwrap().join("v1/health").unwrap().to_string();
        assert_eq!(joined("http://localhost:8000"), "http://localhost:8000/v1/health");
        assert_eq!(joined("https://example.com/events"), "https://example.com/events/v1/health");
        assert!(parse_url("localhost:8000").is_err());
        assert!(parse_url("file:///x").is_err());
    }
}
