//! Any path, query and headers as a signed request: parsing and verifying never panic, and nothing
//! that an outsider can make up passes with a secret he does not know.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie_types::{Secret, Timestamp};
use sortie_wire::sigv4::{Presented, RequestParts, Scope, parse};

fuzz_target!(|data: &[u8]| {
    // Lines: method, path, query, then headers up to an empty line; the rest is the body.
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(method), Some(path), Some(query)) = (text(), text(), text()) else { return };
    let mut headers = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next())
            && let Ok(name) = std::str::from_utf8(name)
        {
            headers.push((name, value.trim_ascii()));
        }
    }
    let body = lines.next().unwrap_or_default();
    let parts = RequestParts { method, path, query, headers: &headers };
    let Ok(Presented::Header(claim) | Presented::Presigned(claim)) = parse(&parts) else { return };
    let scope = Scope { service: "ssm", regions: &["local-1"] };
    // 2026-05-04T08:00:00Z, the date in the corpus, so that verifying goes all the way.
    let now = Timestamp::from_millis(1_777_881_600_000);
    let secret = Secret::new("nobody outside knows this");
    assert!(claim.verify(&parts, body, &secret, now, &scope).is_err(), "a made-up signature passed");
    let _ = claim.verify_rsa(&parts, body, &[0x30, 0x82], now, &scope);
});
