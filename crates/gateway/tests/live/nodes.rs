//! Control channels: who gets one, who keeps it, and what nodes are told when they open one.

use std::time::Duration;

use bytes::Bytes;
use sortie_channel::{
    body::{OpenControl, RunningSessions},
    control,
    frame::MessageType,
};
use sortie_ports::SessionState;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{World, output, stamp, stream, within};

#[tokio::test]
async fn the_newest_control_channel_wins() {
    let mut world = World::start().await;
    let mut first = world.official_node().await;
    let mut second = world.official_node().await;
    first.until_hung_up().await;
    let started = world.start_session().await;
    let _client = world.client(&started).await;
    second.started().await;
    assert!(world.node_connected(&world.nodes[0].clone()).await);
}

#[tokio::test]
async fn a_channel_without_a_good_token_is_hung_up_on_and_replaces_nothing() {
    let mut world = World::start().await;
    let mut good = world.official_node().await;
    let foreign = world.control_token(1).await;
    for token in [foreign, "SRT1.AAAA".into(), "".into()] {
        let open = OpenControl {
            token,
            ..OpenControl::default()
        };
        let mut bad = world.control_channel(0, "192.0.2.66", open).await;
        assert!(bad.next().await.is_none());
    }
    let started = world.start_session().await;
    let _client = world.client(&started).await;
    good.started().await;
}

#[tokio::test]
async fn two_machines_with_one_identity_are_reported() {
    let mut world = World::start().await;
    let mut channels = Vec::new();
    for number in 0..8 {
        let address = if number % 2 == 0 {
            "192.0.2.7"
        } else {
            "192.0.2.8"
        };
        let mut channel = world.node_from(0, address, None, None).await;
        // It has taken the place of the one before when it is served.
        channel
            .send_message(Message::Ping(Bytes::from_static(b"question")))
            .await;
        channel.until_pong().await;
        channels.push(channel);
    }
    assert_eq!(world.recorded("NodeCloneDetected").await, 1);
}

#[tokio::test]
async fn a_node_is_lost_after_a_grace_and_a_quick_return_is_no_news() {
    let mut world =
        World::start_with(|_, options| options.node_grace = Duration::from_secs(3)).await;
    let node_id = world.nodes[0].clone();
    drop(world.official_node().await);
    let channel = world.official_node().await;
    drop(channel);
    world.until_connected(&node_id, false).await;
    assert_eq!(world.recorded("NodeOnline").await, 1);
    assert_eq!(world.recorded("NodeLost").await, 1);
}

#[tokio::test]
async fn a_half_open_control_channel_is_found_by_pings() {
    let mut world = World::start_with(|_, options| {
        options.ping_interval = Duration::from_millis(50);
        options.control_silence = Duration::from_millis(200);
    })
    .await;
    let node_id = world.nodes[0].clone();
    let _never_polled = world.official_node().await;
    world.until_connected(&node_id, false).await;
}

#[tokio::test]
async fn malformed_control_messages_are_survived() {
    let mut world = World::start().await;
    let mut control = world.official_node().await;
    for message in [
        Message::Text("x".repeat(500).into()),
        Message::Binary(Bytes::from_static(b"short")),
        Message::Binary(stream(MessageType::AgentTaskComplete, 0, b"not json")),
        Message::Binary(stream(MessageType::AgentTaskComplete, 0, b"{\"TaskId\":7}")),
        Message::Binary(stream(MessageType::AgentTelemetry, 0, b"{}")),
        Message::Binary(stream(MessageType::InteractiveShell, 0, b"{}")),
    ] {
        control.send_message(message).await;
    }
    let started = world.start_session().await;
    let _client = world.client(&started).await;
    assert_eq!(
        control.started().await.session_id,
        started.session_id.as_str()
    );
}

#[tokio::test]
async fn what_our_agent_should_not_run_is_ended_when_it_says_so() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    shell.worker.say_state(&shell.id, "Terminating").await;
    drop(shell.worker);
    shell.control.complete(&shell.id, "Success", "").await;
    world.until_state(&shell.id, SessionState::Terminated).await;
    let mut control = world.our_node(&[&shell.id]).await;
    assert_eq!(control.ended().await, shell.id.as_str());
    let running = RunningSessions {
        sessions: vec![shell.id.to_string()],
    };
    control
        .send(control::sortie_sessions(stamp(), &running))
        .await;
    assert_eq!(control.ended().await, shell.id.as_str());
}

#[tokio::test]
async fn our_agents_session_survives_its_control_channel_and_is_lost_when_not_listed() {
    let mut world = World::start().await;
    let mut control = world.our_node(&[]).await;
    let started = world.start_session().await;
    let mut client = world
        .our_client(&started.session_id, &started.token_value)
        .await;
    let start = control.started().await;
    let mut worker = world.our_worker(&start).await;
    client.features().await;
    drop(control);
    let mut control = world.our_node(&[&started.session_id]).await;
    worker.send(output(0, b"alive")).await;
    client.expect(MessageType::OutputStreamData).await;
    drop(worker);
    world
        .until_state(&started.session_id, SessionState::Disconnected)
        .await;
    let nothing = RunningSessions { sessions: vec![] };
    control
        .send(control::sortie_sessions(stamp(), &nothing))
        .await;
    assert_eq!(
        client.closed().await,
        "The connection to the node was lost."
    );
}

#[tokio::test]
async fn a_deregistered_node_is_hung_up_on() {
    let mut world = World::start().await;
    let mut control = world.official_node().await;
    let node_id = world.nodes[0].clone();
    world.deregister(&node_id).await;
    control.until_hung_up().await;
}

#[tokio::test]
async fn a_node_that_lists_and_reports_nonsense_neither_floods_nor_blocks() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let mut control = world.our_node(&[&shell.id]).await;
    let nonsense = (0..5_000).map(|number| format!("{number}\nforged line"));
    let sessions = nonsense.chain([shell.id.to_string()]).collect();
    let running = RunningSessions { sessions };
    control
        .send(control::sortie_sessions(stamp(), &running))
        .await;
    let text = format!("\x1b]0;title\x07broken\n{}", "x".repeat(500_000));
    control.complete(&shell.id, "Failed", &text).await;
    let shown = shell.client.closed().await;
    assert!(
        shown.starts_with("]0;titlebroken\nxxx") && shown.len() == 2500,
        "{}",
        shown.len()
    );
    drop(shell.worker);
    let ended = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            let row = world.row(&shell.id).await;
            if row.state.is_over() {
                return row;
            }
        }
    };
    let row = within("the session to be over", ended).await;
    assert_eq!(row.end_reason.unwrap().len(), 2500);
}

#[tokio::test]
async fn a_node_is_hung_up_on_before_the_grace_for_its_return() {
    let mut world =
        World::start_with(|_, options| options.node_grace = Duration::from_secs(3600)).await;
    let mut control = world.official_node().await;
    let node_id = world.nodes[0].clone();
    world.deregister(&node_id).await;
    control.until_hung_up().await;
}
