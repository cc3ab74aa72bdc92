//! `sortie cp`: files to a node or from one. What reads, writes and verifies them is `sortie_copy`'s, on
//! a thread of its own; here are the session that carries it, and what a person or a script is told.

mod progress;
mod spec;

use std::{
    collections::BTreeMap, io, os::unix::net::UnixStream as Line, sync::Arc, time::Duration,
};

use sortie_client::{
    Api, PortSession, StartedSession,
    data_channel::{self, End},
    ports::{Event, SpliceError, splice},
};
use sortie_copy::{CopyError, Source, Stop, Target, Wishes};
use sortie_wire::shapes::ssm::StartSessionRequest;
use tokio::{net::UnixStream, time::Instant};

use self::{
    progress::Progress,
    spec::{Local, Plan, Remote},
};
use crate::{FAILURE, arguments::Cp, error::CommandError, nodes, output, shell::Signals, start};

const DOCUMENT: &str = "Sortie-CopyFile";
/// What an official agent lacks.
const NEED: &str = "copying of files (scp works there, see `sortie ssh-config`)";
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);
/// How long the node may take to end its side when everything is copied.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// What runs on a thread of its own.
type Work = Box<dyn FnOnce(&Line, &dyn sortie_copy::Watch, &Stop) -> Result<(), CopyError> + Send>;

pub(crate) async fn run(api: &Api, arguments: &Cp) -> Result<u8, CommandError> {
    let plan = Plan::of(&arguments.paths).map_err(CommandError::Usage)?;
    let progress = Arc::new(Progress::new(arguments));
    if plan.uses_stdout() && (arguments.json || arguments.checksum) {
        return Err(CommandError::Usage(
            "standard output takes the file; --json and --checksum have no place there".to_owned(),
        ));
    }
    let mut signals =
        Signals::new().map_err(|error| CommandError::io("wait for signals", error))?;
    let wishes = Wishes {
        recursive: arguments.recursive,
        preserve: arguments.preserve,
        into_directory: plan.needs_directory(),
        totals: progress.is_shown(),
    };
    let mut result = Ok(true);
    for (remote, direction, work) in works(plan, wishes) {
        let copy = Copy {
            api,
            progress: &progress,
            reason: arguments.reason.clone(),
        };
        result = match (
            result,
            copy.run(&remote, direction, work, &mut signals).await,
        ) {
            (Ok(before), Ok(Ended::Copied)) => Ok(before),
            (Ok(_), Ok(Ended::Failed(why))) => {
                progress.fail(&format!("{}: {}", remote.node, output::plain(&why)));
                Ok(false)
            }
            (Ok(_), Ok(Ended::Interrupted)) => {
                progress.fail("interrupted; the same command goes on from here");
                Ok(false)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if result.is_err() || progress.is_interrupted() {
            break;
        }
    }
    let is_whole = progress.finish(result.as_ref().is_ok_and(|is_whole| *is_whole))?;
    result.map(|_| if is_whole { 0 } else { FAILURE })
}

/// The sessions that the plan takes, and what is done in each.
fn works(plan: Plan, wishes: Wishes) -> Vec<(Remote, &'static str, Work)> {
    // Nothing else is made while it is looked up.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    let umask = mask.as_raw_mode();
    match plan {
        Plan::Upload { from, to } => {
            let work: Work = Box::new(move |line, watch, stop| {
                let source = match from {
                    Local::Paths(paths) => Source::Paths(paths),
                    Local::Standard => Source::Reader(Box::new(io::stdin())),
                };
                sortie_copy::send(line, source, wishes, watch, stop)
            });
            vec![(to, "upload", work)]
        }
        Plan::Download { from, to } => from
            .into_iter()
            .map(|remote| {
                let to = to.clone();
                let work: Work = Box::new(move |line, watch, stop| {
                    let target = match to {
                        Some(path) => Target::Path(path),
                        None => Target::Writer(Box::new(io::stdout())),
                    };
                    sortie_copy::receive(line, target, wishes, umask, watch, stop)
                });
                (remote, "download", work)
            })
            .collect(),
    }
}

/// How a session of copying ended.
enum Ended {
    /// Everything was settled; single files may have failed.
    Copied,
    Failed(String),
    Interrupted,
}

struct Copy<'a> {
    api: &'a Api,
    progress: &'a Arc<Progress>,
    reason: Option<String>,
}

impl Copy<'_> {
    async fn run(
        &self,
        remote: &Remote,
        direction: &str,
        work: Work,
        signals: &mut Signals,
    ) -> Result<Ended, CommandError> {
        let started = tokio::select! {
            started = self.start(remote, direction) => started?,
            _ = signals.next_ending() => {
                self.progress.interrupt();
                return Ok(Ended::Interrupted);
            }
        };
        let session_id = started.session_id.clone();
        self.progress.begin_session(&remote.node, &session_id);
        let options = data_channel::Options::default();
        let session = PortSession::open(started, self.api.clone(), self.api.tls(), options);
        let mut carried = Carried {
            session,
            progress: self.progress,
            ended: None,
        };
        let ended = carried.run(work, signals).await;
        if !matches!(
            carried.close().await,
            Some(End::Closed { .. } | End::TimedOut)
        ) {
            start::terminate(self.api, &session_id).await;
        }
        ended.map_err(|error| CommandError::io("copy", error))
    }

    async fn start(
        &self,
        remote: &Remote,
        direction: &str,
    ) -> Result<StartedSession, CommandError> {
        let target = nodes::resolve(self.api, &remote.node).await?;
        nodes::require_our_agent(self.api, &target, &[NEED]).await?;
        let parameters: BTreeMap<_, _> = [("path", remote.path.as_str()), ("direction", direction)]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
            .collect();
        let request = StartSessionRequest {
            target,
            document_name: Some(DOCUMENT.to_owned()),
            parameters: Some(parameters),
            reason: self.reason.clone(),
        };
        start::open(self.api, &request).await
    }
}

/// A session that carries a copy.
struct Carried<'a> {
    session: PortSession,
    progress: &'a Arc<Progress>,
    ended: Option<End>,
}

impl Carried<'_> {
    async fn run(&mut self, work: Work, signals: &mut Signals) -> io::Result<Ended> {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let event = tokio::select! {
                event = self.session.next() => event,
                _ = ticks.tick() => {
                    self.progress.show();
                    continue;
                }
                _ = signals.next_ending() => return Ok(self.interrupted()),
            };
            match event {
                Some(Event::Begun(_)) => break,
                other => self.take(other),
            }
            if let Some(end) = &self.ended {
                return Ok(Ended::Failed(failure(end)));
            }
        }
        match self.session.connector().open_own() {
            Ok(stream) => self.carry(stream, work, signals).await,
            Err(error) => Ok(Ended::Failed(error.to_string())),
        }
    }

    async fn carry(
        &mut self,
        stream: sortie_client::ports::PortStream,
        work: Work,
        signals: &mut Signals,
    ) -> io::Result<Ended> {
        let (here, there) = Line::pair()?;
        here.set_nonblocking(true)?;
        let mut spliced = Some(Box::pin(splice(stream, UnixStream::from_std(here)?)));
        let stop = Stop::default();
        let (watch, stopped) = (Arc::clone(self.progress), stop.clone());
        let mut working =
            tokio::task::spawn_blocking(move || work(&there, watch.as_ref(), &stopped));
        let mut ticks = tokio::time::interval(TICK);
        let mut broken = None;
        let worked = loop {
            tokio::select! {
                worked = &mut working => break worked,
                result = async {
                    match spliced.as_mut() {
                        Some(spliced) => spliced.await,
                        None => std::future::pending().await,
                    }
                } => {
                    // The work hears of it by its own end of the line.
                    spliced = None;
                    broken = result.err();
                }
                event = self.session.next(), if self.ended.is_none() => self.take(event),
                _ = ticks.tick() => self.progress.show(),
                _ = signals.next_ending() => {
                    stop.set();
                    return Ok(self.interrupted());
                }
            }
        };
        if let Some(spliced) = spliced {
            // What is said last still goes.
            let _ = tokio::time::timeout(END_TIMEOUT, spliced).await;
        }
        Ok(match worked {
            Err(error) => Ended::Failed(error.to_string()),
            Ok(Ok(())) => Ended::Copied,
            Ok(Err(error @ (CopyError::Left | CopyError::Line(_)))) => {
                let said = self.why(broken);
                Ended::Failed(said.unwrap_or_else(|| error.to_string()))
            }
            Ok(Err(error)) => Ended::Failed(error.to_string()),
        })
    }

    /// Why the stream is over. A refusal stands, though the session ends with it.
    fn why(&self, broken: Option<SpliceError>) -> Option<String> {
        let is_refused = matches!(
            &broken,
            Some(SpliceError::Stream(error)) if error.kind() == io::ErrorKind::ConnectionRefused
        );
        match &self.ended {
            Some(end) if !is_refused => Some(failure(end)),
            _ => broken.map(broken_by),
        }
    }

    fn interrupted(&self) -> Ended {
        self.progress.interrupt();
        Ended::Interrupted
    }

    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Away { .. }) => self.progress.set_away(Some(Instant::now())),
            Some(Event::Back) => self.progress.set_away(None),
            Some(Event::Ended(end)) => self.ended = Some(end),
            None => self.ended = Some(End::Left),
            Some(_) => {}
        }
    }

    /// Ends the session, and says how that went.
    async fn close(mut self) -> Option<End> {
        self.session.close();
        let ended = async {
            while self.ended.is_none() {
                let event = self.session.next().await;
                self.take(event);
            }
        };
        let _ = tokio::time::timeout(END_TIMEOUT, ended).await;
        self.ended
    }
}

fn broken_by(error: SpliceError) -> String {
    match error {
        SpliceError::Local(error) | SpliceError::Stream(error) => error.to_string(),
    }
}

/// Why a session is over whose files are not copied.
fn failure(end: &End) -> String {
    match end {
        End::Closed { output } if output.is_empty() => "the session was ended".to_owned(),
        End::Closed { output } => output.clone(),
        End::Left => "the session was left".to_owned(),
        End::Lost { reason } | End::Refused { reason } => reason.clone(),
        End::TimedOut => "the session ended while the connection was away".to_owned(),
    }
}
