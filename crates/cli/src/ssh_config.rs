//! `sortie ssh-config`: the part of ssh's configuration that makes nodes reachable by ssh and by
//! everything that is built on it.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    arguments::{Connection, SshConfig},
    error::CommandError,
    output,
    ssh::{NAME_PREFIX, proxy_line},
};

const BEGIN: &str = "# >>> sortie ssh-config >>>";
const END: &str = "# <<< sortie ssh-config <<<";

pub(crate) fn run(arguments: &SshConfig, connection: &Connection) -> Result<(), CommandError> {
    let block = block(&proxy_line(connection)?);
    if !arguments.write {
        return output::print(&block);
    }
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => default_file()?,
    };
    write(&file, &block)
        .map_err(|error| CommandError::io(format!("write {}", file.display()), error))?;
    output::error_line(&format!(
        "Written to {}. Nodes are now reached by their id, or by their name as {NAME_PREFIX}NAME.",
        file.display()
    ));
    Ok(())
}

fn default_file() -> Result<PathBuf, CommandError> {
    let home = std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .ok_or_else(|| CommandError::Usage("there is no home folder; give --file".to_owned()))?;
    Ok(home.join(".ssh").join("config"))
}

/// The Host block. The key of a host is kept under the name that it was called by.
fn block(proxy: &str) -> String {
    format!(
        "{BEGIN}\n\
         # Written by `sortie ssh-config`, which renews what is between these lines.\n\
         Host mi-* i-* {NAME_PREFIX}*\n    \
             ProxyCommand {proxy}\n    \
             ServerAliveInterval 30\n\
         {END}\n"
    )
}

/// The text with the block in it: in its old place, else at the end, where it changes the meaning of
/// nothing that is there.
fn with_block(text: &str, block: &str) -> String {
    let old = text.find(BEGIN).and_then(|begin| {
        let end = begin + text.get(begin..)?.find(END)? + END.len();
        let line = text.get(end..)?.starts_with('\n');
        Some((begin, end + usize::from(line)))
    });
    if let Some((begin, end)) = old {
        let before = text.get(..begin).unwrap_or_default();
        let behind = text.get(end..).unwrap_or_default();
        return format!("{before}{block}{behind}");
    }
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}{block}")
}

/// Replaces the file in one step; one that is a link stays one.
fn write(file: &Path, block: &str) -> io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = file.parent().unwrap_or(Path::new("."));
    if !folder.as_os_str().is_empty() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let (text, mode) = match fs::read_to_string(&file) {
        Ok(text) => (text, fs::metadata(&file)?.permissions().mode() & 0o777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0o600),
        Err(error) => return Err(error),
    };
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".sortie-{}", std::process::id()));
    let new = folder.join(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut out| {
            out.write_all(with_block(&text, block).as_bytes())?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&new, &file));
    if written.is_err() {
        // Nothing is left behind of a file that could not take its place.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_renewed_in_its_place_and_else_comes_last() {
        let (first, second) = (block("one"), block("two"));
        assert_eq!(with_block("", &first), first);
        let other = "Host a\n    User b";
        let text = with_block(other, &first);
        assert_eq!(text, format!("{other}\n\n{first}"));
        let text = format!("{text}Host c\n");
        assert_eq!(
            with_block(&text, &second),
            format!("{other}\n\n{second}Host c\n")
        );
    }

    #[test]
    fn a_file_is_private_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ssh").join("config");
        write(&file, "a\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a\n");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "b\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a\n\nb\n");
        assert_eq!(fs::read_dir(folder.path().join("ssh")).unwrap().count(), 1);
    }
}
