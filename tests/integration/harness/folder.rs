//! Temporary folders that are gone after the tests, however those end.

use tempfile::TempDir;

use super::reaper;

/// Makes a folder whose name tells what it is for.
pub fn temporary(purpose: &str) -> TempDir {
    let prefix = format!("forebay-test-{purpose}-");
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
    reaper::remove_at_end(folder.path());
    folder
}
