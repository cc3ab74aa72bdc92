//! Port sessions: connections from this node, or to it, through the session.
//!
//! ```text
//! client known ── destination allowed, port bound ──► handshake ──► one of three transports ──► over
//! ```
//!
//! Where the client is one of ours the connections are streams, whatever the session's kind. An official
//! client has the two kinds that it knows: many connections to one destination, multiplexed, and one
//! connection at a time.
//!
//! Everything is done as the session's account.

mod basic;
mod copy;
mod destination;
mod forbidden;
mod forward;
mod hub;
mod listen;
mod mux;
mod plan;
mod streams;

use std::path::Path;

use serde_json::Value;
use sortie_channel::{
    features::STREAMS,
    handshake::{NodeHandshake, SessionType},
    version::agent_gates,
};

pub(crate) use self::plan::{PortPlan, PortRefusal};
use self::{
    forward::Forward,
    listen::Listener,
    mux::OfficialMux,
    plan::{PortKind, Target},
    streams::OurStreams,
};
use super::outside::{End, Outside};
use crate::os;

/// Runs a port session to its end.
pub(super) async fn run(plan: &PortPlan, home: &Path, outside: &mut Outside) -> Result<End, End> {
    let plan = &plan.at_home(home);
    outside.client_known().await?;
    let has_streams = outside.channel.has_feature(STREAMS);
    if !has_streams && !plan.is_official() {
        return Err(End::Failed(
            "this kind of session needs a client of Sortie: official clients do not know it".into(),
        ));
    }
    os::allow_many_files();
    outside.channel.pace();
    let (listener, properties) = prepare(plan, outside).await?;
    let handshake = NodeHandshake::new(SessionType::Port, properties, "");
    let client_version = outside.shake_hands(handshake).await?;
    if has_streams {
        outside.is_running = true;
        Forward::new(&plan.kind, outside, OurStreams::new(), listener)
            .run()
            .await?;
    } else {
        run_official(&plan.kind, &client_version, outside).await?;
    }
    Ok(End::Exited)
}

async fn run_official(
    kind: &PortKind,
    client_version: &str,
    outside: &mut Outside,
) -> Result<(), End> {
    let gates = agent_gates(client_version);
    match kind {
        PortKind::Local(_) if gates.mux => {
            outside.is_running = true;
            let mux = OfficialMux::new(!gates.smux_keepalive_disabled);
            Forward::new(kind, outside, mux, None).run().await
        }
        PortKind::Local(target) | PortKind::Stdio(target) => {
            basic::run(kind, target, outside).await
        }
        // Refused before the handshake.
        PortKind::Socks | PortKind::Reverse(_) => Ok(()),
    }
}

/// What has to be there before the client hears that the session has begun: a destination that is not
/// forbidden, a port that is bound. The properties that the client is told.
async fn prepare(plan: &PortPlan, outside: &mut Outside) -> Result<(Option<Listener>, Value), End> {
    match &plan.kind {
        PortKind::Stdio(target) | PortKind::Local(target) => {
            check(target, outside).await?;
            Ok((None, plan.properties.clone()))
        }
        PortKind::Socks => Ok((None, plan.properties.clone())),
        PortKind::Reverse(listen) => {
            let listener = Listener::bind(listen).await.map_err(End::Failed)?;
            let mut properties = plan.properties.clone();
            // Who asked for any port wants to know which.
            if let (Some(port), Some(properties)) = (listener.port(), properties.as_object_mut()) {
                properties.insert("portNumber".to_owned(), port.to_string().into());
            }
            Ok((Some(listener), properties))
        }
    }
}

async fn check(target: &Target, outside: &mut Outside) -> Result<(), End> {
    let mut checking = Box::pin(destination::check(target));
    loop {
        tokio::select! {
            checked = &mut checking => {
                return checked.map_err(|refusal| End::Failed(refusal.message));
            }
            event = outside.event(false) => drop(event?),
        }
    }
}
