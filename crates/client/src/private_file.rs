//! Files that hold keys: readable by their owner alone, and replaced in one step, so that a reader
//! sees the old content or the new one and a crash leaves one of them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Replaces the file at `path`, with mode 0600, making its folders where they are missing. A symbolic
/// link stays one: what it points to is replaced.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let new = folder.join(format!(".{}.tmp", Uuid::new_v4().simple()));
    let written = write_new(&new, content).and_then(|()| std::fs::rename(&new, &path));
    if written.is_err() {
        // What could not take the file's place is of no use; it may not even be there.
        let _ = std::fs::remove_file(&new);
        return written;
    }
    // The name, too, has to survive a crash; not every file system lets a folder be synced.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_its_owners_whatever_it_was_before_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/keys");
        replace(&path, b"one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        replace(&link, b"two").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
