//! A conversation whose every byte is compared, while a test breaks what it likes: a program on the
//! node repeats what is typed and says numbered lines of its own. Knows nothing of how the session
//! was opened.

use std::{
    collections::VecDeque,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Pid;

use crate::{Proxy, Terminal, wait::PATIENCE};

/// What runs on the node: it repeats each line that it is given, as one write, and says lines of its
/// own between them, until it is given `quit`.
///
/// `$1`: its folder; `$2`: what it adds to its lines; `$3`: seconds between eight lines.
const REMOTE: &str = r#"
stty raw -echo
cd "$1"
echo $$ > pid.new && mv pid.new pid
printf 'ready\n'
(
    number=0
    while [ ! -e quit ]; do
        line=0
        while [ $line -lt 8 ]; do
            printf 'G%07d%s\n' $number "$2"
            number=$((number + 1)) line=$((line + 1))
        done
        sleep "$3"
    done
) &
trap ': > quit' TERM
while [ ! -e quit ] && IFS= read -r line; do
    [ "$line" = quit ] && break
    printf '%s\n' "$line"
done
: > quit
wait
printf 'bye\n'
exit 7
"#;

/// Bytes that are typed and not repeated yet, at most: more than is on the way at any time.
const AHEAD: usize = 16 << 10;

/// What has not come for so long was not on the way: longer than an end needs for what it has read.
const SILENCE: Duration = Duration::from_millis(300);

/// Whose ends a talk has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// The official client leaves the local terminal's treatment of line ends on, which turns a line
    /// feed into two bytes, and sends lost input again at ten messages a second.
    pub has_official_client: bool,
    /// The official agent sends lost output again at ten messages a second.
    pub has_official_node: bool,
}

/// Two streams of numbered lines, one in each direction and back, and one from the node alone. Every
/// byte that comes must be the next one of its stream.
pub struct Talk {
    terminal: Terminal,
    folder: tempfile::TempDir,
    /// What the node adds to its own lines.
    filler: String,
    manner: Manner,
    typed: u64,
    /// Typed and not repeated yet.
    expected: VecDeque<Vec<u8>>,
    ahead: usize,
    repeated: u64,
    generated: u64,
    /// The beginning of a line.
    rest: Vec<u8>,
    is_over: bool,
}

impl Talk {
    /// Opens a shell with `command`, on a terminal of its own, and replaces it by the program that
    /// talks.
    ///
    /// # Errors
    /// When the program does not say that it is ready.
    pub fn open(command: &Command, manner: &Manner) -> Result<Self> {
        let mut terminal = Terminal::open(command, 200, 50)?;
        let folder = tempfile::tempdir()?;
        // The session's user may be another one.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let script = folder.path().join("remote.sh");
        fs::write(&script, REMOTE)?;
        let filler = "0123456789abcdef".repeat(30);
        let pause = if manner.has_official_node {
            "0.1"
        } else {
            "0.02"
        };
        let (script, place) = (script.display(), folder.path().display());
        terminal.line(&format!("exec sh {script} {place} {filler} {pause}"))?;
        let end = if manner.has_official_client {
            "ready\r\n"
        } else {
            "ready\n"
        };
        terminal.until(end)?;
        Ok(Self {
            terminal,
            folder,
            filler,
            manner: *manner,
            typed: 0,
            expected: VecDeque::new(),
            ahead: 0,
            repeated: 0,
            generated: 0,
            rest: Vec::new(),
            is_over: false,
        })
    }

    /// How many lines were typed.
    #[must_use]
    pub fn typed(&self) -> u64 {
        self.typed
    }

    /// Waits until the client ends.
    ///
    /// # Errors
    /// When it does not.
    pub fn exit_status(&mut self) -> Result<ExitStatus> {
        self.terminal.exit_status()
    }

    /// The shell's process on the node.
    ///
    /// # Errors
    /// When it has not begun.
    pub fn process_id(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.folder.path().join("pid"))?;
        Pid::from_raw(text.trim().parse()?).context("no process id")
    }

    /// Types the next line.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn type_line(&mut self) -> Result<()> {
        let length = usize::try_from(self.typed * 37 % 150)?;
        let mut line = format!("T{:07}", self.typed).into_bytes();
        // Keys that a terminal would act upon: the remote one is raw, and ours must be.
        if !self.manner.has_official_client {
            line.extend([3, 4, 9, 17, 19, 26, 28, 127]);
        }
        line.extend(b"the quick brown fox ".iter().cycle().take(length));
        line.push(b'\n');
        self.terminal.keys(&line)?;
        self.typed += 1;
        self.ahead += line.len();
        self.expected.push_back(line);
        Ok(())
    }

    fn most_ahead(&self) -> usize {
        match self.manner {
            Manner {
                has_official_client: true,
                ..
            } => 256,
            Manner {
                has_official_node: true,
                ..
            } => 1024,
            _ => AHEAD,
        }
    }

    /// Types while there is room, and takes what has come.
    ///
    /// # Errors
    /// When a byte is not the expected one, or does not come.
    pub fn go_on(&mut self) -> Result<()> {
        for _ in 0..4 {
            if self.ahead < self.most_ahead() {
                self.type_line()?;
            }
        }
        self.listen()
    }

    /// Takes what has come, and types nothing.
    ///
    /// # Errors
    /// When a byte is not the expected one.
    pub fn listen(&mut self) -> Result<()> {
        let mut fresh = self.terminal.take(Duration::from_millis(5))?;
        if self.manner.has_official_client {
            fresh.retain(|&byte| byte != b'\r');
        }
        self.rest.extend(fresh);
        // Behind the last word the client may say something itself.
        while !self.is_over
            && let Some(end) = self.rest.iter().position(|&byte| byte == b'\n')
        {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.compare(&line)?;
        }
        Ok(())
    }

    fn compare(&mut self, line: &[u8]) -> Result<()> {
        let expected = match line.first() {
            Some(b'G') => {
                let line = format!("G{:07}{}\n", self.generated, self.filler);
                self.generated += 1;
                line.into_bytes()
            }
            Some(b'b') => {
                self.is_over = true;
                b"bye\n".to_vec()
            }
            _ => {
                self.repeated += 1;
                let line = self.expected.pop_front().unwrap_or_default();
                self.ahead -= line.len();
                line
            }
        };
        ensure!(
            line == expected,
            "expected {}\nand got {}",
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(line)
        );
        Ok(())
    }

    /// Goes on until what was said before this call has arrived, and news from the node.
    ///
    /// # Errors
    /// When a byte is not the expected one, or does not come.
    pub fn catch_up(&mut self) -> Result<()> {
        let started = Instant::now();
        let (typed, generated) = (self.typed + 1, self.generated + 1);
        self.type_line()?;
        while self.repeated < typed || self.generated < generated {
            self.go_on()?;
            if started.elapsed() > PATIENCE {
                bail!(
                    "line {typed} did not come back: {} typed, {} repeated, {} generated",
                    self.typed,
                    self.repeated,
                    self.generated
                );
            }
        }
        Ok(())
    }

    /// Ends the program on the node, and everything must have arrived.
    ///
    /// # Errors
    /// When a byte is not the expected one, or does not come.
    pub fn finish(mut self) -> Result<Option<i32>> {
        self.terminal.keys("quit\n")?;
        self.until_over()?;
        let lost = self.expected.len();
        ensure!(lost == 0, "{lost} lines lost");
        Ok(self.terminal.exit_status()?.code())
    }

    /// Listens until the program on the node has said its last word.
    ///
    /// # Errors
    /// When a byte is not the expected one, or does not come.
    pub fn until_over(&mut self) -> Result<()> {
        self.listen_until("the end", |talk| talk.is_over)
    }

    /// Lets nothing through these networks any more, with something typed under way, until what had
    /// passed before has certainly been taken in. Nothing passes until each network is told so.
    ///
    /// # Errors
    /// When a byte is not the expected one.
    pub fn fall_silent(&mut self, networks: &[&Proxy]) -> Result<()> {
        networks.iter().for_each(|network| network.hold());
        self.type_line()?;
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            let before = (self.generated, self.repeated, self.rest.len());
            self.listen()?;
            if before != (self.generated, self.repeated, self.rest.len()) {
                heard = Instant::now();
            }
        }
        Ok(())
    }

    /// Types nothing until so many lines more have come from the node.
    ///
    /// # Errors
    /// When a byte is not the expected one, or does not come.
    pub fn hear(&mut self, lines: u64) -> Result<()> {
        let enough = self.generated + lines;
        self.listen_until("the node", |talk| talk.generated >= enough)
    }

    fn listen_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) -> Result<()> {
        let started = Instant::now();
        while !reached(self) {
            self.listen()?;
            ensure!(started.elapsed() < PATIENCE, "{what} did not come");
        }
        Ok(())
    }
}
