//! `sortie exec --on`: one command on many nodes, so many at a time. Lines of nodes are never mixed up,
//! and at the end it is said which nodes failed.
//!
//! One task for each running node sends whole lines to one collector, which alone writes; a slow
//! reader of the output stops the collector and with it every node.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{features, handshake::SessionType};
use sortie_client::{
    Api, DataChannel,
    data_channel::{CommandSignal, Commands, End, Event, Events, Options},
};
use sortie_wire::shapes::ssm::StartSessionRequest;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    BY_SIGNAL,
    lines::{Capture, Lines},
    selection::{self, Chosen},
    signals::{Caught, Signals},
    status, why,
};
use crate::{
    FAILURE,
    arguments::Exec,
    error::CommandError,
    output, start,
    stdio::{Closed, Output, Stream},
};

/// Whole lines that wait for the collector, by pieces.
const QUEUE: usize = 16;

/// How long commands may take to end after a signal was passed on to them.
const GRACE: Duration = Duration::from_secs(5);

/// How often the progress line is drawn.
const PROGRESS: Duration = Duration::from_millis(250);

/// Takes the progress line away.
const CLEAR: &str = "\r\x1b[K";

/// How far everything is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Not,
    /// The commands are told.
    Tell(CommandSignal),
    /// The sessions are ended.
    Now,
}

/// What came of a node.
#[derive(Debug)]
struct Report {
    exit_status: Option<u8>,
    /// Why there is no status.
    error: Option<String>,
    took: Duration,
    stdout: Capture,
    stderr: Capture,
}

impl Report {
    /// The status that counts: where the command could not be run it is our own failure.
    fn status(&self) -> u8 {
        self.exit_status.unwrap_or(FAILURE)
    }

    fn in_words(&self) -> String {
        match (self.exit_status, &self.error) {
            (Some(status), _) => format!("exit status {status}"),
            (None, Some(error)) => error.clone(),
            (None, None) => "no exit status".to_owned(),
        }
    }

    fn to_json(&self, node: &Chosen) -> String {
        let status = match self.exit_status {
            Some(0) => "success",
            Some(_) => "failed",
            None => "error",
        };
        let line = json!({
            "node_id": node.id,
            "name": node.name,
            "status": status,
            "exit_status": self.exit_status,
            "error": self.error,
            "duration_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "stdout": self.stdout.text(),
            "stdout_truncated": self.stdout.is_cut,
            "stderr": self.stderr.text(),
            "stderr_truncated": self.stderr.is_cut,
        });
        format!("{line}\n")
    }
}

pub(super) async fn run(
    api: &Api,
    arguments: &Exec,
    request: StartSessionRequest,
) -> Result<u8, CommandError> {
    let mut signals = Signals::new().map_err(|error| CommandError::io("take signals", error))?;
    let nodes = tokio::select! {
        nodes = selection::find(api, &arguments.on) => nodes?,
        caught = signals.next() => return Ok(status(BY_SIGNAL + caught.number)),
    };
    let output = Output::start().map_err(|error| CommandError::io("use standard output", error))?;
    let (lines, incoming) = mpsc::channel(QUEUE);
    let mut fleet = Fleet {
        api: api.clone(),
        request,
        is_json: arguments.json,
        parallel: usize::from(arguments.parallel),
        waiting: (0..nodes.len()).collect(),
        reports: nodes.iter().map(|_| None).collect(),
        nodes,
        tasks: JoinSet::new(),
        lines,
        incoming,
        shown: VecDeque::new(),
        output,
        stop: watch::channel(Stop::Not).0,
        stopped_by: None,
        grace: None,
        output_closed: false,
        shows_progress: io::stderr().is_terminal(),
        is_progress_drawn: false,
    };
    fleet.run(&mut signals).await;
    fleet.conclude().await
}

struct Fleet {
    api: Api,
    request: StartSessionRequest,
    is_json: bool,
    parallel: usize,
    nodes: Vec<Chosen>,
    /// Nodes that were not begun with, by their place among all.
    waiting: VecDeque<usize>,
    reports: Vec<Option<Report>>,
    tasks: JoinSet<(usize, Report)>,
    lines: mpsc::Sender<(Stream, Bytes)>,
    incoming: mpsc::Receiver<(Stream, Bytes)>,
    /// To be written.
    shown: VecDeque<(Stream, Bytes)>,
    output: Output,
    stop: watch::Sender<Stop>,
    /// The signal that stopped everything.
    stopped_by: Option<i32>,
    grace: Option<Instant>,
    output_closed: bool,
    shows_progress: bool,
    is_progress_drawn: bool,
}

/// What the loop wakes up for.
enum Wake {
    Done(Option<Result<(usize, Report), tokio::task::JoinError>>),
    Grace,
    Lines(Option<(Stream, Bytes)>),
    OutputRoom(Result<(), Closed>),
    Progress,
    Signal(Caught),
}

impl Fleet {
    async fn run(&mut self, signals: &mut Signals) {
        let mut progress = tokio::time::interval(PROGRESS);
        loop {
            self.begin_more();
            if self.tasks.is_empty() && self.waiting.is_empty() && self.shown.is_empty() {
                return;
            }
            let (is_idle, draws) = (self.shown.is_empty(), self.shows_progress);
            let grace = self.grace;
            let wake = tokio::select! {
                caught = signals.next() => Wake::Signal(caught),
                room = self.output.ready(), if !is_idle => Wake::OutputRoom(room),
                lines = self.incoming.recv(), if is_idle => Wake::Lines(lines),
                done = self.tasks.join_next(), if is_idle && !self.tasks.is_empty() => Wake::Done(done),
                _ = progress.tick(), if is_idle && draws => Wake::Progress,
                () = until(grace) => Wake::Grace,
            };
            self.handle(wake);
        }
    }

    fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Done(Some(Ok((index, report)))) => self.take_report(index, report),
            // A task that panicked was reported by the hook; its node has no report.
            Wake::Done(_) => {}
            Wake::Grace => self.end_now(),
            Wake::Lines(lines) => self.show(lines),
            Wake::OutputRoom(Ok(())) => self.write(),
            Wake::OutputRoom(Err(Closed)) => {
                self.output_closed = true;
                self.shown.clear();
                self.end_now();
            }
            Wake::Progress => self.draw_progress(),
            Wake::Signal(caught) => self.take_signal(caught),
        }
    }

    fn begin_more(&mut self) {
        while self.tasks.len() < self.parallel
            && let Some(index) = self.waiting.pop_front()
        {
            let Some(node) = self.nodes.get(index) else {
                continue;
            };
            let one = One {
                api: self.api.clone(),
                request: StartSessionRequest {
                    target: node.id.clone(),
                    ..self.request.clone()
                },
                sink: Sink::new(self.is_json, &node.label, self.lines.clone()),
                stop: self.stop.subscribe(),
            };
            self.tasks.spawn(async move { (index, one.run().await) });
        }
    }

    /// Everything that the node has said came before its report.
    fn take_report(&mut self, index: usize, mut report: Report) {
        while let Ok(lines) = self.incoming.try_recv() {
            self.show(Some(lines));
        }
        if self.is_json
            && let Some(node) = self.nodes.get(index)
        {
            let line = Bytes::from(report.to_json(node));
            self.show(Some((Stream::Stdout, line)));
        }
        // It is printed; a thousand nodes are not to be held until the last has ended.
        (report.stdout, report.stderr) = (Capture::default(), Capture::default());
        if let Some(place) = self.reports.get_mut(index) {
            *place = Some(report);
        }
    }

    fn show(&mut self, lines: Option<(Stream, Bytes)>) {
        if self.output_closed {
            return;
        }
        if let Some(lines) = lines {
            self.clear_progress();
            self.shown.push_back(lines);
            self.write();
        }
    }

    fn write(&mut self) {
        while let Some(piece) = self.shown.pop_front() {
            if let Some(piece) = self.output.offer(piece) {
                self.shown.push_front(piece);
                return;
            }
        }
    }

    fn take_signal(&mut self, caught: Caught) {
        if !super::signals::is_ending(caught.meaning) {
            return;
        }
        if self.stopped_by.replace(caught.number).is_some() {
            self.end_now();
            return;
        }
        self.waiting.clear();
        self.grace = Some(Instant::now() + GRACE);
        self.stop.send_replace(Stop::Tell(caught.meaning));
    }

    fn end_now(&mut self) {
        self.waiting.clear();
        self.grace = None;
        self.stop.send_replace(Stop::Now);
    }

    fn draw_progress(&mut self) {
        let done: Vec<_> = self.reports.iter().flatten().collect();
        let failed = done.iter().filter(|report| report.status() != 0).count();
        let text = format!(
            "{CLEAR}[{}/{} nodes done, {failed} failed, {} running]",
            done.len(),
            self.nodes.len(),
            self.tasks.len()
        );
        self.output.remark(&text);
        self.is_progress_drawn = true;
    }

    fn clear_progress(&mut self) {
        if std::mem::take(&mut self.is_progress_drawn) {
            self.shown
                .push_back((Stream::Stderr, Bytes::from_static(CLEAR.as_bytes())));
        }
    }

    /// Says which nodes failed, and gives the exit status.
    async fn conclude(mut self) -> Result<u8, CommandError> {
        self.clear_progress();
        self.write();
        let written = self.output.result().await;
        for line in summary(&self.nodes, &self.reports) {
            output::error_line(&line);
        }
        if let Some(number) = self.stopped_by {
            return Ok(status(BY_SIGNAL + number));
        }
        match written {
            Ok(()) => Ok(highest(&self.reports)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(status(BY_SIGNAL + rustix::process::Signal::PIPE.as_raw()))
            }
            Err(error) => Err(CommandError::io("write to standard output", error)),
        }
    }
}

/// The highest status of all nodes; 255 for those on which the command could not be run.
fn highest(reports: &[Option<Report>]) -> u8 {
    let status = |report: &Option<Report>| report.as_ref().map_or(FAILURE, Report::status);
    reports.iter().map(status).max().unwrap_or(0)
}

fn summary(nodes: &[Chosen], reports: &[Option<Report>]) -> Vec<String> {
    let failures: Vec<_> = nodes
        .iter()
        .zip(reports)
        .filter_map(|(node, report)| {
            let words = match report {
                Some(report) if report.status() == 0 => return None,
                Some(report) => report.in_words(),
                None => "not run".to_owned(),
            };
            let id = if node.label == node.id {
                String::new()
            } else {
                format!(" ({})", node.id)
            };
            Some(format!("  {}{id}: {words}", node.label))
        })
        .collect();
    if failures.is_empty() {
        return failures;
    }
    let head = format!(
        "sortie: {} of {} nodes failed:",
        failures.len(),
        nodes.len()
    );
    std::iter::once(head).chain(failures).collect()
}

/// Where the output of a node goes.
enum Sink {
    Lines {
        stdout: Lines,
        stderr: Lines,
        collector: mpsc::Sender<(Stream, Bytes)>,
    },
    Report {
        stdout: Capture,
        stderr: Capture,
    },
}

impl Sink {
    fn new(is_json: bool, label: &str, collector: mpsc::Sender<(Stream, Bytes)>) -> Self {
        if is_json {
            return Self::Report {
                stdout: Capture::default(),
                stderr: Capture::default(),
            };
        }
        let prefix = format!("{label}: ");
        Self::Lines {
            stdout: Lines::new(&prefix),
            stderr: Lines::new(&prefix),
            collector,
        }
    }

    async fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match (self, stream) {
            (Self::Report { stdout, .. }, Stream::Stdout) => stdout.push(bytes),
            (Self::Report { stderr, .. }, Stream::Stderr) => stderr.push(bytes),
            (
                Self::Lines {
                    stdout,
                    stderr,
                    collector,
                },
                _,
            ) => {
                let lines = match stream {
                    Stream::Stdout => stdout,
                    Stream::Stderr => stderr,
                };
                give(collector, stream, lines.push(bytes)).await;
            }
        }
    }

    /// The last lines, or what was captured.
    async fn finish(self) -> (Capture, Capture) {
        match self {
            Self::Report { stdout, stderr } => (stdout, stderr),
            Self::Lines {
                stdout,
                stderr,
                collector,
            } => {
                give(&collector, Stream::Stdout, stdout.finish()).await;
                give(&collector, Stream::Stderr, stderr.finish()).await;
                (Capture::default(), Capture::default())
            }
        }
    }
}

async fn give(collector: &mpsc::Sender<(Stream, Bytes)>, stream: Stream, lines: Vec<u8>) {
    if !lines.is_empty() {
        // The collector outlives every node.
        let _ = collector.send((stream, Bytes::from(lines))).await;
    }
}

/// One node.
struct One {
    api: Api,
    request: StartSessionRequest,
    sink: Sink,
    stop: watch::Receiver<Stop>,
}

impl One {
    async fn run(mut self) -> Report {
        let started = Instant::now();
        let result = self.command().await;
        let (stdout, stderr) = self.sink.finish().await;
        let (exit_status, error) = match result {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        Report {
            exit_status,
            error,
            took: started.elapsed(),
            stdout,
            stderr,
        }
    }

    /// The command's status, or why there is none.
    async fn command(&mut self) -> Result<u8, String> {
        let session = tokio::select! {
            session = start::open(&self.api, &self.request) => session,
            _ = self.stop.wait_for(|stop| *stop != Stop::Not) => return Err("not run".to_owned()),
        };
        let session = session.map_err(|error| match error {
            CommandError::NotConnected { .. } => "not connected".to_owned(),
            error => output::plain(&error.full_text()),
        })?;
        let session_id = session.session_id.clone();
        let DataChannel {
            mut events,
            commands,
        } = DataChannel::open(
            session,
            self.api.clone(),
            self.api.tls(),
            Options::default(),
        );
        commands.end_input();
        let outcome = self.follow(&mut events, &commands).await;
        let agreed = events.features();
        let tells_status = agreed.iter().any(|name| name == features::EXIT_STATUS);
        if outcome.must_terminate {
            start::terminate(&self.api, &session_id).await;
        }
        match (outcome.exit_status, outcome.end) {
            (Some(code), _) => Ok(status(code)),
            (None, Ok(end)) => Err(why(&session_id, &end, tells_status)),
            (None, Err(reason)) => Err(reason),
        }
    }

    async fn follow(&mut self, events: &mut Events, commands: &Commands) -> Followed {
        let mut exit_status = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                Ok(()) = self.stop.changed() => {
                    match *self.stop.borrow_and_update() {
                        Stop::Not => {}
                        Stop::Tell(signal) => {
                            // A session that is over says so itself.
                            let _ = commands.signal(signal);
                        }
                        Stop::Now => return Followed::cut(exit_status, "interrupted"),
                    }
                    continue;
                }
            };
            match event {
                Some(Event::Output(bytes)) => {
                    if self.give(Stream::Stdout, &bytes).await.is_err() {
                        return Followed::cut(exit_status, "interrupted");
                    }
                }
                Some(Event::StdErr(bytes)) => {
                    if self.give(Stream::Stderr, &bytes).await.is_err() {
                        return Followed::cut(exit_status, "interrupted");
                    }
                }
                Some(Event::ExitStatus { code, .. }) => exit_status = code,
                Some(Event::Begun(session)) => {
                    if session.session_type != SessionType::NonInteractiveCommands {
                        return Followed::cut(None, "the document is for a terminal");
                    }
                }
                Some(Event::Ended(end)) => return Followed::to_the_end(exit_status, end),
                None => return Followed::to_the_end(exit_status, End::Left),
                // Nothing that changes anything: a connection that is away comes back.
                Some(_) => {}
            }
        }
    }

    /// Waits for the collector, but not when everything is to be over now.
    async fn give(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Closed> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.sink.take(stream, bytes) => Ok(()),
            _ = stop.wait_for(|stop| *stop == Stop::Now) => Err(Closed),
        }
    }
}

/// How a session was followed.
struct Followed {
    exit_status: Option<i32>,
    end: Result<End, String>,
    must_terminate: bool,
}

impl Followed {
    fn cut(exit_status: Option<i32>, reason: &str) -> Self {
        Self {
            exit_status,
            end: Err(reason.to_owned()),
            must_terminate: true,
        }
    }

    fn to_the_end(exit_status: Option<i32>, end: End) -> Self {
        let must_terminate = matches!(end, End::Left | End::Lost { .. } | End::Refused { .. });
        Self {
            exit_status,
            end: Ok(end),
            must_terminate,
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(exit_status: Option<u8>, error: Option<&str>) -> Option<Report> {
        let mut stdout = Capture::default();
        stdout.push(b"a\xffb\n");
        Some(Report {
            exit_status,
            error: error.map(str::to_owned),
            took: Duration::from_millis(1500),
            stdout,
            stderr: Capture::default(),
        })
    }

    fn node(id: &str, label: &str) -> Chosen {
        Chosen {
            id: id.to_owned(),
            name: label.to_owned(),
            label: label.to_owned(),
        }
    }

    #[test]
    fn the_summary_names_the_failures_alone_and_the_highest_status_counts() {
        let nodes = [
            node("mi-1", "web"),
            node("mi-2", "mi-2"),
            node("mi-3", "db"),
        ];
        let reports = [
            report(Some(0), None),
            report(Some(3), None),
            report(None, Some("offline")),
        ];
        assert_eq!(
            summary(&nodes, &reports),
            [
                "sortie: 2 of 3 nodes failed:",
                "  mi-2: exit status 3",
                "  db (mi-3): offline"
            ]
        );
        assert_eq!(highest(&reports), 255);
        assert_eq!(highest(&reports[..2]), 3);
        assert_eq!(highest(&reports[..1]), 0);
        assert_eq!(highest(&[None]), 255);
        assert!(summary(&nodes[..1], &reports[..1]).is_empty());
    }

    #[test]
    fn a_report_is_one_line_of_json() {
        let line = report(Some(3), None).unwrap().to_json(&node("mi-1", "web"));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["node_id"], "mi-1");
        assert_eq!(value["status"], "failed");
        assert_eq!(value["exit_status"], 3);
        assert_eq!(value["stdout"], "a\u{fffd}b\n");
        assert_eq!(value["duration_ms"], 1500);
        assert_eq!(value["error"], serde_json::Value::Null);
    }
}
