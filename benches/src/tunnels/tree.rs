//! A tree of files copied to the node by OpenSSH's own programs: through the ProxyCommand that
//! `sortie ssh-config` writes, and through `ssh -J`. Both end in the same sshd and use the same cipher.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{self, SHA256};

use super::{Ground, Sizes, spoken};
use crate::{
    installation::Variables,
    note,
    peers::Peers,
    table::{Judge, Peer, Table},
    traffic,
};

/// Four fifths of the bytes are in large files, the others in small ones.
const LARGE: u64 = 4_000_000;
const SMALL: u64 = 64_000;
const LARGE_SHARE: f64 = 0.8;
/// Files of a folder.
const FOLDER: u64 = 100;

/// What copies.
#[derive(Clone, Copy)]
enum Copier {
    Scp,
    Rsync,
}

/// How the copier reaches the node.
struct Way {
    peer: Peer,
    configuration: PathBuf,
    host: String,
    variables: Variables,
}

pub(super) fn measure(
    ground: &Ground,
    rounds: u32,
    sizes: &Sizes,
    table: &mut Table,
) -> Result<()> {
    // Without OpenSSH there is nothing that copies.
    let Some(peers) = &ground.peers else {
        return Ok(());
    };
    let ways = ways(ground, peers)?;
    let tree = ground.folder.path().join("tree");
    let files = plant(&tree, sizes.copy_bytes)?;
    let expected = digest_of(&tree)?;
    let row = |copier: Copier| {
        let (name, size) = (copier.name(), spoken(sizes.copy_bytes));
        format!("{name} of {size} in {files} files, s")
    };
    let copiers = copiers();
    for copier in &copiers {
        table.declare(&row(*copier), Judge::None);
    }
    for round in 1..=rounds {
        note(&format!("trees: round {round} of {rounds}"));
        for (copier, way) in copiers.iter().flat_map(|copier| {
            let each = ways.iter();
            each.map(move |way| (*copier, way))
        }) {
            let copy = ground.folder.path().join("copy");
            let begun = Instant::now();
            way.copy(copier, &tree, &copy)
                .with_context(|| format!("{:?}", way.peer))?;
            let seconds = begun.elapsed().as_secs_f64();
            traffic::same(&digest_of(&copy)?, &expected)?;
            fs::remove_dir_all(&copy)?;
            table.add(&row(copier), way.peer, seconds);
        }
    }
    Ok(())
}

fn ways(ground: &Ground, peers: &Peers) -> Result<[Way; 2]> {
    let (command, variables) = ground.installation.client(&["ssh-config"])?;
    let (program, arguments) = command.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().cloned());
    let written = command.output()?;
    ensure!(written.status.success(), "ssh-config: {written:?}");
    let block = String::from_utf8(written.stdout)?;
    Ok([
        Way {
            peer: Peer::Ours,
            configuration: peers.configuration_with(&block)?,
            host: ground.agent.node_id.clone(),
            variables,
        },
        Way {
            peer: Peer::Jump,
            configuration: peers.configuration().to_owned(),
            host: "jump-gcm".to_owned(),
            variables: Vec::new(),
        },
    ])
}

fn copiers() -> Vec<Copier> {
    let mut probe = Command::new("rsync");
    probe.arg("--version").stdout(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return vec![Copier::Scp, Copier::Rsync];
    }
    note("skipped: rsync is not installed (Debian: apt-get install rsync)");
    vec![Copier::Scp]
}

impl Copier {
    fn name(self) -> &'static str {
        match self {
            Self::Scp => "scp",
            Self::Rsync => "rsync",
        }
    }
}

impl Way {
    /// Copies the folder `from` to `to` on the node, which is not there yet.
    fn copy(&self, copier: Copier, from: &Path, to: &Path) -> Result<()> {
        let configuration = self.configuration.display();
        let far = format!("{}:{}", self.host, to.display());
        let mut command = Command::new(copier.name());
        match copier {
            Copier::Scp => {
                command.arg("-qrF").arg(&self.configuration).arg(from);
            }
            Copier::Rsync => {
                // The slash at the end means what is in the folder, not the folder itself.
                let inside = format!("{}/", from.display());
                command.args(["-rW", "-e", &format!("ssh -F {configuration}"), &inside]);
            }
        }
        command.arg(far).envs(self.variables.iter().cloned());
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{command:?}: {output:?}");
        Ok(())
    }
}

/// Writes a tree of about so many bytes. Gives back how many files it has.
fn plant(tree: &Path, bytes: u64) -> Result<u64> {
    let large = (bytes as f64 * LARGE_SHARE) as u64 / LARGE;
    let small = bytes.saturating_sub(large * LARGE) / SMALL;
    let sizes = (0..large).map(|_| LARGE).chain((0..small).map(|_| SMALL));
    let mut block = traffic::block();
    for (number, size) in (0_u64..).zip(sizes) {
        let folder = tree.join(format!("{}", number / FOLDER));
        fs::create_dir_all(&folder)?;
        let mut file = File::create(folder.join(format!("file {number}")))?;
        let mut left = size;
        while left > 0 {
            // No two blocks are the same.
            if let Some(head) = block.first_chunk_mut() {
                *head = (number << 32 | left).to_le_bytes();
            }
            let count = usize::try_from(left)?.min(block.len());
            file.write_all(block.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
    }
    Ok(large + small)
}

/// Of all names and contents.
fn digest_of(folder: &Path) -> Result<Vec<u8>> {
    let mut all = digest::Context::new(&SHA256);
    add_folder(folder, &mut all)?;
    Ok(all.finish().as_ref().to_vec())
}

fn add_folder(folder: &Path, all: &mut digest::Context) -> Result<()> {
    let entries: Result<Vec<_>, _> = fs::read_dir(folder)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        all.update(entry.file_name().as_encoded_bytes());
        if entry.file_type()?.is_dir() {
            add_folder(&entry.path(), all)?;
            continue;
        }
        let (mut file, mut buffer) = (File::open(entry.path())?, vec![0; 256 * 1024]);
        all.update(&file.metadata()?.len().to_le_bytes());
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            all.update(buffer.get(..count).unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_told_from_another() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        assert_eq!(plant(&one, 12_000_000).unwrap(), 64);
        assert_eq!(plant(&other, 12_000_000).unwrap(), 64);
        assert_eq!(digest_of(&one).unwrap(), digest_of(&other).unwrap());
        fs::rename(other.join("0/file 3"), other.join("0/file 03")).unwrap();
        assert_ne!(digest_of(&one).unwrap(), digest_of(&other).unwrap());
    }
}
