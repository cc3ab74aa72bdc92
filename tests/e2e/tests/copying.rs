//! `sortie cp` with a server, a node and a client as processes: trees both ways, interrupted copies that
//! go on, what is hostile or forbidden, and what scripts read.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sortie_testkit::{Installation, Proxy, Terminal, aws, program, skip, wait_for};

const MEBI: usize = 1 << 20;
/// An account that may little.
const NOBODY: u32 = 65534;

/// `sortie cp WORDS`, where `@` stands for the node.
fn cp(installation: &Installation, words: &[&str]) -> Result<Command> {
    let node = installation.fact("node_id");
    let mut command = installation.command("sortie")?;
    command.arg("cp").stdin(Stdio::null());
    for word in words {
        command.arg(match word.strip_prefix('@') {
            Some(path) => format!("{node}:{path}"),
            None => (*word).to_owned(),
        });
    }
    Ok(command)
}

fn copied(installation: &Installation, words: &[&str]) -> Result<Vec<Value>> {
    let output = cp(installation, words)?.output()?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    lines(&output)
}

/// The lines of JSON, of which the last is the summary.
fn lines(output: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).context(line.to_owned()))
        .collect()
}

fn summary(lines: &[Value]) -> &Value {
    lines.last().map_or(&Value::Null, |line| &line["Summary"])
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes without a pattern that a lost or repeated piece would fit into.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words
        .take(length.div_ceil(8))
        .flatten()
        .take(length)
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// What there is below a folder, by path: contents, targets of links, or that it is a folder.
fn tree(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let about = fs::symlink_metadata(&path)?;
            let name = path.strip_prefix(folder)?.to_owned();
            let content = if about.is_dir() {
                folders.push(path);
                b"folder".to_vec()
            } else if about.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path)?
            };
            found.insert(name, content);
        }
    }
    Ok(found)
}

/// 64 MiB in files of all sizes.
fn make_tree(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("deep/deeper/empty"))?;
    fs::write(folder.join("large"), noise(40 * MEBI, 1))?;
    fs::write(folder.join("deep/medium"), noise(23 * MEBI + 17, 2))?;
    fs::write(folder.join("deep/nothing"), "")?;
    for number in 0..300_u64 {
        let length = usize::try_from(number)? * 25;
        let name = format!("deep/deeper/ein 파일 {number}");
        fs::write(folder.join(name), noise(length, number))?;
    }
    symlink("large", folder.join("link"))?;
    symlink("/no/such/place", folder.join("dangling"))?;
    Ok(())
}

#[test]
fn a_tree_goes_to_the_node_and_back_unchanged() -> Result<()> {
    let installation = Installation::start()?;
    let scratch = installation.scratch();
    let (source, there, back) = (
        scratch.join("source"),
        scratch.join("there"),
        scratch.join("back"),
    );
    make_tree(&source)?;
    let to = format!("@{}", text(&there));
    let lines = copied(&installation, &["-r", "--json", text(&source), &to])?;
    assert_eq!(summary(&lines)["Files"], 303);
    assert_eq!(summary(&lines)["Complete"], true);
    let expected = tree(&source)?;
    ensure!(tree(&there)? == expected, "another tree is on the node");

    let lines = copied(&installation, &["-rp", "--json", &to, text(&back)])?;
    ensure!(tree(&back)? == expected, "another tree came back");
    let large = lines.iter().find(|line| line["Path"] == "there/large");
    let large = large.context("no line for a file")?;
    assert_eq!(large["Bytes"], 40 * MEBI);
    let known = Command::new("sha256sum").arg(back.join("large")).output()?;
    let known = String::from_utf8(known.stdout)?;
    assert_eq!(known.split(' ').next(), large["Sha256"].as_str());
    let modified = |path: PathBuf| fs::metadata(path)?.modified();
    assert_eq!(
        modified(there.join("large"))?,
        modified(back.join("large"))?
    );

    // Again: everything is there.
    let lines = copied(
        &installation,
        &["-r", "--json", &format!("{to}/."), text(&back)],
    )?;
    assert_eq!(summary(&lines)["BytesMoved"], 0);
    assert_eq!(summary(&lines)["BytesHeld"], summary(&lines)["Bytes"]);
    Ok(())
}

#[test]
fn standard_input_and_output_are_files_too() -> Result<()> {
    let installation = Installation::start()?;
    let there = format!("@{}", text(&installation.scratch().join("there")));
    let bytes = noise(5 * MEBI + 3, 5);
    let mut command = cp(&installation, &["-", &there])?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(&bytes)?;
    drop(stdin);
    ensure!(child.wait()?.success(), "the upload failed");
    let output = cp(&installation, &[&there, "-"])?.output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stdout == bytes, "other bytes came back");
    ensure!(output.stderr.is_empty(), "{output:?}");

    let output = cp(
        &installation,
        &["--checksum", &there, text(installation.scratch())],
    )?;
    let output = { output }.current_dir(installation.scratch()).output()?;
    ensure!(output.status.success(), "{output:?}");
    let mut check = Command::new("sha256sum");
    check
        .args(["-c", "--quiet"])
        .current_dir(installation.scratch());
    let mut check = check.stdin(Stdio::piped()).spawn()?;
    check
        .stdin
        .take()
        .context("no input")?
        .write_all(&output.stdout)?;
    ensure!(check.wait()?.success(), "sha256sum does not agree");
    Ok(())
}

#[test]
fn a_cut_in_the_middle_is_gone_over() -> Result<()> {
    let installation = Installation::start()?;
    let network = Proxy::to_url(installation.fact("endpoint"))?;
    let scratch = installation.scratch();
    let source = scratch.join("source");
    fs::write(&source, noise(192 * MEBI, 6))?;
    let folder = scratch.join("there");
    fs::create_dir(&folder)?;
    let mut command = cp(
        &installation,
        &["--json", text(&source), &format!("@{}", text(&folder))],
    )?;
    command.env("AWS_ENDPOINT_URL", format!("http://{}", network.address()));
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    for part in 1..=3 {
        wait_for_part(&folder.join(".source.sortie-part"), part * 16 * MEBI as u64)?;
        network.cut();
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    assert_eq!(
        summary(&lines(&output)?)["SessionIds"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    ensure!(
        fs::read(folder.join("source"))? == fs::read(&source)?,
        "other bytes arrived"
    );
    Ok(())
}

fn wait_for_part(part: &Path, length: u64) -> Result<()> {
    wait_for("a part of the file", || {
        let about = fs::metadata(part).ok();
        Ok(about.filter(|about| about.len() >= length).map(drop))
    })
}

/// In both directions: killed in the middle, and called again.
#[test]
fn a_killed_client_goes_on_where_it_was() -> Result<()> {
    let installation = Installation::start()?;
    let network = Proxy::to_url(installation.fact("endpoint"))?;
    let scratch = installation.scratch();
    let source = scratch.join("source");
    fs::write(&source, noise(128 * MEBI, 7))?;
    for direction in ["up", "down"] {
        let folder = scratch.join(direction);
        fs::create_dir(&folder)?;
        let (from, to) = match direction {
            "up" => (text(&source).to_owned(), format!("@{}", text(&folder))),
            _ => (format!("@{}", text(&source)), text(&folder).to_owned()),
        };
        let mut command = cp(&installation, &["--json", &from, &to])?;
        command.env("AWS_ENDPOINT_URL", format!("http://{}", network.address()));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let part = folder.join(".source.sortie-part");
        wait_for_part(&part, 8 * MEBI as u64)?;
        network.hold();
        child.kill()?;
        child.wait()?;
        network.pass();
        ensure!(
            !folder.join("source").exists(),
            "{direction}: a half file has its name"
        );

        let lines = copied(&installation, &["--json", &from, &to])?;
        let held = summary(&lines)["BytesHeld"].as_u64();
        ensure!(
            held.is_some_and(|held| held >= 8 * MEBI as u64),
            "{direction}: {lines:?}"
        );
        ensure!(
            fs::read(folder.join("source"))? == fs::read(&source)?,
            "{direction}: other bytes"
        );
        ensure!(!part.exists(), "{direction}: something was left");
    }
    Ok(())
}

#[test]
fn links_lead_nowhere() -> Result<()> {
    let installation = Installation::start()?;
    let scratch = installation.scratch();
    let outside = scratch.join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "precious")?;
    let source = scratch.join("source");
    fs::create_dir_all(source.join("folder"))?;
    fs::write(source.join("folder/file"), "new")?;
    fs::write(source.join("file"), "new")?;
    symlink(&outside, source.join("out"))?;
    let there = scratch.join("there");
    fs::create_dir_all(there.join("source"))?;
    symlink(&outside, there.join("source/folder"))?;
    symlink(outside.join("file"), there.join("source/file"))?;
    symlink(outside.join("file"), there.join("source/.file.sortie-part"))?;

    let to = format!("@{}", text(&there));
    let output = cp(&installation, &["-r", text(&source), &to])?.output()?;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let errors = errors(&output);
    ensure!(
        errors.contains("source/folder: a file or a symbolic link"),
        "{errors}"
    );
    ensure!(errors.contains("2 could not be copied"), "{errors}");
    assert_eq!(fs::read_to_string(outside.join("file"))?, "precious");
    assert_eq!(fs::read_dir(&outside)?.count(), 1);
    assert_eq!(fs::read_to_string(there.join("source/file"))?, "new");
    assert_eq!(fs::read_link(there.join("source/out"))?, outside);
    Ok(())
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_copied() -> Result<()> {
    let installation = Installation::start()?;
    let open = tempfile::tempdir()?;
    let source = open.path().join("source");
    fs::create_dir(&source)?;
    for name in ["one", "secret", "two"] {
        fs::write(source.join(name), name)?;
    }
    fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o000))?;
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket"))?;
    let there = installation.scratch().join("there");
    let to = format!("@{}", text(&there));
    let mut command = Command::new(program("sortie")?);
    command
        .env_clear()
        .envs(installation.environment()?)
        .current_dir(&source)
        .args(["cp", "-r", "--json", text(&source)])
        .arg(to.replace('@', &format!("{}:", installation.fact("node_id"))));
    if rustix::process::geteuid().is_root() {
        // The superuser can read everything.
        for folder in [open.path(), source.as_path()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let errors = errors(&output);
    ensure!(
        errors.contains("source/secret: permission denied"),
        "{errors}"
    );
    ensure!(errors.contains("1 could not be copied"), "{errors}");
    let lines = lines(&output)?;
    let summary = summary(&lines);
    assert_eq!(
        (
            &summary["Files"],
            &summary["Failed"],
            &summary["Skipped"],
            &summary["Complete"]
        ),
        (&json!(2), &json!(1), &json!(1), &json!(false))
    );
    assert_eq!(fs::read_to_string(there.join("two"))?, "two");
    assert_eq!(fs::read_dir(&there)?.count(), 2);
    Ok(())
}

#[test]
fn mistakes_are_said_before_or_after_the_session() -> Result<()> {
    let installation = Installation::start()?;
    let scratch = installation.scratch();
    let file = scratch.join("file");
    fs::write(&file, "x")?;
    let file = text(&file);
    for (words, why) in [
        (vec![file, "./copy"], "both on this machine"),
        (vec!["@/a", "@/b"], "both on nodes"),
        (vec![file, "no-such-node:/tmp"], "no-such-node"),
        (
            vec![file, "@/no/such/folder/x"],
            "cannot open /no/such/folder: no such file",
        ),
        (vec!["@/no/such/file", "."], "/no/such/file: no such file"),
        (vec![file, file, "@/no/such"], "/no/such is not a directory"),
        (
            vec!["/no/such/file", "@/tmp"],
            "/no/such/file: no such file",
        ),
        (vec!["@/etc", "."], "with -r"),
    ] {
        let output = cp(&installation, &words)?.current_dir(scratch).output()?;
        assert_eq!(output.status.code(), Some(255), "{words:?}: {output:?}");
        let errors = errors(&output);
        ensure!(errors.contains(why), "{words:?}: {errors}");
        ensure!(output.stdout.is_empty(), "{output:?}");
    }
    Ok(())
}

/// Who may not use the document copies nothing.
#[test]
fn policies_decide_who_copies() -> Result<()> {
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let installation = Installation::start()?;
    let admin = |words: &[&str]| installation.aws(&aws, words);
    admin(&["iam", "create-user", "--user-name", "ann"])?;
    let everything_else = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["ssm:*"], "Resource": "*"},
        {"Effect": "Deny", "Action": "ssm:StartSession", "Resource": "arn:aws:ssm:*::document/Sortie-CopyFile"},
    ]});
    let policy = everything_else.to_string();
    let put = [
        "iam",
        "put-user-policy",
        "--user-name",
        "ann",
        "--policy-name",
        "p",
    ];
    admin(&[&put[..], &["--policy-document", &policy]].concat())?;
    let key = admin(&["iam", "create-access-key", "--user-name", "ann"])?;
    let word = |name: &str| key["AccessKey"][name].as_str().context("access key");
    let there = installation.scratch().join("there");
    let mut command = cp(
        &installation,
        &["/etc/hostname", &format!("@{}", text(&there))],
    )?;
    command
        .env("AWS_ACCESS_KEY_ID", word("AccessKeyId")?)
        .env("AWS_SECRET_ACCESS_KEY", word("SecretAccessKey")?);
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let errors = errors(&output);
    ensure!(errors.contains("Sortie-CopyFile"), "{errors}");
    ensure!(!there.exists(), "it was copied");
    Ok(())
}

#[test]
fn a_person_sees_how_it_goes() -> Result<()> {
    let installation = Installation::start()?;
    let network = Proxy::to_url(installation.fact("endpoint"))?;
    let scratch = installation.scratch();
    let (source, folder) = (scratch.join("source"), scratch.join("there"));
    fs::write(&source, noise(64 * MEBI, 8))?;
    fs::create_dir(&folder)?;
    let to = format!("@{}", text(&folder));
    let mut command = cp(&installation, &[text(&source), &to])?;
    command.env("AWS_ENDPOINT_URL", format!("http://{}", network.address()));
    let mut terminal = Terminal::open(&command, 100, 24)?;
    wait_for_part(&folder.join(".source.sortie-part"), 4 * MEBI as u64)?;
    network.hold();
    // In the middle, with a rate and the time that is left.
    terminal.until("of 64.0 MiB")?;
    terminal.until("/s")?;
    network.cut();
    terminal.until("connection lost for")?;
    network.pass();
    terminal.until("1 file, 64.0 MiB in ")?;
    terminal.until("every SHA-256 is right")?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));

    // Ctrl-C leaves, and the next one goes on.
    fs::remove_file(folder.join("source"))?;
    let mut terminal = Terminal::open(&command, 100, 24)?;
    wait_for_part(&folder.join(".source.sortie-part"), 4 * MEBI as u64)?;
    network.hold();
    terminal.until("of 64.0 MiB")?;
    terminal.keys("\x03")?;
    terminal.until("interrupted; the same command goes on from here")?;
    network.pass();
    assert_eq!(terminal.exit_status()?.code(), Some(255));
    let lines = copied(&installation, &["--json", text(&source), &to])?;
    let held = summary(&lines)["BytesHeld"].as_u64();
    ensure!(
        held.is_some_and(|held| held >= 4 * MEBI as u64),
        "{lines:?}"
    );

    // Nothing is shown to whoever wants nothing.
    let command = cp(&installation, &["-q", text(&source), &to])?;
    let mut terminal = Terminal::open(&command, 100, 24)?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));
    assert_eq!(terminal.shown(), "");
    Ok(())
}
