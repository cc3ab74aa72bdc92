//! Where a copy goes: into a directory that is there, or to a name that is to be.
//!
//! A directory that a copy has made under the name that a person gave is marked until all of it is
//! there, so that the same command goes on in it and not within it.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::fs::{AtFlags, Mode, OFlags};
use sortie_channel::copy::Name;

use crate::files::{self, spoken};

/// Lies in a directory that is not complete, and holds the name of its source.
const MARK: &[u8] = b".sortie-cp-unfinished";
/// The longest name.
const LONGEST_MARK: u64 = 255;

/// An open directory, and the name within it that was asked for; without one, entries keep theirs.
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    pub(crate) name: Option<Name>,
}

impl Place {
    /// Finds the place that `path` means, as `cp` would. The error is for people.
    pub(crate) fn find(path: &Path, must_be_directory: bool) -> Result<Self, String> {
        let shown = path.display();
        let text = path.as_os_str().as_bytes();
        let path = if text.is_empty() {
            Path::new(".")
        } else {
            path
        };
        let fails = |what: &Path, error: &std::io::Error| {
            format!("cannot open {}: {}", what.display(), spoken(error))
        };
        if path.is_dir() || text.ends_with(b"/") || path.file_name().is_none() {
            let directory =
                files::open_named_directory(path).map_err(|error| fails(path, &error))?;
            return Ok(Self {
                directory,
                name: None,
            });
        }
        if must_be_directory {
            return Err(format!("{shown} is not a directory"));
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory =
            files::open_named_directory(parent).map_err(|error| fails(parent, &error))?;
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let name = Name::new(name).map_err(|error| format!("{shown}: {error}"))?;
        Ok(Self {
            directory,
            name: Some(name),
        })
    }

    /// Whether the directory is one that an earlier copy of the same source has not finished.
    pub(crate) fn is_unfinished(&self, source: &Name) -> bool {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut name = Vec::new();
            files::open_to_read(&self.directory, MARK)?
                .take(LONGEST_MARK)
                .read_to_end(&mut name)?;
            Ok(name)
        };
        self.name.is_none() && read().is_ok_and(|name| name == source.as_bytes())
    }
}

/// Marks a directory as not finished.
pub(crate) fn mark(directory: &OwnedFd, source: &Name) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let mut file = File::from(rustix::fs::openat(directory, MARK, flags, mode)?);
    file.write_all(source.as_bytes())
}

/// Takes the mark away.
pub(crate) fn unmark(directory: &OwnedFd) -> std::io::Result<()> {
    Ok(rustix::fs::unlinkat(directory, MARK, AtFlags::empty())?)
}
