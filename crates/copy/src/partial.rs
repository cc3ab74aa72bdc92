//! Files that are not complete yet. Each lies beside the place where it is to be, under a name that a
//! later copy finds, and is locked by whoever writes it.
//!
//! Such a name can be foretold, so what is found under it is trusted only when it is a plain file of
//! this account with no other name.

use std::{
    fs::File,
    io::{self, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::files;

const SUFFIX: &[u8] = b".sortie-part";
const LONGEST_NAME: usize = 255;
/// Random digits behind the suffix, where the plain name is taken.
const RANDOM: usize = 8;
const OPEN: OFlags = OFlags::RDWR
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK);

/// A file that is not complete.
pub(crate) struct Partial {
    pub(crate) file: File,
    name: Vec<u8>,
}

/// Under which name the file `name` is made.
fn partial_name(name: &[u8]) -> Vec<u8> {
    let most = LONGEST_NAME - 1 - SUFFIX.len() - 1 - RANDOM;
    let name = name.get(..most).unwrap_or(name);
    [b".", name, SUFFIX].concat()
}

fn random_name(name: &[u8]) -> io::Result<Vec<u8>> {
    let mut random = [0; RANDOM / 2];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&partial_name(name), &b"."[..], digits.as_bytes()].concat())
}

/// What is found under a partial name.
enum Found {
    /// A file of this account, now locked.
    Free(File),
    /// One that somebody else writes.
    Locked(File),
    /// Something that is not to be touched.
    Strange,
}

impl Partial {
    /// What an earlier copy has left of a file, if that is some and no more than `size`; and how much
    /// it is.
    pub(crate) fn left(
        directory: &OwnedFd,
        name: &[u8],
        size: u64,
    ) -> io::Result<Option<(Self, u64)>> {
        let partial = partial_name(name);
        let Some(stat) = files::look(directory, &partial)? else {
            return Ok(None);
        };
        let length = files::size(&stat);
        if files::file_type(&stat) != FileType::RegularFile || !(1..=size).contains(&length) {
            return Ok(None);
        }
        let file = match find(directory, &partial)? {
            Found::Free(file) => file,
            // Whoever writes it is cut off, and may not know it yet.
            Found::Locked(mut other) => {
                let mut own = Self::replace(directory, name, &partial)?;
                io::copy(&mut other, &mut own.file)?;
                own.file.rewind()?;
                own.file
            }
            Found::Strange => return Ok(None),
        };
        // It may have grown since.
        let length = file.metadata()?.len();
        let left = (1..=size).contains(&length);
        Ok(left.then_some((
            Self {
                file,
                name: partial,
            },
            length,
        )))
    }

    /// An empty one.
    pub(crate) fn create(directory: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        let partial = partial_name(name);
        match Self::create_new(directory, partial.clone()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        match find(directory, &partial)? {
            Found::Free(file) => {
                file.set_len(0)?;
                Ok(Self {
                    file,
                    name: partial,
                })
            }
            Found::Locked(_) => Self::replace(directory, name, &partial),
            Found::Strange => Self::create_new(directory, random_name(name)?),
        }
    }

    fn create_new(directory: &OwnedFd, name: Vec<u8>) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(0o600);
        let flags = OPEN | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(directory, &name[..], flags, mode)?;
        lock(&file)?;
        Ok(Self {
            file: file.into(),
            name,
        })
    }

    /// An empty one in place of that of somebody else, whose file loses its name.
    fn replace(directory: &OwnedFd, name: &[u8], partial: &[u8]) -> io::Result<Self> {
        let made = Self::create_new(directory, random_name(name)?)?;
        rustix::fs::renameat(directory, &made.name[..], directory, partial)?;
        Ok(Self {
            name: partial.to_vec(),
            ..made
        })
    }

    /// Forgets what is in it.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)
    }

    /// Gives the file its name, in place of what has it.
    pub(crate) fn put_in_place(&self, directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if !files::is_named(directory, &self.name, &self.file)? {
            return Err(io::Error::other(
                "another copy to the same place has taken over",
            ));
        }
        Ok(rustix::fs::renameat(
            directory,
            &self.name[..],
            directory,
            name,
        )?)
    }

    /// Removes it.
    pub(crate) fn discard(&self, directory: &OwnedFd) {
        if files::is_named(directory, &self.name, &self.file).unwrap_or(false) {
            // What stays is found by the next copy.
            let _ = rustix::fs::unlinkat(directory, &self.name[..], AtFlags::empty());
        }
    }
}

fn find(directory: &OwnedFd, partial: &[u8]) -> io::Result<Found> {
    let file: File = match rustix::fs::openat(directory, partial, OPEN, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Err(io::ErrorKind::NotFound.into()),
        Err(_) => return Ok(Found::Strange),
    };
    let about = file.metadata()?;
    let is_own = about.uid() == rustix::process::geteuid().as_raw();
    if !about.is_file() || !is_own || about.nlink() != 1 {
        return Ok(Found::Strange);
    }
    Ok(if lock(&file)? {
        Found::Free(file)
    } else {
        Found::Locked(file)
    })
}

/// Whether nobody else has locked the file. Where files cannot be locked nobody has.
fn lock(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        _ => Ok(true),
    }
}

/// Makes a symbolic link under a temporary name and gives it its own.
pub(crate) fn put_link(directory: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
    let temporary = random_name(name)?;
    rustix::fs::symlinkat(target, directory, &temporary[..])?;
    let put = rustix::fs::renameat(directory, &temporary[..], directory, name);
    if put.is_err() {
        let _ = rustix::fs::unlinkat(directory, &temporary[..], AtFlags::empty());
    }
    Ok(put?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        path::Path,
    };

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        files::open_named_directory(path).unwrap()
    }

    #[test]
    fn what_was_left_is_found_and_gets_its_name_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        let mut partial = Partial::create(&directory, b"a").unwrap();
        partial.file.write_all(b"one").unwrap();
        drop(partial);
        assert!(Partial::left(&directory, b"a", 2).unwrap().is_none());
        let (mut partial, length) = Partial::left(&directory, b"a", 9).unwrap().unwrap();
        let mut text = String::new();
        partial.file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), length), ("one", 3));
        partial.put_in_place(&directory, b"a").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"one");
    }

    #[test]
    fn a_writer_that_was_left_behind_harms_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        let mut old = Partial::create(&directory, b"a").unwrap();
        old.file.write_all(b"one").unwrap();
        let (mut new, length) = Partial::left(&directory, b"a", 9).unwrap().unwrap();
        assert_eq!(length, 3);
        old.file.write_all(b" late").unwrap();
        let mut text = String::new();
        new.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        assert!(old.put_in_place(&directory, b"a").is_err());
        old.discard(&directory);
        new.put_in_place(&directory, b"a").unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"one");
    }

    #[test]
    fn what_somebody_has_put_there_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        let precious = folder.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        let trap = folder.path().join(".a.sortie-part");
        for set in [
            |precious: &Path, trap: &Path| fs::hard_link(precious, trap),
            |precious: &Path, trap: &Path| std::os::unix::fs::symlink(precious, trap),
        ] {
            set(&precious, &trap).unwrap();
            assert!(Partial::left(&directory, b"a", 9).unwrap().is_none());
            let mut partial = Partial::create(&directory, b"a").unwrap();
            partial.file.write_all(b"theirs").unwrap();
            partial.put_in_place(&directory, b"a").unwrap();
            assert_eq!(fs::read(&precious).unwrap(), b"mine");
            fs::remove_file(&trap).unwrap();
        }
    }

    #[test]
    fn names_are_never_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        let long = [b'x'; LONGEST_NAME];
        assert!(random_name(&long).unwrap().len() <= LONGEST_NAME);
        let first = Partial::create(&directory, &long).unwrap();
        let second = Partial::create(&directory, &long).unwrap();
        assert!(first.put_in_place(&directory, &long).is_err());
        second.put_in_place(&directory, &long).unwrap();
    }
}
