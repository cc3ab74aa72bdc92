//! How sessions end, and what each end and the row say about it.

use std::time::Duration;

use bytes::Bytes;
use sortie_channel::{body::Body, frame::MessageType};
use sortie_ports::SessionState;

use crate::world::{World, client_open, input, output, quick, result, stamp, within};

#[tokio::test]
async fn an_exit_closes_the_client_at_once_and_the_row_when_the_result_comes() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    shell.worker.send(output(0, b"bye")).await;
    shell.worker.say_state(&shell.id, "Terminating").await;
    shell.client.expect(MessageType::OutputStreamData).await;
    assert_eq!(shell.client.closed().await, "");
    drop(shell.worker);
    shell.control.complete(&shell.id, "Success", "").await;
    let row = world.until_state(&shell.id, SessionState::Terminated).await;
    assert_eq!(
        row.end_reason.as_deref(),
        Some("The session ended on the node.")
    );
    assert_eq!(world.recorded("SessionEnded").await, 1);
    assert!(world.resume(&shell.id).await.is_none());
    shell.client.until_hung_up().await;
}

#[tokio::test]
async fn a_result_is_taken_once_and_acknowledged_every_time() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    drop(shell.worker);
    let (first, second) = (stamp(), stamp());
    let text = "\n----------ERROR-------\nPlugin failed";
    for stamp in [first, first, second, first, second] {
        shell
            .control
            .send(result(stamp, &shell.id, "Failed", text))
            .await;
        shell.control.acknowledged(stamp).await;
    }
    assert_eq!(shell.client.closed().await, text);
    let row = world.until_state(&shell.id, SessionState::Failed).await;
    assert_eq!(row.end_reason.as_deref(), Some("Plugin failed"));
    shell.control.complete(&shell.id, "Success", "").await;
    assert_eq!(world.row(&shell.id).await.state, SessionState::Failed);
    let unknown = "nobody-0123456789abcdef0".parse().unwrap();
    shell.control.complete(&unknown, "Success", "").await;
}

#[tokio::test]
async fn a_failure_before_the_client_came_is_kept_for_it() {
    let mut world = World::start().await;
    let mut control = world.official_node().await;
    let started = world.start_session().await;
    control
        .complete(&started.session_id, "Failed", "no such user")
        .await;
    world
        .until_state(&started.session_id, SessionState::Failed)
        .await;
    let mut client = world.client(&started).await;
    assert_eq!(client.closed().await, "no such user");
}

#[tokio::test]
async fn a_failure_right_after_the_start_is_shown() {
    let mut world = World::start().await;
    let mut control = world.official_node().await;
    let started = world.start_session().await;
    let mut client = world.client(&started).await;
    control.started().await;
    control
        .complete(&started.session_id, "Failed", "unknown session type")
        .await;
    assert_eq!(client.closed().await, "unknown session type");
    world
        .until_state(&started.session_id, SessionState::Failed)
        .await;
}

/// Until then the node alone has it.
#[tokio::test]
async fn a_result_is_acknowledged_when_the_row_has_ended_and_not_before() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    drop(shell.client);
    world
        .until_state(&shell.id, SessionState::Disconnected)
        .await;
    // The client may come back for this, so the row does not end yet.
    shell.worker.send(output(0, b"last words")).await;
    shell.worker.until_answered().await;
    let stamp = stamp();
    let report = result(stamp, &shell.id, "Failed", "killed by the kernel");
    shell.control.send(report.clone()).await;
    let before = shell.control.until_answered().await;
    assert!(!before.contains(&MessageType::AgentTaskAcknowledge));

    // The server goes away with what it knows, and the node says it again to the next one.
    world.restart(quick()).await;
    while let Some(frame) = shell.control.next().await {
        assert_ne!(frame.message_type(), &MessageType::AgentTaskAcknowledge);
    }
    let mut control = world.official_node().await;
    control.send(report).await;
    control.acknowledged(stamp).await;
    let row = world.row(&shell.id).await;
    assert_eq!(row.state, SessionState::Failed);
    assert_eq!(row.end_reason.as_deref(), Some("killed by the kernel"));
}

#[tokio::test]
async fn another_node_cannot_end_a_session() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let mut stranger = world.node_from(1, "192.0.2.8", None, None).await;
    stranger.complete(&shell.id, "Failed", "mine").await;
    shell.worker.send(output(0, b"alive")).await;
    shell.client.expect(MessageType::OutputStreamData).await;
    assert_eq!(world.row(&shell.id).await.state, SessionState::Connected);
}

#[tokio::test]
async fn terminating_a_session_closes_both_ends() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    shell.worker.send(output(0, b"last words")).await;
    shell.client.expect(MessageType::OutputStreamData).await;
    world.terminate(&shell.id).await;
    let text = shell.client.closed().await;
    assert!(!text.is_empty());
    assert_eq!(shell.control.ended().await, shell.id.as_str());
    shell.worker.until(MessageType::ChannelClosed).await;
    assert_eq!(world.row(&shell.id).await.state, SessionState::Terminating);
    drop(shell.worker);
    shell.control.complete(&shell.id, "Success", "").await;
    let row = world.until_state(&shell.id, SessionState::Terminated).await;
    assert_eq!(row.end_reason, Some(text));
    let mut late = world.client(&shell.started).await;
    assert_eq!(late.closed().await, row.end_reason.unwrap());
}

#[tokio::test]
async fn a_node_that_does_not_confirm_does_not_keep_a_session_terminating() {
    let mut world =
        World::start_with(|_, options| options.confirm_wait = Duration::from_millis(100)).await;
    let mut shell = world.shell().await;
    world.terminate(&shell.id).await;
    shell.worker.until(MessageType::ChannelClosed).await;
    drop(shell.worker);
    world.until_state(&shell.id, SessionState::Terminated).await;
}

#[tokio::test]
async fn a_client_that_never_comes_ends_its_session() {
    let mut world =
        World::start_with(|_, options| options.client_wait = Duration::from_millis(200)).await;
    let _control = world.official_node().await;
    let started = world.start_session().await;
    let row = world
        .until_state(&started.session_id, SessionState::Terminated)
        .await;
    assert!(
        row.end_reason
            .unwrap()
            .starts_with("The client did not connect within")
    );
}

#[tokio::test]
async fn a_node_that_does_not_start_fails_the_session_with_a_text() {
    let mut world =
        World::start_with(|_, options| options.start_timeout = Duration::from_millis(200)).await;
    let mut control = world.official_node().await;
    let started = world.start_session().await;
    let mut client = world.client(&started).await;
    control.started().await;
    let text = client.closed().await;
    assert!(
        text.starts_with("The node did not start the session within"),
        "{text}"
    );
    assert_eq!(
        control.ended().await,
        started.session_id.as_str(),
        "should it start after all"
    );
    let row = world
        .until_state(&started.session_id, SessionState::Failed)
        .await;
    assert_eq!(row.end_reason, Some(text));
}

#[tokio::test]
async fn a_node_that_went_away_before_the_start_fails_the_session() {
    let mut world =
        World::start_with(|_, options| options.start_timeout = Duration::from_millis(300)).await;
    let control = world.official_node().await;
    let started = world.start_session().await;
    drop(control);
    let node_id = world.nodes[0].clone();
    world.until_connected(&node_id, false).await;
    let mut client = world.client(&started).await;
    assert_eq!(client.closed().await, "The node is not connected.");
    world
        .until_state(&started.session_id, SessionState::Failed)
        .await;
}

#[tokio::test]
async fn a_start_message_that_was_lost_is_sent_again_on_the_next_control_channel() {
    let mut world = World::start().await;
    let control = world.official_node().await;
    let started = world.start_session().await;
    drop(control);
    let node_id = world.nodes[0].clone();
    world.until_connected(&node_id, false).await;
    let mut client = world.client(&started).await;
    let mut control = world.official_node().await;
    assert_eq!(
        control.started().await.session_id,
        started.session_id.as_str()
    );
    let mut worker = world.worker(&started.session_id).await;
    worker.send(output(0, b"$ ")).await;
    client.expect(MessageType::OutputStreamData).await;
}

#[tokio::test]
async fn an_official_node_that_stays_away_ends_the_session() {
    let mut world =
        World::start_with(|_, options| options.node_return = Duration::from_millis(200)).await;
    let mut shell = world.shell().await;
    drop(shell.worker);
    assert_eq!(
        shell.client.closed().await,
        "The connection to the node was lost."
    );
    assert_eq!(
        shell.control.ended().await,
        shell.id.as_str(),
        "its shell may live on"
    );
    world.until_state(&shell.id, SessionState::Terminated).await;
}

#[tokio::test]
async fn silence_ends_a_shell_however_much_it_prints() {
    let mut world =
        World::start_with(|settings, _| settings.default_idle = Duration::from_secs(3)).await;
    let mut shell = world.shell().await;
    let printing = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for number in 0.. {
            tick.tick().await;
            if !shell.worker.try_send(output(number, b"tick")).await {
                break;
            }
        }
    };
    let text = tokio::select! {
        () = printing => panic!("the worker was cut off"),
        text = shell.client.closed() => text,
    };
    assert_eq!(
        text,
        "The session was idle for 3 seconds and has been ended."
    );
    assert_eq!(shell.control.ended().await, shell.id.as_str());
    shell.control.complete(&shell.id, "Success", "").await;
    let row = world.until_state(&shell.id, SessionState::Terminated).await;
    assert_eq!(row.end_reason, Some(text));
}

#[tokio::test]
async fn input_keeps_a_shell_alive_until_its_maximum_duration() {
    let mut world = World::start_with(|settings, _| {
        settings.default_idle = Duration::from_secs(3);
        settings.max_duration = Some(Duration::from_secs(5));
    })
    .await;
    let mut shell = world.shell().await;
    let (mut client, mut number) = (shell.client, 0);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let text = loop {
        tokio::select! {
            _ = tick.tick() => {
                client.send(input(number, b"x")).await;
                number += 1;
            }
            text = client.closed() => break text,
        }
    };
    assert_eq!(
        text,
        "The session has reached its maximum duration of 5 seconds."
    );
    shell.worker.until(MessageType::ChannelClosed).await;
}

#[tokio::test]
async fn output_of_a_session_that_ended_is_kept_for_a_client_that_comes_back() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    drop(shell.client);
    world
        .until_state(&shell.id, SessionState::Disconnected)
        .await;
    shell.worker.send(output(0, b"the result")).await;
    shell.worker.say_state(&shell.id, "Terminating").await;
    drop(shell.worker);
    let stamp = stamp();
    let report = result(stamp, &shell.id, "Success", "");
    shell.control.send(report).await;
    let mut client = world.resumed(&shell.id).await;
    client.expect(MessageType::OutputStreamData).await;
    assert_eq!(client.closed().await, "");
    world.until_state(&shell.id, SessionState::Terminated).await;
    shell.control.acknowledged(stamp).await;
}

#[tokio::test]
async fn a_session_that_should_end_while_the_node_is_away_ends_when_it_is_back() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    drop(shell.control);
    drop(shell.worker);
    let node_id = world.nodes[0].clone();
    world.until_connected(&node_id, false).await;
    world.terminate(&shell.id).await;
    shell.client.closed().await;
    let mut control = world.official_node().await;
    assert_eq!(control.ended().await, shell.id.as_str());
    control.complete(&shell.id, "Success", "").await;
    world.until_state(&shell.id, SessionState::Terminated).await;
}

#[tokio::test]
async fn what_was_told_to_end_while_no_gateway_ran_ends_at_the_next_start() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    world.stop().await;
    shell.worker.until_hung_up().await;
    world.terminate(&shell.id).await;
    world.restart(quick()).await;
    let mut control = world.official_node().await;
    assert_eq!(control.ended().await, shell.id.as_str());
    control.complete(&shell.id, "Success", "").await;
    world.until_state(&shell.id, SessionState::Terminated).await;
}

#[tokio::test]
async fn stopping_with_sessions_tells_everyone() {
    let mut world = World::start_with(|_, options| options.end_sessions_on_stop = true).await;
    let mut shell = world.shell().await;
    let client = async {
        let text = shell.client.closed().await;
        shell.client.until_hung_up().await;
        text
    };
    let node = async {
        let ended = shell.control.ended().await;
        shell.control.until_hung_up().await;
        ended
    };
    let (client, node, ()) = tokio::join!(client, node, world.stop());
    assert_eq!(client, "The server is shutting down.");
    assert_eq!(node, shell.id.as_str());
    let row = world.row(&shell.id).await;
    assert_eq!(row.state, SessionState::Terminated);
}

#[tokio::test]
async fn a_worker_that_comes_to_a_session_that_is_over_is_ended_on_the_control_channel() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let token = world.node_token(&shell.id).await;
    shell.control.complete(&shell.id, "Success", "").await;
    world.until_state(&shell.id, SessionState::Terminated).await;
    let open = crate::world::node_open(&token, &world.nodes[0]);
    let mut late = world.data_channel(&shell.id, &open.to_text(), true).await;
    assert!(late.next().await.is_none());
    assert_eq!(shell.control.ended().await, shell.id.as_str());
}

#[tokio::test]
async fn a_huge_message_costs_its_sender_the_channel_and_nobody_else_anything() {
    let mut world = World::start().await;
    let mut shell = world.shell().await;
    let huge = Bytes::from(vec![0; 8 * 1024 * 1024]);
    within("the end of the channel", shell.client.try_send(huge)).await;
    world
        .until_state(&shell.id, SessionState::Disconnected)
        .await;
    let open = client_open(&world.resume(&shell.id).await.unwrap(), "client-1");
    let mut client = world.data_channel(&shell.id, &open.to_text(), false).await;
    shell.worker.send(output(0, b"still here")).await;
    client.expect(MessageType::OutputStreamData).await;
}
