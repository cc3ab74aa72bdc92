//! `sortie exec` as a Unix tool: bytes, statuses, words, signals, lost connections; and commands of the
//! stock CLI with our plugin. Every program is a process of its own.

mod documents;
mod many;
mod stock;

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    thread::JoinHandle,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, kill_process},
};
use sortie_testkit::{Installation, PATIENCE, Proxy, Terminal, wait_for};

/// `sortie exec OPTIONS NODE -- WORDS`.
fn exec(installation: &Installation, options: &[&str], words: &[&str]) -> Result<Command> {
    let mut command = installation.command("sortie")?;
    command.arg("exec").args(options);
    command
        .arg(installation.fact("node_id"))
        .arg("--")
        .args(words);
    command.stdin(Stdio::null());
    Ok(command)
}

/// The output of a shell's script on the node.
fn script(installation: &Installation, script: &str) -> Result<Output> {
    Ok(exec(installation, &[], &["sh", "-c", script])?.output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process id")?, signal)?;
    Ok(())
}

/// A command with pipes on all sides.
struct Piped {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Piped {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().context("no standard output")?,
            child,
        })
    }

    /// Reads up to the end of this text.
    fn until(&mut self, text: &str) -> Result<()> {
        let mut seen = Vec::new();
        while !seen.ends_with(text.as_bytes()) {
            let mut byte = [0];
            self.wait_for_output()
                .with_context(|| format!("after {seen:?}"))?;
            let length = self.stdout.read(&mut byte)?;
            ensure!(length > 0, "the output ended after {seen:?}");
            seen.extend_from_slice(&byte);
        }
        Ok(())
    }

    fn wait_for_output(&self) -> Result<()> {
        let mut ready = [PollFd::new(&self.stdout, PollFlags::IN)];
        let patience = PATIENCE.try_into()?;
        ensure!(poll(&mut ready, Some(&patience))? > 0, "nothing came");
        Ok(())
    }

    /// The exit status, and what is left of both outputs.
    fn finish(mut self) -> Result<(Option<i32>, Vec<u8>, String)> {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Err(error) = self.wait_for_output() {
                self.child.kill()?;
                return Err(error.context(format!("no end after {} more bytes", rest.len())));
            }
            match self.stdout.read(&mut piece)? {
                0 => break,
                length => rest.extend_from_slice(piece.get(..length).unwrap_or_default()),
            }
        }
        let output = self.child.wait_with_output()?;
        Ok((output.status.code(), rest, text(&output.stderr)))
    }
}

/// Bytes without a pattern that a lost or repeated piece would fit into.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
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

/// Writes beside the reading: a full pipe in one direction must not stop the other.
fn write_beside(mut stdin: ChildStdin, bytes: Vec<u8>) -> JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || stdin.write_all(&bytes))
}

#[test]
fn the_exit_status_is_the_commands() -> Result<()> {
    let installation = Installation::start()?;
    for (words, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
        ("exit 255", 255),
    ] {
        let output = script(&installation, words)?;
        assert_eq!(output.status.code(), Some(status), "{words}: {output:?}");
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    let output = exec(&installation, &[], &["no-such-program"])?.output()?;
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert!(
        text(&output.stderr).contains("no-such-program"),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn our_own_failures_are_255_and_say_so() -> Result<()> {
    let installation = Installation::start()?;
    let node = installation.fact("node_id");
    let cases: [(&[&str], &str); 5] = [
        (&["exec", "no-such-node", "--", "true"], "no-such-node"),
        (
            &["exec", "mi-00000000000000000", "--", "true"],
            "not connected",
        ),
        (
            &["exec", node, "--document", "No-Such", "--", "true"],
            "No-Such",
        ),
        (&["exec", node], "CMD"),
        (
            &[
                "exec",
                node,
                "--endpoint-url",
                "http://127.0.0.1:1",
                "--",
                "true",
            ],
            "127.0.0.1:1",
        ),
    ];
    for (arguments, reason) in cases {
        let mut command = installation.command("sortie")?;
        command.env("AWS_MAX_ATTEMPTS", "1");
        let output = command.args(arguments).stdin(Stdio::null()).output()?;
        assert_eq!(output.status.code(), Some(255), "{arguments:?}: {output:?}");
        let told = text(&output.stderr);
        assert!(told.contains(reason), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    Ok(())
}

#[test]
fn words_arrive_as_they_were_given() -> Result<()> {
    let installation = Installation::start()?;
    let words = [
        "",
        " ",
        "a b",
        "'",
        "\"",
        "\\",
        "\\'",
        "`id`",
        "$(id)",
        "$HOME",
        "${PATH}",
        "*",
        "?",
        "[a]",
        "~",
        "#x",
        "a#b",
        "!x",
        "&",
        "&&",
        "|",
        "||",
        ";",
        "(",
        ")",
        "<",
        ">",
        ">>",
        "<<EOF",
        "{a,b}",
        "{{ command }}",
        "{{.Names}}",
        "{{ssm:x}}",
        "=",
        "A=b",
        "-n",
        "--",
        "--help",
        "-",
        "\t",
        "a\nb",
        "\n",
        "\r",
        "\u{1b}[31m",
        "\u{7f}",
        "%s",
        "\\n",
        "서버",
        "\u{1f980}",
        "^",
        "a'b\"c\\d`e$f",
    ];
    let print = ["printf", "%s\\0"];
    let output = exec(&installation, &[], &[&print[..], &words].concat())?.output()?;
    let expected: Vec<u8> = words
        .iter()
        .flat_map(|word| word.bytes().chain([0]))
        .collect();
    assert_eq!(
        text(&output.stdout),
        text(&expected),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));
    // The same on a terminal, where a shell reads the words.
    let mut command = exec(
        &installation,
        &["-t"],
        &["sh", "-c", "printf '%s|' \"$@\"", "sh"],
    )?;
    let visible = ["a b", "'", "\"", "\\", "$(id)", "*", ";", "&&", "A=b", "~"];
    let output = command.args(visible).output()?;
    let expected: String = visible.iter().map(|word| format!("{word}|")).collect();
    assert!(text(&output.stdout).contains(&expected), "{output:?}");
    Ok(())
}

#[test]
fn outputs_come_apart_and_whole() -> Result<()> {
    let installation = Installation::start()?;
    let output = script(&installation, "printf out; printf err >&2; exit 3")?;
    assert_eq!(output.stdout, b"out");
    assert_eq!(output.stderr, b"err");
    assert_eq!(output.status.code(), Some(3));
    let lines = "i=0; while [ $i -lt 20000 ]; do echo \"o$i\"; echo \"e$i\" >&2; i=$((i+1)); done";
    let output = script(&installation, lines)?;
    let all = |letter: char| -> String { (0..20000).map(|n| format!("{letter}{n}\n")).collect() };
    assert!(
        output.stdout == all('o').as_bytes(),
        "standard output differs"
    );
    assert!(
        output.stderr == all('e').as_bytes(),
        "standard error differs"
    );
    Ok(())
}

#[test]
fn sixty_four_mebibytes_pass_through_and_memory_stays_flat() -> Result<()> {
    let installation = Installation::start()?;
    let input = noise(64 << 20);
    let mut piped = Piped::start(&mut exec(&installation, &[], &["cat"])?)?;
    let writing = write_beside(
        piped.stdin.take().context("no standard input")?,
        input.clone(),
    );
    let mut first = vec![0; input.len()];
    // More is left than the pipe holds, so that the client is still there to be looked at.
    let (most, last) = first.split_at_mut(63 << 20);
    piped.stdout.read_exact(most)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", piped.child.id()))?;
    piped.stdout.read_exact(last)?;
    writing.join().ok().context("the writer panicked")??;
    let (code, rest, told) = piped.finish()?;
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert!(first == input && rest.is_empty(), "the bytes differ");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    assert!(
        peak.context("no VmHWM")? < 64 << 10,
        "the client took {peak:?} kB"
    );
    Ok(())
}

#[test]
fn standard_input_ends_where_it_ends_and_is_left_alone_on_demand() -> Result<()> {
    let installation = Installation::start()?;
    let output = exec(&installation, &[], &["cat"])?.output()?;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    // A command that does not read its input to the end.
    let mut piped = Piped::start(&mut exec(&installation, &[], &["head", "-c", "5"])?)?;
    let writing = write_beside(
        piped.stdin.take().context("no standard input")?,
        noise(8 << 20),
    );
    let mut head = [0; 5];
    piped.stdout.read_exact(&mut head)?;
    assert_eq!(head, noise(5).as_slice());
    assert_eq!(piped.finish()?.0, Some(0));
    // Nobody reads the rest.
    assert!(writing.join().ok().context("the writer panicked")?.is_err());
    // What cannot be read is no end.
    let folder = std::fs::File::open(installation.scratch())?;
    let mut command = exec(&installation, &[], &["sh", "-c", "cat; echo end"])?;
    let output = command.stdin(folder).output()?;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(
        text(&output.stderr).contains("cannot read standard input") && output.stdout.is_empty(),
        "{output:?}"
    );
    // With -n the next program finds all of it.
    let mut command = installation.command("sh")?;
    let line = "sortie exec -n \"$1\" -- cat; cat";
    command.args(["-c", line, "sh", installation.fact("node_id")]);
    let mut piped = Piped::start(&mut command)?;
    piped
        .stdin
        .as_mut()
        .context("no standard input")?
        .write_all(b"mine\n")?;
    let (code, rest, told) = piped.finish()?;
    assert_eq!(
        (code, rest.as_slice(), told.as_str()),
        (Some(0), &b"mine\n"[..], "")
    );
    Ok(())
}

#[test]
fn signals_are_the_commands() -> Result<()> {
    let installation = Installation::start()?;
    let traps = "for s in INT TERM HUP QUIT USR1 USR2; do trap \"echo got $s\" $s; done; \
        trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut piped = Piped::start(&mut exec(&installation, &[], &["sh", "-c", traps])?)?;
    piped.until("ready\n")?;
    for (number, name) in [
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::TERM, "TERM"),
    ] {
        signal(&piped.child, number)?;
        piped.until(&format!("got {name}\n"))?;
    }
    assert_eq!(piped.finish()?.0, Some(7));

    // One that does not care dies of it, as here.
    let words = ["sh", "-c", "echo ready; exec sleep 600"];
    let mut piped = Piped::start(&mut exec(&installation, &[], &words)?)?;
    piped.until("ready\n")?;
    signal(&piped.child, Signal::INT)?;
    assert_eq!(piped.finish()?.0, Some(130));
    Ok(())
}

#[test]
fn a_signal_arrives_though_the_command_reads_nothing() -> Result<()> {
    let installation = Installation::start()?;
    let words = [
        "sh",
        "-c",
        "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.05; done",
    ];
    let mut piped = Piped::start(&mut exec(&installation, &[], &words)?)?;
    piped.until("ready\n")?;
    let stdin = piped.stdin.take().context("no standard input")?;
    let writing = write_beside(stdin, noise(16 << 20));
    signal(&piped.child, Signal::INT)?;
    piped.until("got it\n")?;
    assert_eq!(piped.finish()?.0, Some(9));
    assert!(writing.join().ok().context("the writer panicked")?.is_err());
    Ok(())
}

#[test]
fn a_reader_that_leaves_breaks_the_pipe() -> Result<()> {
    let installation = Installation::start()?;
    let mut piped = Piped::start(&mut exec(&installation, &[], &["yes"])?)?;
    piped.until("y\n")?;
    let Piped {
        mut child,
        stdin,
        stdout,
    } = piped;
    drop(stdout);
    let status = wait_for("the command to end", || Ok(child.try_wait()?))?;
    assert_eq!(status.code(), Some(141));
    drop(stdin);
    // What it says to others is still heard.
    let words = [
        "sh",
        "-c",
        "trap '' PIPE; echo ready; read x; echo lost; echo kept >&2; exit 4",
    ];
    let mut piped = Piped::start(&mut exec(&installation, &[], &words)?)?;
    piped.until("ready\n")?;
    let Piped {
        mut child,
        stdin,
        stdout,
    } = piped;
    drop(stdout);
    stdin.context("no standard input")?.write_all(b"go\n")?;
    let mut told = String::new();
    child
        .stderr
        .take()
        .context("no standard error")?
        .read_to_string(&mut told)?;
    assert!(told.contains("kept"), "{told}");
    assert_eq!(child.wait()?.code(), Some(4));
    Ok(())
}

#[test]
fn a_person_at_a_terminal_types_lines_and_ends_them() -> Result<()> {
    let installation = Installation::start()?;
    let mut terminal = Terminal::open(&exec(&installation, &[], &["cat"])?, 80, 24)?;
    terminal.line("hello")?;
    terminal.until("hello\r\nhello\r\n")?;
    terminal.keys([0x04])?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));
    // A terminal of its own.
    let script = "tty; until stty size | grep '31 100'; do sleep 0.05; done; \
        read x; echo \"<$x>\"; exit 6";
    let words = ["sh", "-c", script];
    let mut terminal = Terminal::open(&exec(&installation, &["-t"], &words)?, 100, 31)?;
    terminal.until("/dev/pts/")?;
    terminal.until("31 100")?;
    terminal.line("word")?;
    terminal.until("<word>")?;
    assert_eq!(terminal.exit_status()?.code(), Some(6));
    assert!(terminal.is_cooked()?);
    assert!(
        !terminal.shown().contains("Session"),
        "{}",
        terminal.shown()
    );
    Ok(())
}

#[test]
fn every_byte_arrives_through_cuts_and_a_killed_server() -> Result<()> {
    let mut installation = Installation::start()?;
    let network = Proxy::to_url(installation.fact("endpoint"))?;
    let mut command = exec(
        &installation,
        &[],
        &["sh", "-c", "cat; echo end >&2; exit 42"],
    )?;
    command.env("AWS_ENDPOINT_URL", format!("http://{}", network.address()));
    let mut piped = Piped::start(&mut command)?;
    let mut stdin = piped.stdin.take().context("no standard input")?;
    let input = noise(12 << 20);
    for (round, part) in input.chunks(2 << 20).enumerate() {
        // Half of it is under way when the connection breaks.
        let (first, second) = part.split_at(part.len() / 2);
        let (first, second) = (first.to_vec(), second.to_vec());
        let writing = std::thread::spawn(move || -> std::io::Result<ChildStdin> {
            stdin.write_all(&first)?;
            stdin.write_all(&second)?;
            Ok(stdin)
        });
        let mut back = vec![0; part.len()];
        piped
            .stdout
            .read_exact(back.get_mut(..1000).context("short")?)?;
        if round == 3 {
            installation.kill()?;
            installation.restart()?;
        } else {
            assert!(network.cut() > 0, "nothing was cut");
        }
        piped
            .stdout
            .read_exact(back.get_mut(1000..).context("short")?)?;
        assert!(back == part, "round {round}: the bytes differ");
        stdin = writing.join().ok().context("the writer panicked")??;
    }
    drop(stdin);
    let (code, rest, told) = piped.finish()?;
    assert_eq!((code, told.as_str()), (Some(42), "end\n"));
    assert!(rest.is_empty());
    Ok(())
}
