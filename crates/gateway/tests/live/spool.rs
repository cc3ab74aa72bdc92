//! Separated output of an official agent, which must not be paused, and a client that is away.

use serde_json::{Value, json};
use sortie_channel::frame::MessageType;
use sortie_control::Settings;
use sortie_gateway::Options;
use tempfile::TempDir;

use crate::world::{Channel, World, ack, output};

const FRAMES: i64 = 3000;

fn separated() -> Value {
    json!({"sessionType": "NonInteractiveCommands",
        "properties": {"linux": {"commands": "make", "separateOutputStream": "true"}}})
}

/// Little memory, and this much disk.
fn little(directory: &TempDir, spool_limit: u64) -> impl FnOnce(&mut Settings, &mut Options) {
    let directory = directory.path().to_owned();
    move |_, options| {
        options.spool_directory = Some(directory);
        options.spool_limit = spool_limit;
        options.pause_above = 64 * 1024;
        options.resume_below = 16 * 1024;
    }
}

async fn speak(worker: &mut Channel) {
    for number in 0..FRAMES {
        let payload = vec![u8::try_from(number % 251).unwrap(); 1024];
        if !worker.try_send(output(number, &payload)).await {
            return;
        }
    }
}

#[tokio::test]
async fn a_client_that_was_away_gets_all_of_it() {
    let directory = TempDir::new().unwrap();
    let mut world = World::start_with(little(&directory, 16 << 20)).await;
    let mut control = world.official_node().await;
    let id = world
        .session_of("AWS-StartNonInteractiveCommand", separated())
        .await;
    let client = world.resumed(&id).await;
    control.started().await;
    let mut worker = world.worker(&id).await;
    drop(client);
    speak(&mut worker).await;
    let came = worker.until_answered().await;
    assert!(!came.contains(&MessageType::PausePublication), "{came:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);

    let mut client = world.resumed(&id).await;
    for number in 0..FRAMES {
        let frame = client.expect(MessageType::OutputStreamData).await;
        assert_eq!(frame.sequence_number(), number);
        let byte = u8::try_from(number % 251).unwrap();
        assert!(frame.payload().iter().all(|found| *found == byte));
        client.send(ack(&frame)).await;
    }
}

#[tokio::test]
async fn too_much_of_it_ends_the_session_with_a_reason() {
    let directory = TempDir::new().unwrap();
    let mut world = World::start_with(little(&directory, 1 << 20)).await;
    let mut control = world.official_node().await;
    let id = world
        .session_of("AWS-StartNonInteractiveCommand", separated())
        .await;
    let client = world.resumed(&id).await;
    control.started().await;
    let mut worker = world.worker(&id).await;
    drop(client);
    speak(&mut worker).await;
    assert_eq!(control.ended().await, id.as_str());
    let row = world
        .until_state(&id, sortie_ports::SessionState::Failed)
        .await;
    let reason = row.end_reason.unwrap();
    assert!(
        reason.contains("its output was not taken in time"),
        "{reason}"
    );
}
