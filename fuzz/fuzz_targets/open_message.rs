//! Any bytes as one of the text frames that open a channel, and as every other JSON body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie_channel::body::{
    Acknowledge, AgentSessionState, AgentTaskComplete, Body, ChannelClosed, Features,
    HandshakeComplete, HandshakeRequest, HandshakeResponse, InteractiveShell, OpenClient,
    OpenControl, OpenNode, Size, StartContent,
};

fn round_trip<B: Body>(data: &[u8]) {
    if let Ok(body) = B::parse(data) {
        let text = body.to_text();
        let again = B::parse(text.as_bytes()).expect("our own text parses");
        assert_eq!(again.to_text(), text);
    }
}

fuzz_target!(|data: &[u8]| {
    round_trip::<OpenClient>(data);
    round_trip::<OpenNode>(data);
    round_trip::<OpenControl>(data);
    round_trip::<Acknowledge>(data);
    round_trip::<AgentSessionState>(data);
    round_trip::<AgentTaskComplete>(data);
    round_trip::<ChannelClosed>(data);
    round_trip::<Features>(data);
    round_trip::<HandshakeRequest>(data);
    round_trip::<HandshakeResponse>(data);
    round_trip::<HandshakeComplete>(data);
    round_trip::<InteractiveShell>(data);
    round_trip::<StartContent>(data);
    round_trip::<Size>(data);
});
