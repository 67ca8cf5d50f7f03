//! Where uploaded files are kept.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// A private folder for uploaded files, removed with the pool.
#[derive(Debug)]
pub(super) struct UploadFolder(pub PathBuf);

impl UploadFolder {
    /// Makes the folder, for this user alone.
    pub fn new() -> io::Result<Self> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let path =
            std::env::temp_dir().join(format!("oxidask-uploads-{}-{now}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(UploadFolder(path))
    }
}

impl Drop for UploadFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
