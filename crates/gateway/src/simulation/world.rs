//! One run: two ends, an agent and a server on one clock, what befalls them, and when it has to be over.

use std::time::Duration;

use sortie_channel::streams;
use sortie_control::{Side, StreamDestination, StreamEnd};

use super::{
    agent::{Agent, Order},
    dice::{Dice, Trace},
    net::{Cut, Net, Purpose},
    official::OfficialEnd,
    ours::{OurEnd, Over},
    port::Port,
    server::{Context, Disk, Server},
    talk::{Speech, Transcript},
};
use crate::Options;

/// Simulated time in which a session has to be over once nothing happens to it any more. The longest
/// wait within it is for a half-open socket to be found out by an end that has nothing to say.
const PATIENCE: Duration = Duration::from_secs(150);
/// The longest outage that an official end is asked to survive: it tries for about three seconds.
const OFFICIAL_OUTAGE: u64 = 1500;

/// Whose ends meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) client_ours: bool,
    pub(super) node_ours: bool,
}

impl Pair {
    pub(super) const ALL: [Self; 4] = [
        Self::new(true, true),
        Self::new(true, false),
        Self::new(false, true),
        Self::new(false, false),
    ];

    const fn new(client_ours: bool, node_ours: bool) -> Self {
        Self {
            client_ours,
            node_ours,
        }
    }

    /// The pair that a seed is about.
    pub(super) fn of(seed: u64) -> Self {
        Self::ALL[usize::try_from(seed % 4).unwrap_or(0)]
    }

    fn is_ours(self, side: Side) -> bool {
        match side {
            Side::Client => self.client_ours,
            Side::Node => self.node_ours,
        }
    }

    fn both_official(self) -> bool {
        !self.client_ours && !self.node_ours
    }

    fn both_ours(self) -> bool {
        self.client_ours && self.node_ours
    }
}

/// How the session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// The shell exits, not before then, after everything that was typed.
    Exit { from: Duration },
    /// Somebody ends the session.
    Terminated { at: Duration },
    /// Nobody says anything any more, for the idle limit.
    Silence,
}

/// What an end has to know of a run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    pair: Pair,
    /// The talk goes through streams.
    has_streams: bool,
    /// Until when there is something to say.
    until: Duration,
    idle: Duration,
}

/// Either kind of end.
enum Peer {
    Ours(Box<OurEnd>),
    Official(Box<OfficialEnd>),
}

impl Peer {
    fn new(side: Side, plan: Plan, cx: &mut Context<'_>) -> Self {
        let speech = Speech::new(plan.until, cx.dice);
        if plan.pair.is_ours(side) {
            let end = match side {
                Side::Client => streams::Side::Client,
                Side::Node => streams::Side::Node,
            };
            let port = plan
                .has_streams
                .then(|| Port::new(end, plan.until, cx.dice));
            Self::Ours(Box::new(OurEnd::new(side, plan.idle, speech, port, cx)))
        } else {
            Self::Official(Box::new(OfficialEnd::new(side, speech, cx)))
        }
    }

    fn poll(
        &mut self,
        is_living: bool,
        says: &mut Transcript,
        hears: &mut Transcript,
        cx: &mut Context<'_>,
    ) -> bool {
        match self {
            Self::Ours(end) => end.poll(says, hears, cx),
            Self::Official(end) => end.poll(is_living, says, hears, cx),
        }
    }

    fn over(&self) -> Option<&Over> {
        match self {
            Self::Ours(end) => end.over.as_ref(),
            Self::Official(end) => end.over.as_ref(),
        }
    }

    fn is_attached(&self) -> bool {
        match self {
            Self::Ours(end) => end.is_attached(),
            Self::Official(end) => end.is_attached(),
        }
    }

    fn stall(&mut self, until: Duration) {
        match self {
            Self::Ours(end) => end.stalled_until = until,
            Self::Official(end) => end.stalled_until = until,
        }
    }

    fn sleep(&mut self, until: Duration) {
        match self {
            Self::Ours(end) => end.asleep_until = until,
            Self::Official(end) => end.stalled_until = until,
        }
    }

    fn exit(&mut self, now: Duration) {
        match self {
            Self::Ours(end) => end.exit(),
            Self::Official(end) => end.exit(now),
        }
    }

    fn cancel(&mut self) {
        match self {
            Self::Ours(end) => end.cancel(),
            Self::Official(end) => end.cancel(),
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let next = |deadlines: &mut dyn Iterator<Item = Duration>| {
            deadlines.filter(|deadline| *deadline > now).min()
        };
        match self {
            Self::Ours(end) => next(&mut end.deadlines()),
            Self::Official(end) => next(&mut end.deadlines()),
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) simulated: Duration,
    pub(super) faults: u64,
    pub(super) bytes: usize,
    pub(super) trace: u64,
}

/// One session and everything around it.
pub(super) struct World {
    pair: Pair,
    story: Story,
    now: Duration,
    dice: Dice,
    trace: Trace,
    net: Net,
    disk: Disk,
    options: Options,
    server: Option<Server>,
    server_back_at: Option<Duration>,
    agent: Agent,
    client: Peer,
    /// The worker, once there is one.
    node: Option<Peer>,
    plan: Plan,
    /// How often the server was started.
    lives: u64,
    /// Input, output.
    up: Transcript,
    down: Transcript,
    next_fault: Duration,
    faults_until: Duration,
    /// When the effects of all faults so far are over.
    calm_at: Duration,
    faults: u64,
    /// Both ends have been there at one time. Before that, a start has only seconds.
    has_begun: bool,
    was_terminated: bool,
    nudge_at: Duration,
}

impl World {
    pub(super) fn new(seed: u64, is_shown: bool) -> Self {
        let mut dice = Dice::new(seed);
        let pair = Pair::of(seed);
        let faults_until = dice.millis(10_000, if pair.both_official() { 90_000 } else { 70_000 });
        let story = story(pair, faults_until, &mut dice);
        let talk_until = match story {
            Story::Exit { from } => from,
            Story::Silence => faults_until / 2,
            Story::Terminated { .. } => faults_until,
        };
        let idle = match story {
            Story::Silence => dice.between(20, 60),
            _ => 1200,
        };
        let mut net = Net::new(
            [0; 3].map(|_| latency(&mut dice)),
            1 << dice.between(13, 17),
        );
        let mut trace = Trace::new(is_shown);
        let mut cx = Context {
            now: Duration::ZERO,
            net: &mut net,
            dice: &mut dice,
            trace: &mut trace,
        };
        let idle_limit = Duration::from_secs(idle);
        let plan = Plan {
            pair,
            has_streams: pair.both_ours() && cx.dice.one_in(2),
            until: talk_until,
            idle: idle_limit,
        };
        let client = Peer::new(Side::Client, plan, &mut cx);
        let idle = i64::try_from(idle).unwrap_or(1200);
        let disk = Disk::new(idle, plan.has_streams, cx.wall());
        let options = Options {
            pause_above: 8 * 1024,
            resume_below: 2 * 1024,
            input_limit: 64 * 1024,
            output_limit: 4 << 20,
            ..Options::default()
        };
        Self {
            pair,
            story,
            now: Duration::ZERO,
            server: Some(Server::new(options.clone(), 0, Duration::ZERO)),
            lives: 0,
            plan,
            next_fault: dice.millis(0, 3000),
            trace,
            net,
            disk,
            options,
            server_back_at: None,
            agent: Agent::new(pair.node_ours),
            client,
            node: None,
            up: Transcript::default(),
            down: Transcript::default(),
            faults_until,
            calm_at: faults_until,
            faults: 0,
            has_begun: false,
            was_terminated: false,
            nudge_at: Duration::ZERO,
            dice,
        }
    }

    /// Runs until the session is over everywhere, and judges it.
    pub(super) fn run(mut self) -> Outcome {
        while !self.is_over() {
            self.befall();
            self.follow_the_story();
            self.settle();
            self.check_bounds();
            self.check_result();
            self.now = self.next_moment();
            assert!(
                self.now < self.calm_at + PATIENCE,
                "stuck at {:?}: {}",
                self.now,
                self.describe()
            );
        }
        self.judge();
        Outcome {
            simulated: self.now,
            faults: self.faults,
            bytes: self.up.heard() + self.down.heard(),
            trace: self.trace.hash(),
        }
    }

    fn describe(&self) -> String {
        format!(
            "{:?} {:?}, typed {}, row {:?} ({:?}), client over {:?} attached {}, node over {:?} attached {}, \
             input {}/{}, output {}/{}",
            self.pair,
            self.story,
            self.is_typed(),
            self.disk.row.state,
            self.disk.row.end_reason,
            self.client.over(),
            self.client.is_attached(),
            self.node.as_ref().map(Peer::over),
            self.node.as_ref().is_some_and(Peer::is_attached),
            self.up.heard(),
            self.up.spoken(),
            self.down.heard(),
            self.down.spoken(),
        )
    }

    fn is_over(&self) -> bool {
        let node_is_over = self.node.as_ref().is_none_or(|node| node.over().is_some());
        self.disk.row.state.is_over() && self.client.over().is_some() && node_is_over
    }

    /// Nothing may be lost, doubled or reordered ([`Transcript::hear`] sees to the rest).
    fn judge(&self) {
        let Story::Exit { .. } = self.story else {
            return;
        };
        let whole = self.up.is_heard() && self.down.is_heard();
        assert!(whole, "not everything arrived: {}", self.describe());
        let reason = self.disk.row.end_reason.as_deref();
        assert_eq!(
            reason,
            Some("The session ended on the node."),
            "{}",
            self.describe()
        );
        let Peer::Ours(client) = &self.client else {
            return;
        };
        assert_eq!(
            client.exit_status,
            self.pair.both_ours(),
            "the exit status: {}",
            self.describe()
        );
        if let Some(port) = &client.port {
            self.judge_records(port);
        }
    }

    /// Whatever was refused is recorded, and where no server died everything is, once.
    fn judge_records(&self, port: &Port) {
        let count = |host: &str, is_refused: bool| {
            let of = |record: &&sortie_control::StreamRecord| {
                let to = StreamDestination::new(Some(host), Some(80), None);
                let refused = matches!(record.end, StreamEnd::Refused(_));
                record.destination == to.map_err(|error| error.to_string()) && refused == is_refused
            };
            self.disk.streams.iter().filter(of).count()
        };
        assert_eq!(count("no", false), 0);
        assert_eq!(count("yes", true), 0);
        if self.lives > 0 {
            return;
        }
        assert_eq!(count("no", true), port.count("no"), "{}", self.describe());
        // And the talk itself.
        assert_eq!(count("yes", false), port.count("yes") + 1);
        assert_eq!(
            count("maybe", true) + count("maybe", false),
            port.count("maybe")
        );
        let bytes = |record: &&sortie_control::StreamRecord| record.end == StreamEnd::SessionEnded;
        let talk = self.disk.streams.iter().find(bytes).expect("the talk");
        assert_eq!(talk.bytes_to_node, self.up.heard() as u64);
        assert_eq!(talk.bytes_to_client, self.down.heard() as u64);
    }

    fn check_result(&self) {
        assert!(
            !self.agent.is_relieved() || self.disk.row.state.is_over(),
            "nobody has the result: {}",
            self.describe()
        );
    }

    fn check_bounds(&self) {
        let Some(server) = &self.server else { return };
        let output = server.waiting(Side::Client);
        assert!(
            output <= self.options.output_limit,
            "{output} bytes of output wait"
        );
        // What was written and has to go again comes on top of what is read up to the limit; neither
        // end sends more than a mebibyte ahead.
        let input = server.waiting(Side::Node);
        assert!(
            input <= self.options.input_limit + (2 << 20),
            "{input} bytes of input wait"
        );
    }

    /// Everything that can happen at this moment happens.
    fn settle(&mut self) {
        let mut rounds = 0;
        while self.poll() {
            rounds += 1;
            assert!(rounds < 20_000, "busy for ever: {}", self.describe());
        }
    }

    fn poll(&mut self) -> bool {
        let is_living = self.disk.is_living();
        let mut cx = Context {
            now: self.now,
            net: &mut self.net,
            dice: &mut self.dice,
            trace: &mut self.trace,
        };
        let mut moved = self
            .client
            .poll(is_living, &mut self.up, &mut self.down, &mut cx);
        let is_running = self.node.as_ref().is_some_and(|node| node.over().is_none());
        let (agent_moved, orders) = self.agent.poll(is_running, &mut cx);
        moved |= agent_moved;
        for order in orders {
            match order {
                Order::Start if self.node.is_none() => {
                    cx.trace.note(cx.now, "worker", 0);
                    self.node = Some(Peer::new(Side::Node, self.plan, &mut cx));
                }
                Order::Start => {}
                Order::End => {
                    if let Some(node) = &mut self.node {
                        node.cancel();
                    }
                }
            }
        }
        if let Some(node) = &mut self.node {
            moved |= node.poll(is_living, &mut self.down, &mut self.up, &mut cx);
            if node.over().is_some() {
                self.agent.finished(cx.now);
            }
        }
        if let Some(server) = &mut self.server {
            moved |= server.poll(&mut self.disk, &mut cx);
            self.has_begun |= server.are_both_attached();
        }
        moved
    }

    fn next_moment(&self) -> Duration {
        let now = self.now;
        let story = match self.story {
            Story::Exit { from } => from,
            Story::Terminated { at } => at,
            Story::Silence => Duration::ZERO,
        };
        let own = [
            Some(self.next_fault).filter(|at| *at < self.faults_until),
            self.server_back_at,
            Some(story),
            Some(self.nudge_at),
        ];
        let server = self.server.iter().flat_map(Server::deadlines);
        let peers = [Some(&self.client), self.node.as_ref()];
        let peers = peers
            .into_iter()
            .flatten()
            .filter_map(|peer| peer.next_deadline(now));
        let next = own
            .into_iter()
            .flatten()
            .chain(server)
            .chain(peers)
            .chain(self.agent.deadlines())
            .chain(self.net.next_event(now))
            .filter(|at| *at > now)
            .min();
        next.unwrap_or_else(|| panic!("nothing will ever happen: {}", self.describe()))
    }

    // The story.

    fn follow_the_story(&mut self) {
        match self.story {
            Story::Exit { from } if self.now >= from => self.exit(),
            Story::Terminated { at } if self.now >= at && !self.was_terminated => {
                self.was_terminated = true;
                self.disk.terminate("Ended by an administrator.");
                if let Some(server) = &mut self.server {
                    server.hint();
                }
            }
            _ => {}
        }
    }

    /// Whether the client has said all, and the shell has heard it.
    fn is_typed(&self) -> bool {
        let (speech, is_settled) = match &self.client {
            Peer::Ours(end) => (&end.speech, end.is_settled()),
            Peer::Official(end) => (&end.speech, true),
        };
        speech.is_over() && is_settled && self.up.is_heard()
    }

    fn exit(&mut self) {
        let is_typed = self.is_typed();
        let Some(node) = self.node.as_mut().filter(|_| is_typed) else {
            return;
        };
        // An official agent notices a lost acknowledgement only by what comes later, and gives its last
        // output four seconds.
        if let Peer::Official(agent) = node
            && !(agent.is_drained() && agent.is_attached() && self.now >= self.calm_at)
        {
            if self.now >= self.nudge_at {
                self.nudge_at = self.now + Duration::from_millis(500);
                if self.now >= self.calm_at {
                    agent.speech.add(9);
                }
            }
            return;
        }
        node.exit(self.now);
    }

    // What befalls them.

    fn befall(&mut self) {
        if self.server_back_at.is_some_and(|at| self.now >= at) {
            self.server_back_at = None;
            self.net.server_is_up = true;
            self.lives += 1;
            self.server = Some(Server::new(self.options.clone(), self.lives, self.now));
            self.trace.note(self.now, "server is back", 0);
        }
        if self.now < self.next_fault || self.now >= self.faults_until {
            return;
        }
        if !self.may_fail() {
            self.next_fault = self.now + self.dice.millis(200, 500);
            return;
        }
        self.faults += 1;
        let calm_at = self.fault();
        self.calm_at = self.calm_at.max(calm_at);
        self.next_fault = self.now + self.dice.millis(50, 6000);
    }

    /// Official ends are asked to survive one outage at a time, and to have begun.
    fn may_fail(&self) -> bool {
        let node_is_attached = self.node.as_ref().is_some_and(Peer::is_attached);
        let official_are_there = (self.pair.client_ours || self.client.is_attached())
            && (self.pair.node_ours || (node_is_attached && self.agent.is_online()));
        let is_met = self.pair.both_ours() || self.node.is_some();
        is_met && official_are_there && (self.pair.both_ours() || self.server.is_some())
    }

    /// One thing goes wrong. When its effects are over.
    fn fault(&mut self) -> Duration {
        let side = if self.dice.one_in(2) {
            Side::Client
        } else {
            Side::Node
        };
        let kind = self.dice.below(11);
        self.trace
            .note(self.now, &format!("fault on {side:?}"), kind);
        let purpose = match side {
            Side::Client => Purpose::ClientData,
            Side::Node => Purpose::NodeData,
        };
        let ours = self.pair.is_ours(side);
        match kind {
            0 => self.cut(purpose, Cut::Reset),
            1 => self.cut(purpose, Cut::Moved),
            2 => self.half_open(purpose, ours),
            3 => self.outage(purpose, ours),
            4 => {
                let kind = self.dice.below(3);
                match kind {
                    0 => self.cut(Purpose::Control, Cut::Reset),
                    1 => self.half_open(Purpose::Control, self.pair.node_ours),
                    _ => self.outage(Purpose::Control, self.pair.node_ours),
                }
            }
            5 | 6 => self.kill_server(),
            7 => self.restart_agent(),
            8 => self.sleep(side, ours),
            9 => {
                let until = self.now + self.dice.millis(10, 8000);
                self.peer(side, |peer| peer.stall(until));
                until
            }
            _ => {
                let until = self.now + self.dice.millis(1, 900);
                if let Some(server) = &mut self.server {
                    server.frozen_until = until;
                }
                until
            }
        }
    }

    fn peer(&mut self, side: Side, act: impl FnOnce(&mut Peer)) {
        match side {
            Side::Client => act(&mut self.client),
            Side::Node => {
                if let Some(node) = &mut self.node {
                    act(node);
                }
            }
        }
    }

    fn cut(&mut self, purpose: Purpose, how: Cut) -> Duration {
        for wire in self.net.wires_of(purpose) {
            self.net.cut(wire, how, self.now, &mut self.dice);
        }
        self.now + Duration::from_secs(8)
    }

    /// How long an outage is: what an official end can survive, or almost anything.
    fn how_long(&mut self, ours: bool) -> Duration {
        if !ours || !self.has_begun {
            return self.dice.millis(1, OFFICIAL_OUTAGE);
        }
        let longest = [500, 3000, 20_000, 90_000][usize::try_from(self.dice.below(4)).unwrap_or(0)];
        self.dice.millis(1, longest)
    }

    fn half_open(&mut self, purpose: Purpose, ours: bool) -> Duration {
        let heals = if ours && self.has_begun && self.dice.one_in(2) {
            None
        } else {
            Some(self.now + self.how_long(ours))
        };
        self.cut(purpose, Cut::HalfOpen { heals });
        heals.unwrap_or(self.now)
    }

    fn outage(&mut self, purpose: Purpose, ours: bool) -> Duration {
        let until = self.now + self.how_long(ours);
        self.net.block(purpose, until);
        self.cut(purpose, Cut::Reset);
        until
    }

    fn kill_server(&mut self) -> Duration {
        let longest = if self.pair.both_ours() && self.has_begun {
            15_000
        } else {
            OFFICIAL_OUTAGE
        };
        let until = self.now + self.dice.millis(5, longest);
        self.net.kill_server(self.now, &mut self.dice);
        self.server = None;
        self.server_back_at = Some(self.server_back_at.map_or(until, |at| at.max(until)));
        until
    }

    fn restart_agent(&mut self) -> Duration {
        let until = self.now + self.dice.millis(5, 4000);
        let mut cx = Context {
            now: self.now,
            net: &mut self.net,
            dice: &mut self.dice,
            trace: &mut self.trace,
        };
        self.agent.restart(until, &mut cx);
        until
    }

    /// A laptop is closed, or a process stopped. Long enough, and its sockets are gone when it wakes.
    fn sleep(&mut self, side: Side, ours: bool) -> Duration {
        let until = self.now + self.how_long(ours);
        let purpose = match side {
            Side::Client => Purpose::ClientData,
            Side::Node => Purpose::NodeData,
        };
        self.peer(side, |peer| peer.sleep(until));
        if ours && self.has_begun && self.dice.one_in(2) {
            self.cut(purpose, Cut::HalfOpen { heals: None });
        }
        until
    }
}

fn story(pair: Pair, faults_until: Duration, dice: &mut Dice) -> Story {
    let some_time = dice.millis(
        1000,
        u64::try_from(faults_until.as_millis()).unwrap_or(1000),
    );
    match dice.below(10) {
        0 => Story::Terminated { at: some_time },
        1 => Story::Silence,
        _ if pair.both_ours() && dice.one_in(2) => Story::Exit { from: some_time },
        _ => Story::Exit { from: faults_until },
    }
}

fn latency(dice: &mut Dice) -> Duration {
    let longest = [500, 20_000, 120_000][usize::try_from(dice.below(3)).unwrap_or(0)];
    Duration::from_micros(dice.between(50, longest))
}
