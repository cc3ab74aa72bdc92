//! The task behind a port session: moves messages between the data channel and the machine that the
//! streams share, and tells the session's owner what happens.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use sortie_channel::{
    frame::{PayloadType, flag},
    handshake::Session,
    version,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Begun, Event, machine,
    state::{News, Outlook, Shared},
};
use crate::{
    DataChannel,
    data_channel::{self, End},
};

/// How long the node may take to end the session once it was asked to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages taken in a row before anything else gets its turn.
const BATCH: usize = 32;

pub(super) struct Driver {
    channel: DataChannel,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    /// Events that wait for the owner; those of streams stay in the shared state.
    outbox: VecDeque<Event>,
    close: CancellationToken,
    /// When to leave whatever the node does.
    leave_at: Option<Instant>,
    /// The node takes the flag that ends a session.
    knows_terminate: bool,
    begun: bool,
    /// The channel takes no messages any more; its last events are to come.
    is_deaf: bool,
}

/// What the loop wakes up for.
enum Wake {
    Channel(Option<data_channel::Event>),
    Close,
    Leave,
    Room(bool),
    Told,
    Over,
    Changed,
    Due,
}

impl Driver {
    pub(super) fn new(
        channel: DataChannel,
        shared: Arc<Shared>,
        events: mpsc::Sender<Event>,
        close: CancellationToken,
    ) -> Self {
        Self {
            channel,
            shared,
            events,
            outbox: VecDeque::new(),
            close,
            leave_at: None,
            knows_terminate: false,
            begun: false,
            is_deaf: false,
        }
    }

    /// Runs until the session is over. `session` is what is known of one that has begun.
    pub(super) async fn run(mut self, session: Option<Session>) {
        let failed = session.and_then(|session| self.begin(&session));
        let end = match failed {
            Some(end) => end,
            None => self.run_to_end().await,
        };
        self.shared.end();
        self.channel.commands.leave();
        self.collect_news();
        for event in std::mem::take(&mut self.outbox) {
            if self.events.send(event).await.is_err() {
                return;
            }
        }
        // An owner that is gone wants to hear nothing.
        let _ = self.events.send(Event::Ended(end)).await;
    }

    async fn run_to_end(&mut self) -> End {
        loop {
            let outlook = self.look();
            self.collect_news();
            let end = match self.wait(outlook).await {
                Wake::Channel(event) => self.take_events(event),
                Wake::Close => {
                    self.ask_for_end().await;
                    None
                }
                Wake::Leave | Wake::Over => Some(End::Left),
                Wake::Room(is_open) => {
                    self.is_deaf = !is_open;
                    self.send_one().await;
                    None
                }
                Wake::Told | Wake::Changed => None,
                Wake::Due => self.on_time().await,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn look(&self) -> Outlook {
        self.shared.look(self.channel.commands.is_delivered())
    }

    async fn wait(&mut self, outlook: Outlook) -> Wake {
        let asked = self.leave_at.is_some();
        let sends = outlook.has_message && !asked && !self.is_deaf;
        let soon = [outlook.due, self.leave_at].into_iter().flatten().min();
        let at = soon.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let leave_at = self.leave_at;
        tokio::select! {
            event = self.channel.events.next(), if outlook.takes_more => Wake::Channel(event),
            room = self.channel.commands.message_room(), if sends => {
                Wake::Room(room.is_ok())
            }
            permit = self.events.reserve(), if !self.outbox.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(event) = self.outbox.pop_front() {
                        permit.send(event);
                    }
                    Wake::Told
                }
                Err(_) => Wake::Over,
            },
            () = self.shared.changed.notified() => Wake::Changed,
            () = self.close.cancelled(), if !asked => Wake::Close,
            () = tokio::time::sleep_until(at) => match leave_at {
                Some(leave_at) if Instant::now() >= leave_at => Wake::Leave,
                _ => Wake::Due,
            },
        }
    }

    /// Does what is due. Silence is what was not heard, not what was not looked at: a process that has
    /// slept takes first what came meanwhile.
    async fn on_time(&mut self) -> Option<End> {
        tokio::task::yield_now().await;
        if self.look().takes_more
            && let Some(event) = self.channel.events.try_next()
        {
            return self.take_events(Some(event));
        }
        self.shared.on_time();
        None
    }

    /// Gives the channel, which has room, what is next.
    async fn send_one(&mut self) {
        if let Ok(permit) = self.channel.commands.message_room().await
            && let Some(message) = self.shared.next_message(self.channel.commands.portion())
        {
            permit.send(message);
        }
    }

    /// Takes an event and those that have come behind it.
    fn take_events(&mut self, event: Option<data_channel::Event>) -> Option<End> {
        let Some(event) = event else {
            return Some(End::Left);
        };
        let mut end = self.take(event);
        for _ in 0..BATCH {
            if end.is_some() || !self.look().takes_more {
                break;
            }
            match self.channel.events.try_next() {
                Some(event) => end = self.take(event),
                None => break,
            }
        }
        end
    }

    fn take(&mut self, event: data_channel::Event) -> Option<End> {
        match event {
            data_channel::Event::Away { reason } => self.outbox.push_back(Event::Away { reason }),
            data_channel::Event::Back => self.outbox.push_back(Event::Back),
            data_channel::Event::Begun(session) if !self.begun => return self.begin(&session),
            data_channel::Event::Output(payload) => {
                return self.receive(PayloadType::OUTPUT, payload);
            }
            data_channel::Event::Message {
                payload_type,
                payload,
            } => return self.receive(payload_type, payload),
            data_channel::Event::Ended(end) => return Some(end),
            // Nothing of ports.
            data_channel::Event::Asked { .. }
            | data_channel::Event::Begun(_)
            | data_channel::Event::Joined
            | data_channel::Event::ExitStatus { .. }
            | data_channel::Event::StdErr(_) => {}
        }
        None
    }

    fn begin(&mut self, session: &Session) -> Option<End> {
        self.begun = true;
        let machine = match machine(session, &self.channel.events.features()) {
            Ok(machine) => machine,
            Err(reason) => return Some(End::Refused { reason }),
        };
        self.knows_terminate = version::client_gates(&session.agent_version).terminate_flag;
        let begun = Begun {
            properties: session.properties.clone(),
            carrier: machine.carrier(),
            customer_message: session.customer_message.clone(),
        };
        self.shared.begin(machine);
        self.outbox.push_back(Event::Begun(begun));
        None
    }

    fn receive(&mut self, payload_type: PayloadType, payload: Bytes) -> Option<End> {
        let received = self.shared.receive(payload_type, payload);
        received.err().map(|reason| End::Lost {
            reason: format!("the node is not understood: {reason}"),
        })
    }

    fn collect_news(&mut self) {
        while let Some(news) = self.shared.next_news() {
            self.outbox.push_back(match news {
                News::ConnectFailed => Event::ConnectFailed,
                News::Incoming(id, destination) => {
                    Event::Incoming(self.shared.incoming(id, destination))
                }
            });
        }
    }

    /// Ends the session as the owner wishes: the node is told where it understands, and what is under
    /// way may arrive.
    async fn ask_for_end(&mut self) {
        self.leave_at = Some(Instant::now() + CLOSE_TIMEOUT);
        if self.begun && self.knows_terminate {
            let terminate = flag::TERMINATE_SESSION.to_be_bytes();
            let message = (PayloadType::FLAG, Bytes::copy_from_slice(&terminate));
            let room = self.channel.commands.message_room();
            if let Ok(Ok(permit)) = tokio::time::timeout(CLOSE_TIMEOUT, room).await {
                permit.send(message);
            }
        } else {
            self.channel.commands.leave();
        }
    }
}

/// Streams do not outlive the task that moves their bytes.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.end();
    }
}
