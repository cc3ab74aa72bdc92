//! One session of `sortie forward`: accepts or dials local connections, joins them with streams of the
//! session, and reports what a person should know. What is printed is the caller's.

use std::{collections::BTreeSet, io};

use sortie_channel::streams::{Destination, Refusal, RefusalCode};
use sortie_client::{
    Api, PortSession,
    data_channel::End,
    ports::{Begun, Carrier, Event, IncomingStream, SpliceError},
};
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc,
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    local::{Listener, Local},
    spec::Place,
};
use crate::{output, socks, start};

/// How long a SOCKS client may take to say where it wants to go.
const SOCKS_TIMEOUT: Duration = Duration::from_secs(30);

/// Different causes that are remembered as told.
const MOST_CAUSES: usize = 256;

/// What a session is for.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Local connections go to the session's destination, called so.
    Local(String),
    /// Connections that are made at the node go to this place here.
    Reverse(Place),
    /// Each local connection says where it goes.
    Socks,
}

/// What a person or a script is told of.
#[derive(Debug)]
pub(super) enum Report {
    Away,
    Back,
    /// The tunnel of this number can be used.
    Began(usize, Begun),
    Remark(String),
}

/// A session and what belongs to it.
pub(super) struct Tunnel {
    pub(super) number: usize,
    pub(super) api: Api,
    pub(super) session_id: String,
    pub(super) session: PortSession,
    pub(super) kind: Kind,
    pub(super) listeners: Vec<Listener>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) stop: CancellationToken,
}

/// How one connection ended.
enum Done {
    Orderly,
    /// Where it went, and why that was not to be.
    Refused(String, String),
    /// A local destination could not be connected.
    NotDialled(String),
    /// Broke in the middle, as connections do.
    Broken(String),
}

/// A tunnel at work.
struct Work {
    tunnel: Tunnel,
    carrier: Option<Carrier>,
    accepted: mpsc::Receiver<Local>,
    acceptors: JoinSet<()>,
    connections: JoinSet<Done>,
    told: BTreeSet<String>,
}

enum Wake {
    Accepted(Local),
    Done(Done),
    Event(Option<Event>),
    Stop,
}

impl Tunnel {
    /// Runs until the session is over or `stop` is cancelled, and says how the session ended.
    pub(super) async fn run(self) -> End {
        let (_, accepted) = mpsc::channel(1);
        let mut work = Work {
            tunnel: self,
            carrier: None,
            accepted,
            acceptors: JoinSet::new(),
            connections: JoinSet::new(),
            told: BTreeSet::new(),
        };
        let end = work.run().await;
        work.acceptors.shutdown().await;
        work.connections.shutdown().await;
        if !matches!(end, End::Closed { .. } | End::TimedOut) {
            start::terminate(&work.tunnel.api, &work.tunnel.session_id).await;
        }
        end
    }
}

impl Work {
    async fn run(&mut self) -> End {
        let mut is_stopping = false;
        loop {
            // Before the node is there nothing is accepted, and of some agents one at a time.
            let accepts = match self.carrier {
                None => false,
                Some(Carrier::One) => self.connections.is_empty(),
                Some(Carrier::Streams | Carrier::Smux) => true,
            };
            let wake = tokio::select! {
                event = self.tunnel.session.next() => Wake::Event(event),
                Some(local) = self.accepted.recv(), if accepts => Wake::Accepted(local),
                Some(done) = self.connections.join_next() => {
                    Wake::Done(done.unwrap_or_else(|error| Done::Broken(error.to_string())))
                }
                () = self.tunnel.stop.cancelled(), if !is_stopping => Wake::Stop,
            };
            match wake {
                Wake::Event(None) => return End::Left,
                Wake::Event(Some(Event::Ended(end))) => return end,
                Wake::Event(Some(event)) => self.take(event).await,
                Wake::Accepted(local) => self.connect(local),
                Wake::Done(done) => self.settle(done).await,
                Wake::Stop => {
                    is_stopping = true;
                    self.tunnel.session.close();
                }
            }
        }
    }

    async fn report(&self, report: Report) {
        // Without a listener the program is about to end.
        let _ = self.tunnel.reports.send(report).await;
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Away { .. } => self.report(Report::Away).await,
            Event::Back => self.report(Report::Back).await,
            Event::Begun(begun) => {
                self.carrier = Some(begun.carrier);
                self.accept();
                self.report(Report::Began(self.tunnel.number, begun)).await;
            }
            Event::ConnectFailed => {
                let target = self.target();
                self.settle(Done::Refused(
                    target,
                    "the agent cannot connect to it".to_owned(),
                ))
                .await;
            }
            Event::Incoming(incoming) => self.dial(incoming),
            Event::Ended(_) => {}
        }
    }

    fn target(&self) -> String {
        match &self.tunnel.kind {
            Kind::Local(target) => target.clone(),
            Kind::Reverse(place) => place.to_string(),
            Kind::Socks => "the destination".to_owned(),
        }
    }

    /// Accepts at every listener, each with one connection that may wait.
    fn accept(&mut self) {
        let (sender, accepted) = mpsc::channel(1);
        self.accepted = accepted;
        for listener in std::mem::take(&mut self.tunnel.listeners) {
            let sender = sender.clone();
            self.acceptors
                .spawn(async move { while sender.send(listener.accept().await).await.is_ok() {} });
        }
    }

    /// Joins a local connection with a stream of its own.
    fn connect(&mut self, local: Local) {
        let connector = self.tunnel.session.connector();
        if matches!(self.tunnel.kind, Kind::Socks) {
            self.connections.spawn(serve_socks(local, connector));
            return;
        }
        let target = self.target();
        self.connections.spawn(async move {
            match connector.open_own() {
                Ok(stream) => done(target, local.splice(stream).await),
                Err(error) => {
                    local.break_off();
                    Done::Refused(target, error.to_string())
                }
            }
        });
    }

    /// Connects a stream that the node opened.
    fn dial(&mut self, incoming: IncomingStream) {
        let place = match &self.tunnel.kind {
            Kind::Reverse(place) => place.clone(),
            // Dropped, it is refused.
            Kind::Local(_) | Kind::Socks => return,
        };
        self.connections.spawn(async move {
            let target = place.to_string();
            match Local::connect(&place).await {
                Ok(local) => match incoming.accept() {
                    Some(stream) => done(target, local.splice(stream).await),
                    None => Done::Orderly,
                },
                Err(error) => {
                    incoming.refuse(Refusal {
                        code: refusal_code(&error),
                        message: error.to_string(),
                    });
                    Done::NotDialled(format!("cannot connect to {target}: {error}"))
                }
            }
        });
    }

    /// Tells of a cause once, until a connection to the same place succeeds.
    async fn settle(&mut self, done: Done) {
        let remark = match done {
            Done::Orderly => {
                // What failed before is news again when it comes back.
                if !matches!(self.tunnel.kind, Kind::Socks) {
                    self.told.clear();
                }
                return;
            }
            Done::Broken(reason) => {
                tracing::debug!(reason, "a connection broke");
                return;
            }
            Done::NotDialled(remark) => remark,
            Done::Refused(target, reason) => format!("{target}: {reason}"),
        };
        if self.told.len() >= MOST_CAUSES {
            self.told.clear();
        }
        if self.told.insert(remark.clone()) {
            self.report(Report::Remark(output::plain(&remark))).await;
        }
    }
}

fn done(target: String, spliced: Result<(), SpliceError>) -> Done {
    match spliced {
        Ok(()) => Done::Orderly,
        Err(error) => match refusal_of(&error) {
            Some(refusal) => Done::Refused(target, refusal.message.clone()),
            None => Done::Broken(error.to_string()),
        },
    }
}

/// The node's refusal that a splice ended with.
pub(crate) fn refusal_of(error: &SpliceError) -> Option<&Refusal> {
    match error {
        SpliceError::Stream(error) => error.get_ref()?.downcast_ref(),
        SpliceError::Local(_) => None,
    }
}

fn refusal_code(error: &io::Error) -> RefusalCode {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => RefusalCode::Refused,
        io::ErrorKind::PermissionDenied => RefusalCode::Forbidden,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            RefusalCode::Unreachable
        }
        _ => RefusalCode::Other,
    }
}

async fn serve_socks(mut local: Local, connector: sortie_client::ports::Connector) -> Done {
    let request = match timeout(SOCKS_TIMEOUT, socks::negotiate(&mut local)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return Done::Broken(format!("SOCKS: {error}")),
        Err(_) => return Done::Broken("SOCKS: no request in time".to_owned()),
    };
    let target = spoken(&request.destination);
    let opened = async {
        let mut stream = connector
            .open(request.destination)
            .map_err(|error| Refusal {
                code: RefusalCode::Limit,
                message: error.to_string(),
            })?;
        // What the client said early goes out behind the request.
        if !request.early.is_empty() && stream.write_all(&request.early).await.is_err() {
            tracing::debug!("the stream took nothing");
        }
        stream.connected().await.map(|()| stream)
    };
    let (answer, opened) = match opened.await {
        Ok(stream) => (socks::Reply::Succeeded, Ok(stream)),
        Err(refusal) => (socks::Reply::from(refusal.code), Err(refusal)),
    };
    let answered = socks::reply(&mut local, answer).await;
    match (opened, answered) {
        (Ok(stream), Ok(())) => done(target, local.splice(stream).await),
        (Ok(_), Err(error)) => Done::Broken(error.to_string()),
        (Err(refusal), _) => Done::Refused(target, refusal.message),
    }
}

fn spoken(destination: &Destination) -> String {
    let place = Place::Tcp {
        host: destination.host.clone(),
        port: destination.port.unwrap_or_default(),
    };
    place.to_string()
}
