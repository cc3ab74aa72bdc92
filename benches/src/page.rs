//! docs/benchmarks.md: the table with the method and the machine that it is true of.

use std::{fs, process::Command};

use crate::table::Table;

/// What was measured on.
pub(crate) struct Machine {
    processor: String,
    kernel: String,
    ssh: String,
    load: String,
}

impl Machine {
    /// This machine, with the load that it has before we begin.
    pub(crate) fn now() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model
            .and_then(|line| line.split(": ").nth(1))
            .unwrap_or("unknown");
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = read("/proc/meminfo");
        let kib = memory
            .split_whitespace()
            .nth(1)
            .and_then(|text| text.parse::<u64>().ok());
        let version = Command::new("ssh").arg("-V").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        Self {
            processor: format!(
                "{count} × {model}, {} GiB",
                kib.unwrap_or_default().div_ceil(1024 * 1024)
            ),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            ssh: version.map_or_else(|_| "none".to_owned(), |text| text.trim().to_owned()),
            load: load(),
        }
    }
}

/// Load averages of one, five and fifteen minutes.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

const METHOD: &str = "\
## Method

Everything runs on one machine and talks over loopback; release builds (`cargo build --release`).
Sortie: client (`sortie start`), `sortie-server serve` and `sortie-agent run` with their default
settings, TLS on both legs, the session policy's default. `ssh -J`: client, a bastion and a target, two private
instances of sshd with keys of their own, `UsePAM no`, otherwise default settings. Reverse tunnel: the target holds `ssh -R`
to the bastion, and the client goes through the bastion to it, which is the shape of Sortie. Ours
and the peers take turns in each round; a cell is the median of the rounds, in brackets the best and
the worst; ratios are of medians. Differences below a factor of 1.3 are not to be relied on.

- *The shell* is the account's login shell on both sides, in a mount namespace where the account's home is
  empty but for a prompt: start-up files of the machine's owner can take far longer than the
  programs that are compared.
- *Open a shell*: from starting the client on a pseudo terminal to the remote prompt; median of 6 a round.
- *Keys*: one letter, until it is back from the remote terminal's echo in front of `cat`; 600 back to
  back and 200 with 10 ms between, a tenth of them for warming up.
- *Terminal output*: 30 MB of lines of text from `yes | head -c`, read as fast as they come.
- *Ctrl-C*: `yes` floods for 0.4 s, then from the key until the terminal shows `^C`, behind
  everything that was under way; 4 a round.
- *Tunnels*: one port forwarded by `sortie forward`, by `ssh -J … -L`, and by `ssh -R` of the target with `ssh -L` of the
  client, the peers with aes128-gcm on every hop; what is measured beside each other goes through one forward, with Sortie
  through one session. Both ends of the traffic are threads of the tool.
  *Bulk*: 64 KiB writes for 3 s, until the far end says that it has all of it (up) or the last byte is here (down).
  *1 byte*: to an echo and back on one connection; 2,000 back to back and 150 with 10 ms between, and beside bulk on
  another connection up to 300 within 3 s, with 2 ms between. *New connection*: connecting until the first byte is back, 100 one after the other.
  *200 connections at once*: all of them open before the first goes on; then 20 exchanges of 1 KiB each.
  *Processor* is user and system time of every process of the tunnel, in seconds for each GB moved.
- *A slow reader* takes 1 MB/s for 120 s of 10 GB that are offered to it, then the rest as fast as it comes; what arrives is compared by
  SHA-256. *Here* is the client's side, *there* the node's. One round, in a session of its own. *Grows* is the RSS at its
  highest, looked at every 250 ms until the end, less what it was in front of the transfer with the session open.
- *Commands*: `sortie exec` and `ssh`, from start to end of the client, median of 12 a round; and 1 GB into
  `cat` and back, compared by SHA-256, the peers with aes128-gcm.
- *Trees*: four fifths of the bytes in files of 4 MB, the others in files of 64 kB, copied by OpenSSH's `scp`
  (and `rsync` where it is installed) into the same sshd, through the ProxyCommand of `sortie ssh-config` and through `ssh -J`, aes128-gcm, compared by SHA-256.
- *Official ends*: AWS's own client or agent at one end or both, and the server of Sortie between them; only where those programs were
  present. A limit is set where the end that sends is ours.
- *Memory* is `smaps_rollup`: the agent 3 s after its start, before its first session; a session's process without its shell. What a session adds is
  the growth of the proportional set of agent and session process together; its RSS counts again the
  pages of the program that the agent has in memory already.
- *Nodes* are simulated by processes of at most 1,000 nodes each, on source addresses in 127/8. Each node has its own
  registration, key, credentials and TLS connections, none resumed (the agent resumes where the server lets it), and does
  at a return what the agent does, with its waits between attempts and its time limits: CreateControlChannel
  on a connection of its own, then the signed upgrade and the open message. It counts as back when its control channel
  answers a ping sent behind the open message. It does not report its facts, which an agent does every five minutes and not at
  a return. The memory of one is the growth of the RSS of a freshly started server, 5 s after all have
  connected; the kernel's share of a connection is not in it. A restart is SIGTERM and a new start, timed from the signal;
  nodes and server share the machine, so the time is also that of the nodes' own handshakes.
  *Refused* counts every answer of the server that is an error, and every channel that it closes before it has answered.
";

/// The whole page.
pub(crate) fn render(
    table: &Table,
    rounds: u32,
    nodes: u32,
    machine: &Machine,
    nice: i32,
) -> String {
    let Machine {
        processor,
        kernel,
        ssh,
        load: before,
    } = machine;
    let (table, after) = (table.render(), load());
    format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`; the remarks at the end are kept.\n\n\
         {processor}; {kernel}; {ssh}. Everything at niceness {nice}. Load average before {before}, \
         after {after}. {rounds} rounds, {nodes} simulated nodes.\n\n{table}\n{METHOD}"
    )
}
