//! Where the database lies: its directory, its file and their modes, and the lock that keeps a
//! second server out. Knows nothing of SQL.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why the place of a database could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory could not be made.
    #[error("cannot make directory `{}`", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database or its lock file could not be opened or given its mode.
    #[error("cannot open file `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("`{}` is in use by another server", .0.display())]
    InUse(PathBuf),
}

/// The right to use a database, until dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Place {
    /// Open and locked. The kernel lets go of the lock when the process dies, however it dies.
    lock: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Closing is not enough while a child that is just being started has the descriptor, too. What
        // cannot be unlocked is closed all the same.
        let _ = self.lock.unlock();
    }
}

impl Place {
    /// Makes directory (0700) and file (0600) where they are missing and takes the lock. An
    /// existing directory is left as it is; an existing file gets the mode.
    pub(crate) fn take(database: &Path) -> Result<Self, PlaceError> {
        if let Some(directory) = database.parent() {
            make_directory(directory)?;
        }
        // A file of its own: SQLite's locks would be lost with any other descriptor of the
        // database that this process closes.
        let mut lock_path = database.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = private_file(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PlaceError::InUse(database.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(PlaceError::File {
                    path: lock_path,
                    source,
                });
            }
        }
        // Before SQLite opens it: journals take over the mode of the database.
        private_file(database)?;
        Ok(Self { lock })
    }
}

fn make_directory(path: &Path) -> Result<(), PlaceError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| PlaceError::Directory {
        path: path.to_owned(),
        source,
    })
}

fn private_file(path: &Path) -> Result<File, PlaceError> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    };
    open().map_err(|source| PlaceError::File {
        path: path.to_owned(),
        source,
    })
}
