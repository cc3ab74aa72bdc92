//! `sortie plugin install`: puts this program where the AWS CLI looks for its plugin.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{PLUGIN_NAME, arguments::PluginInstall, error::CommandError, output};

pub(crate) fn run(arguments: &PluginInstall) -> Result<(), CommandError> {
    let program = std::env::current_exe()
        .and_then(fs::canonicalize)
        .map_err(|error| CommandError::io("find this program's own file", error))?;
    let place = install(&program, arguments)?;
    output::print(&format!("{}\n", place.display()))
}

fn install(program: &Path, arguments: &PluginInstall) -> Result<PathBuf, CommandError> {
    let folder = &arguments.folder;
    let failed = |what: &str, path: &Path| {
        let action = format!("{what} {}", path.display());
        move |error| CommandError::io(action, error)
    };
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let place = folder.join(PLUGIN_NAME);
    if !arguments.force && !is_replaceable(&place) {
        return Err(CommandError::PluginInTheWay {
            place: place.display().to_string(),
        });
    }
    // Made beside it and moved, so that the AWS CLI finds the old one or the new one.
    let fresh = folder.join(format!(".{PLUGIN_NAME}.{}", std::process::id()));
    let made = if arguments.copy {
        fs::copy(program, &fresh).map(|_| ())
    } else {
        link(program, &fresh)
    };
    made.and_then(|()| fs::rename(&fresh, &place))
        .map_err(|error| {
            let _ = fs::remove_file(&fresh);
            failed("write", &place)(error)
        })?;
    Ok(place)
}

/// Whether nothing of others is lost: there is nothing, or a link.
fn is_replaceable(place: &Path) -> bool {
    match fs::symlink_metadata(place) {
        Ok(found) => found.file_type().is_symlink(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(unix)]
fn link(program: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(program, place)
}

#[cfg(not(unix))]
fn link(program: &Path, place: &Path) -> io::Result<()> {
    fs::copy(program, place).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(folder: &Path, copy: bool, force: bool) -> PluginInstall {
        PluginInstall {
            folder: folder.to_owned(),
            copy,
            force,
        }
    }

    #[test]
    fn a_link_is_made_and_replaced_and_another_program_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let program = temporary.path().join("sortie");
        fs::write(&program, "program").unwrap();
        let folder = temporary.path().join("new/bin");
        for _ in 0..2 {
            let place = install(&program, &arguments(&folder, false, false)).unwrap();
            assert_eq!(fs::read_link(&place).unwrap(), program);
        }
        let place = install(&program, &arguments(&folder, true, false)).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "program");
        assert!(fs::symlink_metadata(&place).unwrap().is_file());
        let refused = install(&program, &arguments(&folder, false, false));
        assert!(matches!(refused, Err(CommandError::PluginInTheWay { .. })));
        install(&program, &arguments(&folder, false, true)).unwrap();
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "nothing is left over"
        );
    }
}
