//! `sortie forward`: connections through a node, in either direction. One session for each destination;
//! what a person or a script is told is here, what moves bytes is in `tunnel`.

pub(crate) mod local;
pub(crate) mod spec;
pub(crate) mod tunnel;

use std::{collections::BTreeMap, io::IsTerminal, path::Path, time::Duration};

use serde_json::json;
use sortie_client::{
    Api, PortSession,
    data_channel::{self, End},
    ports::{Begun, Carrier},
};
use sortie_wire::shapes::ssm::StartSessionRequest;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    local::Listener,
    spec::{Place, Spec},
    tunnel::{Kind, Report, Tunnel},
};
use crate::{
    FAILURE,
    arguments::Forward,
    error::CommandError,
    nodes, output,
    shell::{Signals, away},
    start,
};

/// Reports that wait to be printed.
const REPORT_QUEUE: usize = 16;

/// How long all sessions together may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);

/// A session that is to be: what it is for and where it listens here.
struct Plan {
    request: StartSessionRequest,
    kind: Kind,
    /// What goes through it, in words.
    to: String,
    listeners: Vec<Listener>,
}

/// One line of what is forwarded.
struct Line {
    tunnel: usize,
    listen: String,
    to: String,
    session_id: String,
    is_reverse: bool,
}

pub(crate) async fn run(api: &Api, arguments: &Forward) -> Result<u8, CommandError> {
    let node_id = nodes::resolve(api, &arguments.node).await?;
    // What cannot be listened at is known before anything starts.
    let plans = plans(arguments, &node_id).await?;
    nodes::require_our_agent(api, &node_id, &needs(arguments)).await?;
    let mut desk = Desk::new(arguments, &node_id)?;
    let stop = CancellationToken::new();
    let mut tunnels = JoinSet::new();
    for (number, plan) in plans.into_iter().enumerate() {
        let started = tokio::select! {
            started = start::open(api, &plan.request) => started.map(Some),
            _ = desk.signals.next_ending() => Ok(None),
        };
        let session = match started {
            Ok(Some(session)) => session,
            Ok(None) => {
                end_all(&stop, &mut tunnels).await;
                return Ok(0);
            }
            Err(error) => {
                end_all(&stop, &mut tunnels).await;
                return Err(error);
            }
        };
        desk.expect(number, &plan, &session.session_id);
        let session_id = session.session_id.clone();
        let options = data_channel::Options::default();
        let tunnel = Tunnel {
            number,
            api: api.clone(),
            session_id: session_id.clone(),
            session: PortSession::open(session, api.clone(), api.tls(), options),
            kind: plan.kind,
            listeners: plan.listeners,
            reports: desk.sender.clone(),
            stop: stop.clone(),
        };
        tunnels.spawn(async move { (session_id, tunnel.run().await) });
    }
    let status = desk.serve(&mut tunnels).await?;
    end_all(&stop, &mut tunnels).await;
    Ok(status)
}

/// Ends every session and waits for that, within bounds.
async fn end_all(stop: &CancellationToken, tunnels: &mut JoinSet<(String, End)>) {
    stop.cancel();
    let ended = async { while tunnels.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
        tracing::debug!("a session did not end in time");
    }
}

// ---- what is to be forwarded ----

async fn plans(arguments: &Forward, node_id: &str) -> Result<Vec<Plan>, CommandError> {
    if arguments.spec.is_empty() && arguments.socks.is_empty() && arguments.reverse.is_empty() {
        return Err(CommandError::Usage(
            "say what to forward, such as 5432, 8080:80, -D 1080 or -R 9000:localhost:3000"
                .to_owned(),
        ));
    }
    let bind = arguments.bind.as_deref().unwrap_or("127.0.0.1");
    let mut plans = Vec::new();
    for (target, places) in by_target(&arguments.spec) {
        let listeners = listen(&places, bind).await?;
        let port = listeners.iter().find_map(Listener::port);
        let (document, parameters) = local_document(target, port)?;
        let to = spoken(target, &arguments.node);
        plans.push(Plan {
            request: request(arguments, node_id, document, parameters),
            kind: Kind::Local(to.clone()),
            to,
            listeners,
        });
    }
    if !arguments.socks.is_empty() {
        let places: Vec<&Place> = arguments.socks.iter().collect();
        plans.push(Plan {
            request: request(
                arguments,
                node_id,
                "Sortie-StartSocksSession",
                BTreeMap::new(),
            ),
            kind: Kind::Socks,
            to: format!("where SOCKS clients want to go through {}", arguments.node),
            listeners: listen(&places, bind).await?,
        });
    }
    for spec in &arguments.reverse {
        plans.push(Plan {
            request: request(
                arguments,
                node_id,
                "Sortie-StartReverseForwardingSession",
                reverse_parameters(&spec.listen)?,
            ),
            kind: Kind::Reverse(spec.target.clone()),
            to: spoken_here(&spec.target),
            listeners: Vec::new(),
        });
    }
    Ok(plans)
}

/// The places to listen at for each destination, in the order given.
fn by_target(specs: &[Spec]) -> Vec<(&Place, Vec<&Place>)> {
    let mut targets: Vec<(&Place, Vec<&Place>)> = Vec::new();
    for spec in specs {
        match targets
            .iter_mut()
            .find(|(target, _)| **target == spec.target)
        {
            Some((_, places)) => places.push(&spec.listen),
            None => targets.push((&spec.target, vec![&spec.listen])),
        }
    }
    targets
}

async fn listen(places: &[&Place], bind: &str) -> Result<Vec<Listener>, CommandError> {
    let mut listeners = Vec::with_capacity(places.len());
    for place in places {
        let listener = Listener::open(place, bind)
            .await
            .map_err(|error| CommandError::io(format!("listen at {place}"), error))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

type Parameters = BTreeMap<String, Vec<String>>;

fn parameters<const N: usize>(pairs: [(&str, String); N]) -> Parameters {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), vec![value]))
        .collect()
}

fn local_document(
    target: &Place,
    port: Option<u16>,
) -> Result<(&'static str, Parameters), CommandError> {
    let local = ("localPortNumber", port.unwrap_or(0).to_string());
    Ok(match target {
        Place::Tcp { host: None, port } => (
            "AWS-StartPortForwardingSession",
            parameters([("portNumber", port.to_string()), local]),
        ),
        Place::Tcp {
            host: Some(host),
            port,
        } => (
            "AWS-StartPortForwardingSessionToRemoteHost",
            parameters([
                ("host", host.clone()),
                ("portNumber", port.to_string()),
                local,
            ]),
        ),
        Place::Unix(path) => (
            "AWS-StartPortForwardingSessionToSocket",
            parameters([("socket", path_text(path)?), local]),
        ),
    })
}

fn reverse_parameters(listen: &Place) -> Result<Parameters, CommandError> {
    Ok(match listen {
        Place::Tcp { host: None, port } => parameters([("portNumber", port.to_string())]),
        Place::Tcp {
            host: Some(host),
            port,
        } => parameters([
            ("bindAddress", host.clone()),
            ("portNumber", port.to_string()),
        ]),
        Place::Unix(path) => parameters([("socket", path_text(path)?)]),
    })
}

/// A path on the node, which has another working directory.
fn path_text(path: &Path) -> Result<String, CommandError> {
    match path.to_str() {
        Some(text) if path.is_absolute() => Ok(text.to_owned()),
        _ => Err(CommandError::Usage(format!(
            "{} has to be an absolute path, as it is one of the node",
            path.display()
        ))),
    }
}

fn request(
    arguments: &Forward,
    node_id: &str,
    document: &str,
    parameters: Parameters,
) -> StartSessionRequest {
    StartSessionRequest {
        target: node_id.to_owned(),
        document_name: Some(document.to_owned()),
        parameters: (!parameters.is_empty()).then_some(parameters),
        reason: arguments.reason.clone(),
    }
}

/// What official agents cannot do.
fn needs(arguments: &Forward) -> Vec<&'static str> {
    let has_socket = arguments
        .spec
        .iter()
        .any(|spec| matches!(spec.target, Place::Unix(_)));
    [
        (!arguments.socks.is_empty(), "SOCKS (-D)"),
        (!arguments.reverse.is_empty(), "reverse forwarding (-R)"),
        (has_socket, "forwarding to a unix socket"),
    ]
    .into_iter()
    .filter_map(|(is_wanted, what)| is_wanted.then_some(what))
    .collect()
}

fn spoken(target: &Place, node: &str) -> String {
    match target {
        Place::Tcp { host: None, .. } | Place::Unix(_) => format!("{target} of {node}"),
        Place::Tcp { host: Some(_), .. } => format!("{target} through {node}"),
    }
}

fn spoken_here(target: &Place) -> String {
    match target {
        Place::Tcp { host: None, .. } => format!("{target} of this machine"),
        _ => format!("{target} from this machine"),
    }
}

// ---- what is told ----

/// Prints, and waits for the person.
struct Desk {
    node: String,
    node_id: String,
    json: bool,
    sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    signals: Signals,
    lines: Vec<Line>,
    /// Tunnels that have not begun.
    missing: usize,
    has_noted: bool,
    away: usize,
    away_since: Option<Instant>,
    remark_at: Option<Instant>,
    has_remarked: bool,
}

enum Wake {
    Report(Option<Report>),
    Ended(String, End),
    Signal,
    Remark,
}

impl Desk {
    fn new(arguments: &Forward, node_id: &str) -> Result<Self, CommandError> {
        let (sender, reports) = mpsc::channel(REPORT_QUEUE);
        Ok(Self {
            node: arguments.node.clone(),
            node_id: node_id.to_owned(),
            json: arguments.json,
            sender,
            reports,
            signals: Signals::new().map_err(|error| CommandError::io("wait for signals", error))?,
            lines: Vec::new(),
            missing: 0,
            has_noted: false,
            away: 0,
            away_since: None,
            remark_at: None,
            has_remarked: false,
        })
    }

    /// Remembers what to print of a tunnel once it has begun.
    fn expect(&mut self, tunnel: usize, plan: &Plan, session_id: &str) {
        self.missing += 1;
        let line = |listen: String, is_reverse: bool| Line {
            tunnel,
            listen,
            to: plan.to.clone(),
            session_id: session_id.to_owned(),
            is_reverse,
        };
        if matches!(plan.kind, Kind::Reverse(_)) {
            self.lines.push(line(String::new(), true));
        }
        for listener in &plan.listeners {
            self.lines.push(line(listener.address(), false));
        }
    }

    /// Prints what there is to print until the person or a session ends it all.
    async fn serve(&mut self, tunnels: &mut JoinSet<(String, End)>) -> Result<u8, CommandError> {
        self.remark_at = Some(Instant::now() + away::QUIET);
        loop {
            let remark_at = self.remark_at.unwrap_or_else(Instant::now);
            let wake = tokio::select! {
                report = self.reports.recv() => Wake::Report(report),
                Some(ended) = tunnels.join_next() => match ended {
                    Ok((session_id, end)) => Wake::Ended(session_id, end),
                    Err(error) => return Err(CommandError::Usage(error.to_string())),
                },
                _ = self.signals.next_ending() => Wake::Signal,
                () = tokio::time::sleep_until(remark_at), if self.remark_at.is_some() => {
                    Wake::Remark
                }
            };
            match wake {
                Wake::Report(Some(report)) => self.take(report)?,
                Wake::Report(None) | Wake::Signal => return Ok(0),
                Wake::Ended(session_id, end) => {
                    while let Ok(report) = self.reports.try_recv() {
                        self.take(report)?;
                    }
                    return Ok(say_end(&session_id, &end));
                }
                Wake::Remark => self.remark(),
            }
        }
    }

    fn take(&mut self, report: Report) -> Result<(), CommandError> {
        match report {
            Report::Began(tunnel, begun) => self.began(tunnel, &begun)?,
            Report::Remark(text) => output::error_line(&format!("sortie: {text}")),
            Report::Away => {
                self.away += 1;
                if self.away == 1 {
                    let now = Instant::now();
                    self.away_since = Some(now);
                    self.remark_at = Some(now + away::QUIET);
                }
            }
            Report::Back => {
                self.away = self.away.saturating_sub(1);
                if self.away == 0 {
                    self.remark_at = None;
                    if let Some(since) = self.away_since.take()
                        && std::mem::take(&mut self.has_remarked)
                    {
                        output::error(&away::farewell(since.elapsed()));
                    }
                }
            }
        }
        Ok(())
    }

    fn began(&mut self, tunnel: usize, begun: &Begun) -> Result<(), CommandError> {
        self.missing = self.missing.saturating_sub(1);
        if !begun.customer_message.is_empty() {
            output::error_line(&output::plain(&begun.customer_message));
        }
        self.note(begun.carrier);
        for line in &mut self.lines {
            if line.tunnel == tunnel && line.is_reverse {
                line.listen = output::plain(&node_address(begun));
            }
        }
        if self.missing > 0 {
            return Ok(());
        }
        if self.away == 0 {
            self.remark_at = None;
        }
        for line in &self.lines {
            self.announce(line)?;
        }
        if !self.json {
            output::error_line("Ready. Ctrl-C ends it.");
        }
        Ok(())
    }

    fn announce(&self, line: &Line) -> Result<(), CommandError> {
        if self.json {
            let at = if line.is_reverse { "node" } else { "local" };
            let line = json!({
                "listen": line.listen,
                "at": at,
                "target": line.to,
                "node_id": self.node_id,
                "session_id": line.session_id,
            });
            return output::print(&format!("{line}\n"));
        }
        let listen = if line.is_reverse {
            format!("{} of {}", line.listen, self.node)
        } else {
            line.listen.clone()
        };
        output::error_line(&format!("Forwarding {listen} to {}", line.to));
        Ok(())
    }

    /// Says once what the other end cannot do.
    fn note(&mut self, carrier: Carrier) {
        let text = match carrier {
            Carrier::Streams => return,
            Carrier::Smux => {
                "the node's agent cannot end one direction of a connection alone: when a program \
                 says that it has sent everything, its connection ends after a second of silence"
            }
            Carrier::One => {
                "the node's agent is so old that there is one connection at a time, and it is not \
                 told when the far end closes it"
            }
        };
        if !std::mem::replace(&mut self.has_noted, true) {
            output::error_line(&format!("Note: {text}."));
        }
    }

    /// Says what is being waited for, to a person only.
    fn remark(&mut self) {
        self.remark_at = None;
        if !std::io::stderr().is_terminal() {
            return;
        }
        if let Some(since) = self.away_since {
            let renewed = std::mem::replace(&mut self.has_remarked, true);
            output::error(&away::notice(since.elapsed(), renewed, "Ctrl-C ends it"));
            self.remark_at = Some(Instant::now() + away::RENEWAL);
        } else if self.missing > 0 {
            output::error_line(&format!("waiting for node {} …", self.node));
        }
    }
}

/// Where the node listens for connections.
fn node_address(begun: &Begun) -> String {
    match begun.property("socket") {
        Some(socket) => socket.to_owned(),
        None => {
            let host = begun.property("bindAddress").unwrap_or("localhost");
            let port = begun.property("portNumber").unwrap_or_default();
            format!("{host}:{port}")
        }
    }
}

/// Says why a session ended by itself, which is a failure of the forwarding.
fn say_end(session_id: &str, end: &End) -> u8 {
    let why = match end {
        End::Closed { output } if output.is_empty() => "was ended".to_owned(),
        End::Closed { output } => format!("was ended: {}", output::plain(output)),
        End::Lost { reason } => format!("was lost: {}", output::plain(reason)),
        End::Refused { reason } => format!("could not be joined: {}", output::plain(reason)),
        End::TimedOut => "ended while the connection was away".to_owned(),
        End::Left => "was left".to_owned(),
    };
    output::error_line(&format!("sortie: session {session_id} {why}"));
    FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_share_a_session_and_have_their_documents() {
        let specs: Vec<Spec> = ["80", "8080:80", "5432:db:5432", "81:/run/app.sock"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let documents: Vec<_> = by_target(&specs)
            .into_iter()
            .map(|(target, places)| {
                let (document, parameters) = local_document(target, Some(7)).unwrap();
                let parameters: Vec<String> = parameters
                    .into_iter()
                    .map(|(name, values)| format!("{name}={}", values.join(",")))
                    .collect();
                (places.len(), document, parameters.join(" "))
            })
            .collect();
        assert_eq!(
            documents,
            [
                (
                    2,
                    "AWS-StartPortForwardingSession",
                    "localPortNumber=7 portNumber=80".to_owned()
                ),
                (
                    1,
                    "AWS-StartPortForwardingSessionToRemoteHost",
                    "host=db localPortNumber=7 portNumber=5432".to_owned()
                ),
                (
                    1,
                    "AWS-StartPortForwardingSessionToSocket",
                    "localPortNumber=7 socket=/run/app.sock".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_path_of_the_node_is_absolute() {
        assert!(local_document(&"./a.sock".parse().unwrap(), None).is_err());
        assert!(reverse_parameters(&"./a.sock".parse().unwrap()).is_err());
    }
}
