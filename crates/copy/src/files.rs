//! Files and directories by open directories and single names, so that nothing is reached through a
//! link. Every name here was checked to be one.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use sortie_channel::copy::{DIGEST_LEN, Digest, Meta};

use crate::{CopyError, Stop};

/// Blocks of files.
pub(crate) const BLOCK: usize = 256 << 10;
/// What of a mode is passed on: not the bits that lend rights.
const MODE_BITS: u32 = 0o1777;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Opens a directory that a person named, through links where they lead to one.
pub(crate) fn open_named_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, DIRECTORY, Mode::empty())?)
}

/// Opens a directory in another one, and no link.
pub(crate) fn open_directory(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// What an entry is, itself and not where it points; `None` when there is none.
pub(crate) fn look(parent: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Opens a regular file to be read, and waits for nobody at the other end of a pipe.
pub(crate) fn open_to_read(parent: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
    regular(file)
}

/// The same for a file that a person named.
pub(crate) fn open_named_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    regular(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file any more"))
    }
}

pub(crate) fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec)
            .unwrap_or(0)
            .min(999_999_999),
    }
}

/// The mode of something that is made here: the source's, within what the account lets others do. With
/// `preserve` it is the source's as it is. Rights of the owner are never lent to whoever runs a file.
pub(crate) fn mode(meta: &Meta, preserve: bool, umask: u32) -> u32 {
    if preserve {
        meta.mode & MODE_BITS
    } else {
        meta.mode & 0o777 & !umask
    }
}

pub(crate) fn set_times(file: impl AsFd, meta: &Meta) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &times(meta))?)
}

/// Sets the time of a link itself.
pub(crate) fn set_link_times(parent: impl AsFd, name: &[u8], meta: &Meta) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(parent, name, &times(meta), flags)?)
}

fn times(meta: &Meta) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: meta.seconds,
            tv_nsec: meta.nanoseconds.into(),
        },
    }
}

/// Whether a name still belongs to this open file.
pub(crate) fn is_named(parent: impl AsFd, name: &[u8], file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    Ok(
        look(parent, name)?
            .is_some_and(|stat| stat.st_dev == own.dev() && stat.st_ino == own.ino()),
    )
}

/// A SHA-256 that is being made.
pub(crate) struct Sum(Context);

impl Sum {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What it comes to so far.
    pub(crate) fn digest(&self) -> Digest {
        let digest = self.0.clone().finish();
        let mut bytes = [0; DIGEST_LEN];
        // A SHA-256 has as many.
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Digest(bytes)
    }

    /// The sum of a file's next `length` bytes; `None` when it has fewer.
    pub(crate) fn of(file: &mut File, length: u64, stop: &Stop) -> Result<Option<Self>, ReadError> {
        let mut sum = Self::new();
        let mut left = length;
        let mut block = vec![0; BLOCK];
        while left > 0 {
            stop.check().map_err(ReadError::Stopped)?;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK);
            let place = block.get_mut(..most).unwrap_or_default();
            let read = read(file, place).map_err(ReadError::Io)?;
            if read == 0 {
                return Ok(None);
            }
            sum.add(place.get(..read).unwrap_or_default());
            left = left.saturating_sub(read as u64);
        }
        Ok(Some(sum))
    }
}

/// Why a file's sum was not made.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Stopped(CopyError),
}

/// Reads what there is, at least one byte unless it is the end.
pub(crate) fn read(file: &mut impl Read, place: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(place) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// An error of the system in its own words, without its number.
pub(crate) fn spoken(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut text = text.get(..end).unwrap_or_default().to_owned();
    // In the middle of a sentence.
    if text.chars().nth(1).is_some_and(char::is_lowercase)
        && let Some(first) = text.get_mut(..1)
    {
        first.make_ascii_lowercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_not_lent_and_the_umask_holds_unless_modes_are_kept() {
        let meta = Meta {
            mode: 0o6777,
            seconds: 0,
            nanoseconds: 0,
        };
        assert_eq!(mode(&meta, false, 0o022), 0o755);
        assert_eq!(mode(&meta, true, 0o022), 0o777);
    }

    #[test]
    fn the_systems_words_stand_in_a_sentence() {
        let error = io::Error::from_raw_os_error(13);
        assert_eq!(spoken(&error), "permission denied");
        assert_eq!(spoken(&io::Error::other("I/O")), "I/O");
    }
}
