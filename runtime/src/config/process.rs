//! What the process leaves on disk while it runs, and the limit of its open files.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that is there as long as this value: the pid file, the scheduler file.
#[derive(Debug)]
pub struct LifetimeFile {
    path: PathBuf,
}

impl LifetimeFile {
    /// Writes `content` so that a reader sees the old file or the whole new one, never a part.
    pub fn create(path: &Path, content: &str) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let temporary = path.with_file_name(format!(
            ".{}.{}.tmp",
            name.to_string_lossy(),
            std::process::id()
        ));
        let written = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The pid file of this process.
    pub fn pid(path: &Path) -> io::Result<Self> {
        Self::create(path, &std::process::id().to_string())
    }

    /// The scheduler file: `identity`, JSON as stock writes it.
    pub fn scheduler(path: &Path, identity: &serde_json::Value) -> io::Result<Self> {
        Self::create(path, &format!("{identity:#}"))
    }
}

fn write_synced(path: &Path, content: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

impl Drop for LifetimeFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the file");
        }
    }
}

/// Raises the soft limit of open files to at least half the hard one, as stock does; returns the limit then in force.
pub fn raise_open_files_limit() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = soft.max(hard / 2);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lives_as_long_as_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scheduler.json");
        let file =
            LifetimeFile::scheduler(&path, &serde_json::json!({"address": "tcp://x:1"})).unwrap();
        let read: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["address"], "tcp://x:1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(file);
        assert!(!path.exists());
        assert!(LifetimeFile::pid(Path::new("/nonexistent/x")).is_err());
    }

    #[test]
    fn open_files_limit_is_never_lowered() {
        let first = raise_open_files_limit().unwrap();
        assert!(raise_open_files_limit().unwrap() >= first);
    }
}
