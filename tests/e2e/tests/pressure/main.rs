//! Pressure: who does not read, who floods, and many at once. Memory of every process of ours is
//! measured while it lasts; nothing may be lost, and Ctrl-C is heard.
//!
//! `SORTIE_SOAK=1` makes clients not read for five minutes instead of some seconds;
//! `SORTIE_SESSIONS=1000` opens so many sessions at once.
#![cfg(target_os = "linux")]

mod memory;
mod story;

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use memory::{Watch, ours, resident, running, written};
use sortie_testkit::{PATIENCE, Terminal, wait_for};
use story::{Client, Node, Story};

/// A counter that has not moved for so long stands still.
const STILL: Duration = Duration::from_secs(1);
/// How long a client does not read where that is asked for.
const SOAK: Duration = Duration::from_secs(300);
/// What a slow client reads at a time, how often, and how long it does not between.
const SIP: usize = 64 << 10;
const SIPS: usize = 32;
const SIP_PAUSE: Duration = Duration::from_millis(100);
/// What the server may hold for a session that is open, in bytes.
const SESSION: u64 = 256 << 10;
/// What a session's worker, or its client, may have in all, in debug builds.
const EACH: u64 = 20 << 20;
/// What each of many sessions counts to.
const NUMBERS: usize = 2000;
/// Ctrl-C is heard within this time, in debug builds on machines that are busy with other things too:
/// how fast is for benchmarks. Behind everything that waits before it, it would not be heard at all.
const AT_ONCE: Duration = Duration::from_secs(20);

#[test]
fn our_client_and_our_agent() -> Result<()> {
    pressure(Client::Sortie, Node::OurAgent)
}

#[test]
fn our_plugin_and_our_agent() -> Result<()> {
    pressure(Client::OurPlugin, Node::OurAgent)
}

#[test]
fn official_plugin_and_our_agent() -> Result<()> {
    pressure(Client::OfficialPlugin, Node::OurAgent)
}

#[test]
fn our_client_and_official_agent() -> Result<()> {
    pressure(Client::Sortie, Node::OfficialAgent)
}

#[test]
fn our_plugin_and_official_agent() -> Result<()> {
    pressure(Client::OurPlugin, Node::OfficialAgent)
}

#[test]
fn official_plugin_and_official_agent() -> Result<()> {
    pressure(Client::OfficialPlugin, Node::OfficialAgent)
}

/// One session after the other on the same server and node.
fn pressure(client: Client, node: Node) -> Result<()> {
    let Some(story) = Story::begin(node)? else {
        return Ok(());
    };
    let Some(terminal) = story.open(client)? else {
        return Ok(());
    };
    let mut pair = Pair {
        client,
        node,
        story,
        terminal,
    };
    let tried = (|| {
        pair.is_interrupted()?;
        pair.is_held()?;
        pair.is_slow()?;
        pair.gets_every_byte()?;
        pair.leaves()
    })();
    tried.with_context(|| format!("{client:?} and {node:?}\n{}", pair.story.logs()))
}

/// A session that is open.
struct Pair {
    client: Client,
    node: Node,
    story: Story,
    terminal: Terminal,
}

impl Pair {
    fn watch(&self) -> Result<Watch> {
        let roots = [
            self.story.server()?,
            self.story.on_node()?,
            self.terminal.process_id(),
        ];
        let watch = Watch::begin(&roots)?;
        // The server; the agent and its worker; the client.
        let mut expected = 1;
        expected += if self.node == Node::OurAgent { 2 } else { 0 };
        expected += usize::from(self.client != Client::OfficialPlugin);
        ensure!(
            watch.processes() == expected,
            "not {expected} processes: {}",
            watch.figures()
        );
        Ok(watch)
    }

    fn both_are_ours(&self) -> bool {
        self.client != Client::OfficialPlugin && self.node == Node::OurAgent
    }

    /// A line that no other test prints.
    fn mark(&self, case: &str) -> String {
        let test = std::process::id();
        format!("{case}-{:?}-{:?}-{test}", self.client, self.node)
    }

    fn say(&self, what: &str) {
        // Past the capture of the test harness: these are figures that somebody wants to see.
        let line = format!("{:?} and {:?}: {what}\n", self.client, self.node);
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    /// What is shown next, as the node wrote it.
    fn take(&mut self) -> Result<Vec<u8>> {
        let mut bytes = self.terminal.take(Duration::from_millis(50))?;
        if self.client == Client::OfficialPlugin {
            // It leaves the terminal's own treatment of line ends on.
            bytes.retain(|&byte| byte != b'\r');
        }
        Ok(bytes)
    }

    /// Reads until what is shown ends with `end`, with at least `length` bytes.
    fn take_until(&mut self, end: &[u8], length: usize) -> Result<Vec<u8>> {
        let mut taken = Vec::new();
        let mut heard = Instant::now();
        loop {
            let fresh = self.take()?;
            let from = taken.len().saturating_sub(end.len());
            if !fresh.is_empty() {
                heard = Instant::now();
            }
            taken.extend(fresh);
            let tail = taken.get(from..).unwrap_or_default();
            let is_long_enough = taken.len() >= length;
            if is_long_enough && tail.windows(end.len()).any(|part| part == end) {
                return Ok(taken);
            }
            ensure!(
                heard.elapsed() < PATIENCE,
                "nothing more comes after {} bytes",
                taken.len()
            );
        }
    }

    /// Ctrl-C while a client reads as fast as it can.
    fn is_interrupted(&mut self) -> Result<()> {
        let mark = self.mark("interrupted");
        let flood = self.story.flood("interrupted", &format!("yes {mark}"))?;
        let mut watch = self.watch()?;
        self.terminal.line(&flood)?;
        self.terminal.until("BEGIN")?;
        let mut shown = self.take()?;
        let enough = if self.node == Node::OurAgent {
            4 << 20
        } else {
            256 << 10
        };
        while shown.len() < enough {
            shown.extend(self.take()?);
        }
        let pressed = Instant::now();
        self.terminal.keys([3])?;
        let heard = self.until_gone(&mark, pressed, &mut shown)?;
        shown.extend(self.take_until(b"\nOVER\n", 0)?);
        let seen = pressed.elapsed();
        is_repeated(&shown, &mark)?;
        watch.look()?;
        self.say(&format!(
            "Ctrl-C heard after {heard:.1?}, all shown after {seen:.1?} and {} bytes; {}",
            shown.len(),
            watch.figures()
        ));
        ensure!(heard < AT_ONCE, "Ctrl-C was heard after {heard:?}");
        Ok(())
    }

    /// Reads on until the flood's process is gone.
    fn until_gone(&mut self, mark: &str, since: Instant, shown: &mut Vec<u8>) -> Result<Duration> {
        wait_for("Ctrl-C to be heard", || {
            if running("yes", mark)?.is_none() {
                return Ok(Some(since.elapsed()));
            }
            shown.extend(self.take()?);
            Ok(None)
        })
    }

    /// `yes` into a client that does not read.
    fn is_held(&mut self) -> Result<()> {
        let mark = self.mark("held");
        let flood = self.story.flood("held", &format!("yes {mark}"))?;
        let mut watch = self.watch()?;
        self.terminal.hold();
        self.terminal.line(&flood)?;
        let held = self.until_still("yes", &mark, &mut watch)?;
        let Some(soaked) = self.soak("yes", &mark, &mut watch)? else {
            return self.starts_again();
        };
        self.say(&format!(
            "`yes` held after {held} bytes{soaked}; {}",
            watch.figures()
        ));
        if self.both_are_ours() {
            let pressed = Instant::now();
            self.terminal.keys([3])?;
            wait_for("Ctrl-C to be heard", || {
                Ok(running("yes", &mark)?.is_none().then_some(()))
            })?;
            let heard = pressed.elapsed();
            self.say(&format!("not reading, Ctrl-C heard after {heard:.1?}"));
            ensure!(heard < AT_ONCE, "Ctrl-C was heard after {heard:?}");
            self.terminal.pass();
        } else {
            self.terminal.pass();
            self.terminal.keys([3])?;
        }
        self.terminal.until("BEGIN")?;
        let shown = self.take_until(b"\nOVER\n", 0)?;
        is_repeated(&shown, &mark)?;
        ensure!(
            shown.len() as u64 >= held,
            "{held} bytes were written and {} shown",
            shown.len()
        );
        watch.look()
    }

    /// So many bytes of every value into a client that does not read, and then does.
    fn gets_every_byte(&mut self) -> Result<()> {
        let is_cooked = self.client == Client::OfficialPlugin;
        let part = noise(1 << 20, is_cooked);
        let path = self.story.scratch("noise");
        fs::write(&path, &part)?;
        let path = path.display().to_string();
        let times = if self.node == Node::OurAgent { 24 } else { 7 };
        let words = vec![path.as_str(); times].join(" ");
        let flood = self.story.flood("binary", &format!("cat {words}"))?;
        let mut watch = self.watch()?;
        self.terminal.hold();
        self.terminal.line(&flood)?;
        let held = self.until_still("cat", &path, &mut watch)?;
        ensure!(held < (times * part.len()) as u64, "nobody held it back");
        self.terminal.pass();
        self.terminal.until("BEGIN")?;
        let begun = Instant::now();
        let length = 1 + times * part.len();
        let shown = self.take_until(b"\nOVER\n", length)?;
        let took = begun.elapsed();
        let body = shown.get(1..length).context("too little")?;
        for (number, (seen, sent)) in body.chunks(part.len()).zip(vec![&part; times]).enumerate() {
            ensure!(
                seen == sent,
                "part {number} of {times} is not what was sent"
            );
        }
        watch.look()?;
        self.say(&format!(
            "{length} bytes exact, held after {held}, rest in {took:.1?}; {}",
            watch.figures()
        ));
        Ok(())
    }

    /// Waits until the flood can write nothing more. The number of bytes written by then.
    fn until_still(&self, program: &str, mark: &str, watch: &mut Watch) -> Result<u64> {
        let flood = wait_for("the flood to begin", || running(program, mark))?;
        let (mut before, mut since) = (0, Instant::now());
        wait_for("the flood to be held back", || {
            let now = written(flood).context("the flood has ended")?;
            if now != before {
                (before, since) = (now, Instant::now());
            }
            watch.look()?;
            Ok((now > 0 && since.elapsed() >= STILL).then_some(now))
        })
    }

    /// Goes on like that for five minutes, where that is asked for. `None` when the session ended.
    fn soak(&self, program: &str, mark: &str, watch: &mut Watch) -> Result<Option<String>> {
        if env::var_os("SORTIE_SOAK").is_none() {
            return Ok(Some(String::new()));
        }
        let begun = Instant::now();
        while begun.elapsed() < SOAK {
            watch.look()?;
            if running(program, mark)?.is_none() {
                self.has_given_up(begun.elapsed())?;
                return Ok(None);
            }
            thread::park_timeout(STILL);
        }
        Ok(Some(format!(" and for {SOAK:?}")))
    }

    /// The official client reads nothing while its terminal takes nothing. If an acknowledgement of
    /// what was typed is among that, the client repeats it 3000 times, for five minutes, and then ends
    /// the session itself. So may no other.
    fn has_given_up(&self, after: Duration) -> Result<()> {
        let session = self.story.ended()?;
        self.say(&format!("the client gave up after {after:.0?}: {session}"));
        ensure!(
            self.client == Client::OfficialPlugin,
            "the flood ended after {after:?}"
        );
        ensure!(session["Status"] == "Terminated", "it ended as {session}");
        let reason = session["Details"].as_str().unwrap_or_default();
        ensure!(!reason.is_empty(), "there is no reason in {session}");
        Ok(())
    }

    /// Takes another session in place of one that has ended.
    fn starts_again(&mut self) -> Result<()> {
        self.terminal.pass();
        self.terminal.exit_status()?;
        self.terminal = self.story.open(self.client)?.context("no client")?;
        Ok(())
    }

    /// `yes` into a client that reads, but far more slowly than the node writes.
    fn is_slow(&mut self) -> Result<()> {
        let mark = self.mark("slow");
        let flood = self.story.flood("slow", &format!("yes {mark}"))?;
        let mut watch = self.watch()?;
        self.terminal.line(&flood)?;
        self.terminal.until("BEGIN")?;
        let mut shown = Vec::new();
        for sip in 1..=SIPS {
            self.terminal.pass();
            while shown.len() < sip * SIP {
                shown.extend(self.take()?);
            }
            self.terminal.hold();
            watch.look()?;
            thread::park_timeout(SIP_PAUSE);
        }
        ensure!(running("yes", &mark)?.is_some(), "the flood has ended");
        self.terminal.pass();
        self.terminal.keys([3])?;
        shown.extend(self.take_until(b"\nOVER\n", 0)?);
        is_repeated(&shown, &mark)?;
        watch.look()?;
        self.say(&format!(
            "{} bytes read in sips; {}",
            shown.len(),
            watch.figures()
        ));
        Ok(())
    }

    /// The session goes on, and ends as it should.
    fn leaves(&mut self) -> Result<()> {
        self.terminal.line("echo al\"\"ive; exit")?;
        self.terminal.until("alive")?;
        self.terminal.exit_status()?;
        let session = self.story.ended()?;
        ensure!(session["Status"] == "Terminated", "it ended as {session}");
        Ok(())
    }
}

/// Whether this is one line again and again, up to the end of the flood.
fn is_repeated(shown: &[u8], mark: &str) -> Result<()> {
    let line = format!("{mark}\n");
    let over = b"\nOVER\n";
    let end = shown
        .windows(over.len())
        .rposition(|part| part == over)
        .context("no end")?;
    // The line end behind the first mark.
    let body = shown.get(1..end).context("nothing was shown")?;
    for (number, part) in body.chunks(line.len()).enumerate() {
        let expected = line.as_bytes().get(..part.len()).unwrap_or_default();
        ensure!(
            part == expected,
            "line {number} came as {:?}",
            String::from_utf8_lossy(part)
        );
    }
    Ok(())
}

/// Bytes of every value, the same at every call. Without carriage returns where the way adds some.
fn noise(length: usize, without_returns: bool) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let byte = next();
        if !(without_returns && byte == b'\r') {
            bytes.push(byte);
        }
    }
    bytes
}

/// Typed into a program that reads nothing, and then does.
#[test]
fn a_flood_of_input_waits_for_a_program_that_does_not_read() -> Result<()> {
    let Some(story) = Story::begin(Node::OurAgent)? else {
        return Ok(());
    };
    let Some(command) = story.client(Client::Sortie)? else {
        return Ok(());
    };
    let (go, got) = (story.scratch("go"), story.scratch("got"));
    let length = 16 << 20;
    let script = story.scratch("script");
    let text = format!(
        "stty raw -echo\n\
         echo de\"\"af\n\
         while [ ! -e {} ]; do sleep 0.05; done\n\
         head -c {length} > {}\n\
         echo re\"\"ad\n",
        go.display(),
        got.display()
    );
    fs::write(&script, text)?;
    // From a pipe: a terminal of the test's own would hold back most of it.
    let (mut client, input, sent) = typed(command, &script, &noise(length, false))?;
    let roots = [story.server()?, story.on_node()?, client.id()];
    let tried = (|| {
        wait_for("the program to be deaf", || {
            let shown = fs::read_to_string(story.scratch("shown")).unwrap_or_default();
            Ok(shown.contains("deaf").then_some(()))
        })?;
        let mut watch = Watch::begin(&roots)?;
        input.send(())?;
        let (mut before, mut since) = (0, Instant::now());
        let held = wait_for("the input to be held back", || {
            let now = sent.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            }
            watch.look()?;
            Ok((now > 0 && since.elapsed() >= STILL).then_some(now))
        })?;
        ensure!(held < length, "nobody held it back");
        fs::write(&go, "")?;
        wait_for("all of the input", || {
            let size = fs::metadata(&got).map_or(0, |file| file.len());
            Ok((size == length as u64).then_some(()))
        })?;
        ensure!(
            fs::read(&got)? == noise(length, false),
            "not what was typed"
        );
        watch.look()?;
        let line = format!("input held after {held} bytes; {}\n", watch.figures());
        let _ = std::io::stderr().write_all(line.as_bytes());
        Ok(())
    })();
    // Its input ends with the thread that writes it.
    drop(input);
    let _ = client.kill();
    let _ = client.wait();
    tried.with_context(|| story.logs())
}

/// A client whose input is a script's name, and then a flood once that is asked for. Counts what the
/// client has taken.
fn typed(
    mut command: Command,
    script: &Path,
    flood: &[u8],
) -> Result<(Child, Sender<()>, Arc<AtomicUsize>)> {
    let folder = script.parent().context("the script is in no folder")?;
    let shown = fs::File::create(folder.join("shown"))?;
    command.stdin(Stdio::piped()).stdout(shown);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    stdin.write_all(format!("sh {}\n", script.display()).as_bytes())?;
    let sent = Arc::new(AtomicUsize::new(0));
    let (ask, asked) = channel();
    let (counter, flood) = (Arc::clone(&sent), flood.to_vec());
    // Ends with the client, whose input breaks.
    thread::spawn(move || {
        if asked.recv().is_err() {
            return;
        }
        for part in flood.chunks(4096) {
            if stdin.write_all(part).is_err() {
                return;
            }
            counter.fetch_add(part.len(), Ordering::Relaxed);
        }
        // The input stays open until the test is over.
        let _ = asked.recv();
    });
    Ok((child, ask, sent))
}

/// Many shells at once, each with a client of its own.
#[test]
fn many_sessions_at_once() -> Result<()> {
    let Some(story) = Story::begin(Node::OurAgent)? else {
        return Ok(());
    };
    let asked = env::var("SORTIE_SESSIONS").ok();
    let count: usize = asked.map_or(Ok(100), |text| text.parse())?;
    let begun = Instant::now();
    let first = story.open(Client::Sortie)?.context("no client")?;
    let (server, agent) = (story.server()?, story.on_node()?);
    let mut watch = Watch::begin(&[server, agent])?;
    let mut terminals = vec![first];
    while terminals.len() < count {
        // Some at a time: what starts at once also waits for each other.
        let few = (count - terminals.len()).min(20);
        let command = story.client(Client::Sortie)?.context("no client")?;
        let opened = (0..few).map(|_| Terminal::open(&command, 80, 24));
        let mut opened = opened.collect::<Result<Vec<_>>>()?;
        for terminal in &mut opened {
            let tried = terminal.until("# ").or_else(|_| terminal.until("$ "));
            tried.with_context(|| story.logs())?;
        }
        terminals.extend(opened);
    }
    let opened = begun.elapsed();
    for (number, terminal) in terminals.iter_mut().enumerate() {
        terminal.line(&format!("seq {NUMBERS}; echo an\"\"swer-{number}-"))?;
    }
    let numbers: Vec<String> = (1..=NUMBERS).map(|number| number.to_string()).collect();
    let numbers = numbers.join("\r\n");
    for (number, terminal) in terminals.iter_mut().enumerate() {
        let shown = terminal.until(&format!("answer-{number}-"))?;
        ensure!(shown.contains(&numbers), "session {number} shows:\n{shown}");
    }
    // The agent and a worker for each.
    let processes = ours(agent);
    ensure!(processes.len() == count + 1, "{} workers", processes.len());
    watch.look_up_to(memory::MOST.max(count as u64 * SESSION))?;
    let workers = processes.iter().filter(|process| **process != agent);
    let workers = resident_each(workers.copied())?;
    let clients = terminals.iter().map(Terminal::process_id);
    let clients = resident_each(clients.flat_map(ours))?;
    let line = format!(
        "{count} sessions open after {opened:.1?}; {}; workers {} KiB each, clients {} KiB\n",
        watch.figures(),
        workers / 1024,
        clients / 1024
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
    for terminal in &mut terminals {
        terminal.line("exit")?;
    }
    for terminal in &mut terminals {
        ensure!(terminal.exit_status()?.success(), "a client failed");
    }
    wait_for("the workers to end", || {
        Ok((ours(agent).len() == 1).then_some(()))
    })?;
    wait_for("no session to be open", || {
        Ok((story.open_sessions()? == 0).then_some(()))
    })
}

/// What each of these processes has in memory, on average; none may have more than [`EACH`].
fn resident_each(processes: impl Iterator<Item = u32>) -> Result<u64> {
    let each = processes.map(resident).collect::<Result<Vec<u64>>>()?;
    let most = each.iter().max().context("no process")?;
    ensure!(*most <= EACH, "a process of a session has {most} bytes");
    Ok(each.iter().sum::<u64>() / each.len() as u64)
}
