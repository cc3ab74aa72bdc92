//! Directories while they are filled. A directory is settled when it was left and everything in it is
//! settled, whoever does the last of it.

use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use rustix::{
    fs::{Mode, fchmod, fsync, mkdirat},
    io::Errno,
};
use sortie_channel::copy::{Meta, Name};

use super::{Shared, Spot};
use crate::{
    Settled,
    files::{self, spoken},
    place,
};

/// So that the account can fill it.
const OWNER: u32 = 0o700;

/// A directory that is held open by what is in it.
pub(super) struct OpenDirectory {
    pub(super) file: OwnedFd,
    pub(super) path: PathBuf,
    /// Absent for the one that everything goes into.
    settling: Option<Settling>,
}

struct Settling {
    entry: u64,
    parent: Arc<OpenDirectory>,
    meta: Meta,
    is_new: bool,
    is_marked: bool,
}

impl OpenDirectory {
    /// The one that everything goes into.
    pub(super) fn top(file: OwnedFd) -> Self {
        Self {
            file,
            path: PathBuf::new(),
            settling: None,
        }
    }
}

/// Makes a directory, or opens the one that is there. With `mark` it is marked until it is complete.
pub(super) fn make_directory(
    shared: &Shared<'_>,
    entry: u64,
    spot: Spot,
    meta: Meta,
    mark: Option<&Name>,
) -> io::Result<Arc<OpenDirectory>> {
    let Spot {
        directory: parent,
        name,
        path,
    } = spot;
    let opened = match &name {
        None => parent.file.try_clone().map(|file| (file, false)),
        Some(name) => open_or_make(shared, &parent, name, &meta),
    };
    let (file, is_new) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            release(shared, parent);
            return Err(error);
        }
    };
    let mut is_marked = name.is_none() && path.as_os_str() != ".";
    if let (true, Some(source)) = (is_new, mark) {
        // Without it a later copy does not go on here, and nothing worse.
        is_marked = place::mark(&file, source).is_ok();
    }
    Ok(Arc::new(OpenDirectory {
        file,
        path,
        settling: Some(Settling {
            entry,
            parent,
            meta,
            is_new,
            is_marked,
        }),
    }))
}

fn open_or_make(
    shared: &Shared<'_>,
    parent: &OpenDirectory,
    name: &Name,
    meta: &Meta,
) -> io::Result<(OwnedFd, bool)> {
    let manner = &shared.manner;
    let mode = files::mode(meta, false, manner.umask) | OWNER;
    let is_new = match mkdirat(&parent.file, name.as_bytes(), Mode::from_raw_mode(mode)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    match files::open_directory(&parent.file, name.as_bytes()) {
        Ok(file) => Ok((file, is_new)),
        Err(error)
            if [Errno::LOOP, Errno::NOTDIR]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            Err(io::Error::other(
                "a file or a symbolic link of that name is in the way",
            ))
        }
        Err(error) => Err(error),
    }
}

/// Lets go of a directory, and settles it and those that it is in when nobody else holds them.
pub(super) fn release(shared: &Shared<'_>, directory: Arc<OpenDirectory>) {
    let mut next = Some(directory);
    while let Some(directory) = next.take().and_then(Arc::into_inner) {
        let Some(settling) = directory.settling else {
            // The names in it, as far as this system keeps them apart from the files.
            let _ = fsync(&directory.file);
            return;
        };
        match complete(shared, &directory.file, &settling) {
            Ok(()) => shared.settle(settling.entry, directory.path, Settled::Directory),
            Err(error) => shared.fail(settling.entry, directory.path, spoken(&error)),
        }
        next = Some(settling.parent);
    }
}

fn complete(shared: &Shared<'_>, file: &OwnedFd, settling: &Settling) -> io::Result<()> {
    let manner = &shared.manner;
    if settling.is_marked {
        place::unmark(file)?;
    }
    let mode = files::mode(&settling.meta, manner.preserve, manner.umask);
    let differs = mode & OWNER != OWNER;
    if manner.preserve || settling.is_new && differs {
        fchmod(file, Mode::from_raw_mode(mode))?;
    }
    if manner.preserve {
        files::set_times(file, &settling.meta)?;
    }
    Ok(())
}
