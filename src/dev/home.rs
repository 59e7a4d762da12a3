//! Where `dev` keeps its things: `./.forebay`, or `/var/lib/forebay/dev`, and how other commands find it there.
//!
//! One process owns the folder, by a lock that ends with it. Files: `lock`, `port`, `password`, `env`, `data`, `cache`,
//! `journal`, `postgres.log`.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use super::guard::Owner;

/// Name of the folder within the folder that `dev` runs in.
pub(super) const FOLDER: &str = ".forebay";
/// For root, where `nobody` can't enter the folder that `dev` runs in.
const SYSTEM_FOLDER: &str = "/var/lib/forebay/dev";
/// PostgreSQL refuses to run as root; this user has no rights to lose and is in every passwd.
pub(super) const NOBODY: Owner = Owner { uid: 65534, gid: 65534 };
/// What `env` says before the home's path, where that is not the folder itself.
const HOME_MARK: &str = "# Lies in ";
const URL_MARK: &str = "DATABASE_URL=";

/// Where a `dev` keeps its things, and whom its PostgreSQL runs as.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// `./.forebay`, absolute; the same as `path` but for root in a folder that others can't enter.
    local: PathBuf,
    /// `None` = as ourselves.
    pub owner: Option<Owner>,
}

/// The folder of one `dev`. Owned by this process for as long as the value lives.
#[derive(Debug)]
pub struct Home {
    place: Place,
    /// Held, never read.
    _lock: File,
}

/// Returns the place of a `dev` that runs in `folder`, and creates its folders where they are not there.
pub(super) fn place(folder: &Path) -> anyhow::Result<Place> {
    let folder = folder.canonicalize().with_context(|| format!("open {}", folder.display()))?;
    let local = folder.join(FOLDER);
    create(&local)?;
    // So that nobody commits their data by accident.
    fs::write(local.join(".gitignore"), "*\n").with_context(|| format!("write into {}", local.display()))?;
    let mut path = local.clone();
    let mut owner = owner_of(&path);
    if let Some(user) = owner
        && !can_enter(&path, user)
    {
        path = SYSTEM_FOLDER.into();
        create(&path)?;
        owner = owner_of(&path);
    }
    Ok(Place { path, local, owner })
}

impl Place {
    /// Returns folders that may hold PostgreSQL's programs; new ones go to the first.
    pub fn caches(&self) -> Vec<PathBuf> {
        let mut caches = vec![self.path.join("cache"), self.local.join("cache")];
        caches.dedup();
        caches
    }
}

impl Home {
    /// Takes the home of a `dev` that runs in `folder`, and creates it where it is not there.
    ///
    /// # Errors
    /// Another `dev` has it, or it can't be written.
    pub async fn open(folder: &Path) -> anyhow::Result<Self> {
        let place = place(folder)?;
        let lock = lock(&place.path).await?;
        Ok(Self { place, _lock: lock })
    }

    /// Returns where it is, and whom PostgreSQL runs as.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Returns the journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.place.path.join("journal")
    }

    /// Returns a line that says where the data lies, when that is not where people look first.
    pub fn note(&self) -> Option<String> {
        let (path, local) = (self.place.path.display(), self.place.local.display());
        (self.place.path != self.place.local).then(|| {
            format!("PostgreSQL does not run as root, and its user can't enter {local}: the data lies in {path}")
        })
    }

    /// Tells other commands, and shells that read the file, where the database is.
    pub(super) fn write_env(&self, url: &str) -> io::Result<()> {
        let text = format!("# Written by forebay dev. Read it with: . ./.forebay/env\n{URL_MARK}{url}\n");
        write_secret(&self.place.path.join("env"), &text)?;
        if self.place.path != self.place.local {
            write_secret(&self.place.local.join("env"), &format!("{text}{HOME_MARK}{}\n", self.place.path.display()))?;
        }
        Ok(())
    }

    /// Takes back what [`Home::write_env`] told.
    pub(super) fn remove_env(&self) {
        for folder in [&self.place.path, &self.place.local] {
            // What is not there need not go; what can't go is overwritten by the next start.
            let _ = fs::remove_file(folder.join("env"));
        }
    }
}

/// Returns the `DATABASE_URL` of the `dev` that runs in `folder` now.
pub fn running_dev_url(folder: &Path) -> Option<String> {
    let local = folder.join(FOLDER);
    let text = fs::read_to_string(local.join("env")).ok()?;
    let home = text.lines().find_map(|line| line.strip_prefix(HOME_MARK)).map_or(local, PathBuf::from);
    let held = File::open(home.join("lock")).ok()?.try_lock_shared();
    if !matches!(held, Err(TryLockError::WouldBlock)) {
        return None; // It has ended, or was killed.
    }
    let text = fs::read_to_string(home.join("env")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(URL_MARK)).map(str::to_owned)
}

/// Writes a file that only this user reads.
pub(super) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn create(path: &Path) -> anyhow::Result<()> {
    if !path.is_dir() {
        fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        // Whatever the umask says: PostgreSQL's user must enter.
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

async fn lock(path: &Path) -> anyhow::Result<File> {
    let file_path = path.join("lock");
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&file_path);
    let file = file.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()));
    let file = file.with_context(|| format!("open {} (made by another user?)", file_path.display()))?;
    // A command that looks whether `dev` runs holds the lock for a moment.
    for _ in 0..10 {
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(file.try_clone()?);
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(error)) => return Err(error).context("lock the folder"),
        }
    }
    let pid = fs::read_to_string(&file_path).unwrap_or_default();
    anyhow::bail!("another forebay dev (process {}) has {}", pid.trim(), path.display())
}

/// Returns whom PostgreSQL must run as: for root, whoever owns the data, else nobody; otherwise ourselves.
fn owner_of(home: &Path) -> Option<Owner> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let data = fs::metadata(home.join("data")).ok().filter(|data| data.uid() != 0);
    Some(data.map_or(NOBODY, |data| Owner { uid: data.uid(), gid: data.gid() }))
}

/// Returns whether a user may enter a folder and all those above it, by their modes.
fn can_enter(path: &Path, user: Owner) -> bool {
    path.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|meta| {
            let bit = if meta.uid() == user.uid {
                0o100
            } else if meta.gid() == user.gid {
                0o010
            } else {
                0o001
            };
            meta.mode() & bit != 0
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_under_a_closed_one_can_not_be_entered() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        let own = fs::metadata(root.path()).unwrap();
        let (own, stranger) = (Owner { uid: own.uid(), gid: own.gid() }, Owner { uid: 4242, gid: 4242 });
        fs::set_permissions(root.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!((can_enter(&inner, own), can_enter(&inner, stranger)), (true, false));
        fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        assert!(can_enter(&inner, stranger));
    }

    #[tokio::test]
    async fn url_is_told_only_while_a_dev_runs() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(running_dev_url(folder.path()), None);
        let home = Home::open(folder.path()).await.unwrap();
        assert_eq!(running_dev_url(folder.path()), None, "no database yet");
        home.write_env("postgresql://a").unwrap();
        assert_eq!(running_dev_url(folder.path()).as_deref(), Some("postgresql://a"));
        assert_eq!(fs::metadata(home.path().join("env")).unwrap().mode() & 0o777, 0o600);
        drop(home);
        assert_eq!(running_dev_url(folder.path()), None, "the file is stale");
    }

    #[tokio::test]
    async fn folder_has_one_dev() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let _first = Home::open(folder.path()).await.unwrap();
        let error = Home::open(folder.path()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("another forebay dev (process {})", std::process::id())), "{error}");
    }
}
