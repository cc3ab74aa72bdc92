//! Walks what is to be sent, one entry at a time, and follows no link below what was named.

use std::{
    collections::VecDeque,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::fs::{Dir, FileType, Stat};
use sortie_channel::copy::{DEEPEST, Meta, Name, ProblemKind};

use crate::files::{self, spoken};

/// The largest target of a link.
const LONGEST_TARGET: usize = 4096;

/// One of the things that are to be sent.
pub(crate) enum Root {
    /// As a person named it.
    Path(PathBuf),
    /// A file's bytes, however many they are.
    Reader(Box<dyn Read + Send>),
}

/// Where a file's bytes are.
pub(crate) enum Content {
    /// An entry of a directory.
    Entry(Arc<OwnedFd>, Name),
    /// As a person named it.
    Named(PathBuf),
    Reader(Box<dyn Read + Send>),
}

/// A step of the walk. Paths begin with the name of the root.
pub(crate) enum Step {
    Enter(Meta, Option<Name>, PathBuf),
    Leave,
    File {
        meta: Meta,
        size: Option<u64>,
        name: Option<Name>,
        path: PathBuf,
        content: Content,
    },
    Link {
        meta: Meta,
        name: Name,
        target: Bytes,
        path: PathBuf,
    },
    Problem(ProblemKind, PathBuf, String),
}

struct Level {
    directory: Arc<OwnedFd>,
    entries: Dir,
    path: PathBuf,
}

/// A walk.
pub(crate) struct Scan {
    roots: VecDeque<Root>,
    levels: Vec<Level>,
    recursive: bool,
}

/// Of what has no times of its own.
const NO_META: Meta = Meta {
    mode: 0o666,
    seconds: 0,
    nanoseconds: 0,
};

impl Scan {
    pub(crate) fn new(roots: Vec<Root>, recursive: bool) -> Self {
        Self {
            roots: roots.into(),
            levels: Vec::new(),
            recursive,
        }
    }

    /// The next step; `None` at the end.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                return self.root();
            };
            match level.entries.read() {
                None => {
                    self.levels.pop();
                    return Some(Step::Leave);
                }
                Some(Err(error)) => {
                    // What could not be listed is as good as not there.
                    let path = level.path.clone();
                    level.entries = match empty(&level.directory) {
                        Ok(entries) => entries,
                        Err(_) => {
                            self.levels.pop();
                            return Some(Step::Leave);
                        }
                    };
                    return Some(failed(path, &error.into()));
                }
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes();
                    if matches!(name, b"." | b"..") {
                        continue;
                    }
                    let Ok(name) = Name::new(name.to_vec()) else {
                        continue;
                    };
                    return Some(self.entry(name));
                }
            }
        }
    }

    fn root(&mut self) -> Option<Step> {
        let path = match self.roots.pop_front()? {
            Root::Reader(reader) => {
                return Some(Step::File {
                    meta: NO_META,
                    size: None,
                    name: None,
                    path: "-".into(),
                    content: Content::Reader(reader),
                });
            }
            Root::Path(path) => path,
        };
        let named = shown_name(&path);
        // A link that a person named stands for what it points to.
        let step = match rustix::fs::stat(&path) {
            Err(error) => failed(path, &error.into()),
            Ok(stat) => match files::file_type(&stat) {
                FileType::Directory if !self.recursive => problem(
                    ProblemKind::Failed,
                    path,
                    "it is a directory, which is copied with -r",
                ),
                FileType::Directory => self.enter_root(path, &stat),
                FileType::RegularFile => file(&stat, root_name(&path), named, Content::Named(path)),
                _ => problem(ProblemKind::Failed, path, "it is not a regular file"),
            },
        };
        Some(step)
    }

    fn enter_root(&mut self, path: PathBuf, stat: &Stat) -> Step {
        let name = root_name(&path);
        let named = shown_name(&path);
        match files::open_named_directory(&path) {
            Ok(directory) => self.enter(directory, files::meta(stat), name, named),
            Err(error) => failed(path, &error),
        }
    }

    fn enter(&mut self, directory: OwnedFd, meta: Meta, name: Option<Name>, path: PathBuf) -> Step {
        let entries = match Dir::read_from(&directory) {
            Ok(entries) => entries,
            Err(error) => return failed(path, &error.into()),
        };
        self.levels.push(Level {
            directory: Arc::new(directory),
            entries,
            path: path.clone(),
        });
        Step::Enter(meta, name, path)
    }

    /// An entry of the directory that is open.
    fn entry(&mut self, name: Name) -> Step {
        let Some(level) = self.levels.last() else {
            return Step::Leave;
        };
        let directory = Arc::clone(&level.directory);
        let path = level
            .path
            .join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let stat = match files::look(&*directory, name.as_bytes()) {
            Ok(Some(stat)) => stat,
            Ok(None) => return failed(path, &io::ErrorKind::NotFound.into()),
            Err(error) => return failed(path, &error),
        };
        match files::file_type(&stat) {
            FileType::Directory if self.levels.len() >= DEEPEST => {
                problem(ProblemKind::Failed, path, "it lies in too many directories")
            }
            FileType::Directory => match files::open_directory(&*directory, name.as_bytes()) {
                Ok(opened) => self.enter(opened, files::meta(&stat), Some(name), path),
                Err(error) => failed(path, &error),
            },
            FileType::RegularFile => {
                let content = Content::Entry(directory, name.clone());
                file(&stat, Some(name), path, content)
            }
            FileType::Symlink => link(&directory, &stat, name, path),
            _ => problem(
                ProblemKind::Skipped,
                path,
                "it is neither a file nor a directory",
            ),
        }
    }
}

fn file(stat: &Stat, name: Option<Name>, path: PathBuf, content: Content) -> Step {
    Step::File {
        meta: files::meta(stat),
        size: Some(files::size(stat)),
        name,
        path,
        content,
    }
}

fn link(directory: &OwnedFd, stat: &Stat, name: Name, path: PathBuf) -> Step {
    match rustix::fs::readlinkat(directory, name.as_bytes(), Vec::new()) {
        Ok(target) if target.as_bytes().len() > LONGEST_TARGET => {
            problem(ProblemKind::Failed, path, "the link's target is too long")
        }
        Ok(target) => Step::Link {
            meta: files::meta(stat),
            name,
            target: target.into_bytes().into(),
            path,
        },
        Err(error) => failed(path, &error.into()),
    }
}

fn problem(kind: ProblemKind, path: PathBuf, why: &str) -> Step {
    Step::Problem(kind, path, why.to_owned())
}

fn failed(path: PathBuf, error: &io::Error) -> Step {
    Step::Problem(ProblemKind::Failed, path, spoken(error))
}

/// The entries of a directory from behind its last one.
fn empty(directory: &OwnedFd) -> rustix::io::Result<Dir> {
    let mut entries = Dir::read_from(directory)?;
    while let Some(Ok(_)) = entries.read() {}
    Ok(entries)
}

/// The name under which a root arrives. `x/.`, `.`, `..` and `/` are only what is in them.
fn root_name(path: &Path) -> Option<Name> {
    let text = path.as_os_str().as_bytes();
    let trimmed = text.strip_suffix(b"/").unwrap_or(text);
    if trimmed.ends_with(b"/.") || trimmed == b"." {
        return None;
    }
    Name::new(path.file_name()?.as_bytes().to_vec()).ok()
}

fn shown_name(path: &Path) -> PathBuf {
    root_name(path).map_or_else(
        || path.to_owned(),
        |name| PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_arrives_under_its_last_name_or_as_what_is_in_it() {
        for (path, name) in [
            ("a", Some("a")),
            ("/x/a/", Some("a")),
            ("../a", Some("a")),
            ("a/.", None),
            ("a/./", None),
            (".", None),
            ("./", None),
            ("..", None),
            ("a/..", None),
            ("/", None),
            ("", None),
        ] {
            let expected = name.map(|name| Name::new(name).unwrap());
            assert_eq!(root_name(Path::new(path)), expected, "{path}");
        }
    }
}
