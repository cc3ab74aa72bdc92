//! What is to be copied where, as it stands on the command line. Pure.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

/// A path on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// Id or name.
    pub(super) node: String,
    /// Not empty.
    pub(super) path: String,
}

/// Where files come from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Paths(Vec<PathBuf>),
    /// Standard input.
    Standard,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// To a node.
    Upload { from: Local, to: Remote },
    /// From nodes; to a path here, or to standard output.
    Download {
        from: Vec<Remote>,
        to: Option<PathBuf>,
    },
}

enum Place {
    Remote(Remote),
    Path(PathBuf),
    Standard,
}

impl Plan {
    /// Reads the places, of which the last is the destination. The error is for people.
    pub(super) fn of(paths: &[OsString]) -> Result<Self, String> {
        let Some((last, sources)) = paths.split_last() else {
            return Err("say what to copy, and where to".to_owned());
        };
        let mut remotes = Vec::new();
        let mut locals = Vec::new();
        let mut takes_stdin = false;
        for source in sources {
            match place(source)? {
                Place::Remote(remote) => remotes.push(remote),
                Place::Path(path) => locals.push(path),
                Place::Standard => takes_stdin = true,
            }
        }
        if takes_stdin && sources.len() > 1 {
            return Err("standard input is copied alone".to_owned());
        }
        match place(last)? {
            Place::Remote(_) if !remotes.is_empty() => Err(
                "source and destination are both on nodes; copy to this machine first".to_owned(),
            ),
            Place::Remote(to) => Ok(Self::Upload {
                from: if takes_stdin {
                    Local::Standard
                } else {
                    Local::Paths(locals)
                },
                to,
            }),
            _ if takes_stdin || !locals.is_empty() => Err(
                "source and destination are both on this machine; one of them has to be \
                 NODE:PATH"
                    .to_owned(),
            ),
            Place::Path(path) => Ok(Self::Download {
                from: remotes,
                to: Some(path),
            }),
            Place::Standard if remotes.len() > 1 => {
                Err("standard output takes one file".to_owned())
            }
            Place::Standard => Ok(Self::Download {
                from: remotes,
                to: None,
            }),
        }
    }

    /// Whether several sources need a directory to be in.
    pub(super) fn needs_directory(&self) -> bool {
        match self {
            Self::Upload {
                from: Local::Paths(paths),
                ..
            } => paths.len() > 1,
            Self::Upload { .. } => false,
            Self::Download { from, .. } => from.len() > 1,
        }
    }

    pub(super) fn uses_stdout(&self) -> bool {
        matches!(self, Self::Download { to: None, .. })
    }
}

/// A colon before any slash makes a path one of a node, as `scp` has it.
fn place(text: &OsString) -> Result<Place, String> {
    let bytes = text.as_bytes();
    if bytes == b"-" {
        return Ok(Place::Standard);
    }
    if bytes.is_empty() {
        return Err("a path is empty".to_owned());
    }
    let slash = bytes.iter().position(|byte| *byte == b'/');
    let colon = bytes.iter().position(|byte| *byte == b':');
    let is_remote = colon.is_some_and(|at| at > 0 && slash.is_none_or(|slash| at < slash));
    if !is_remote {
        return Ok(Place::Path(text.into()));
    }
    let text = text.to_str().ok_or_else(|| {
        format!(
            "{} is not UTF-8, as paths on nodes have to be",
            text.display()
        )
    })?;
    let (node, path) = text.split_once(':').unwrap_or((text, ""));
    Ok(Place::Remote(Remote {
        node: node.to_owned(),
        path: if path.is_empty() { "." } else { path }.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &str) -> Result<Plan, String> {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        Plan::of(&words)
    }

    fn remote(node: &str, path: &str) -> Remote {
        Remote {
            node: node.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn one_side_is_a_node() {
        let upload = |paths: &[&str], to| Plan::Upload {
            from: Local::Paths(paths.iter().map(PathBuf::from).collect()),
            to,
        };
        assert_eq!(plan("a web:b"), Ok(upload(&["a"], remote("web", "b"))));
        assert_eq!(
            plan("./a:b /c:d web:"),
            Ok(upload(&["./a:b", "/c:d"], remote("web", ".")))
        );
        assert_eq!(
            plan("- mi-0:/x:y"),
            Ok(Plan::Upload {
                from: Local::Standard,
                to: remote("mi-0", "/x:y"),
            })
        );
        assert_eq!(
            plan("a:b c:d ."),
            Ok(Plan::Download {
                from: vec![remote("a", "b"), remote("c", "d")],
                to: Some(".".into()),
            })
        );
        assert_eq!(
            plan("a:b -"),
            Ok(Plan::Download {
                from: vec![remote("a", "b")],
                to: None,
            })
        );
        assert!(plan("a b web:c").unwrap().needs_directory());
        assert!(!plan("a web:c").unwrap().needs_directory());
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (words, why) in [
            ("a b", "both on this machine"),
            ("a -", "both on this machine"),
            ("- b", "both on this machine"),
            (":a b", "both on this machine"),
            ("a:b c:d", "both on nodes"),
            ("a:b c d", "both on this machine"),
            ("a b:c d:e", "both on nodes"),
            ("- a web:b", "alone"),
            ("a:b c:d -", "takes one file"),
            (" web:b", "empty"),
        ] {
            let error = plan(words).unwrap_err();
            assert!(error.contains(why), "{words}: {error}");
        }
    }
}
