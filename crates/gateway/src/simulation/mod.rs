//! A session's whole path in simulated time: both ends, an agent, a server that keeps nothing but its
//! row when it is killed, and websockets that lose what was under way when they break.
//!
//! Every pairing of our ends and the official ones runs through cuts, half-open sockets, outages,
//! restarts, sleeps and slow readers, as far as the pairing is built to survive them: any outage
//! between ours, those within the retry budget of an official end. Both directions are compared byte
//! for byte, memory is held to its bounds, and once the faults are over so must the session be, soon.
//!
//! Every other session of our own ends carries streams, which the server judges one by one and does not
//! judge alike at all times.
//!
//! A run follows from its seed alone. A failure prints it; `SORTIE_SEED=<n>` runs that one and prints what
//! happens in it.

mod agent;
mod dice;
mod net;
mod official;
mod ours;
mod port;
mod server;
mod talk;
mod world;

use std::{panic::AssertUnwindSafe, time::Duration};

use self::world::{Outcome, Pair, World};

/// Runs of each pairing.
const SEEDS: u64 = 500;
/// Simulated time of each pairing, at least.
const SIMULATED: Duration = Duration::from_secs(25_000);

/// The seed that is being looked at, if any.
fn chosen_seed() -> Option<u64> {
    std::env::var("SORTIE_SEED").ok()?.parse().ok()
}

fn run(seed: u64) -> Outcome {
    World::new(seed, chosen_seed().is_some()).run()
}

/// Runs a seed; `None` when it failed, which is printed.
fn try_run(seed: u64) -> Option<Outcome> {
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
    if ran.is_err() {
        eprintln!("failed with SORTIE_SEED={seed} ({:?})", Pair::of(seed));
    }
    ran.ok()
}

fn run_all(pair: Pair) {
    let chosen = chosen_seed();
    let all = 0..SEEDS * Pair::ALL.len() as u64;
    let is_wanted = |seed: &u64| Pair::of(*seed) == pair && chosen.is_none_or(|one| one == *seed);
    let seeds: Vec<u64> = all
        .chain(chosen.filter(|one| !(0..SEEDS * 4).contains(one)))
        .filter(is_wanted)
        .collect();
    let outcomes: Vec<Outcome> = seeds.iter().copied().filter_map(try_run).collect();
    assert_eq!(outcomes.len(), seeds.len(), "runs that succeeded, of all");
    if chosen.is_some() {
        return eprintln!("{outcomes:?}");
    }
    let simulated: Duration = outcomes.iter().map(|outcome| outcome.simulated).sum();
    let faults: u64 = outcomes.iter().map(|outcome| outcome.faults).sum();
    let bytes: usize = outcomes.iter().map(|outcome| outcome.bytes).sum();
    eprintln!("{pair:?}: {simulated:?} simulated, {faults} faults, {bytes} bytes");
    assert!(simulated >= SIMULATED, "only {simulated:?} were simulated");
    assert!(faults >= 4 * SEEDS, "only {faults} faults");
}

#[test]
fn our_client_and_our_node_survive_everything() {
    run_all(Pair::ALL[0]);
}

#[test]
fn our_client_and_an_official_node_survive_what_the_node_can() {
    run_all(Pair::ALL[1]);
}

#[test]
fn an_official_client_and_our_node_survive_what_the_client_can() {
    run_all(Pair::ALL[2]);
}

#[test]
fn official_ends_survive_what_they_can() {
    run_all(Pair::ALL[3]);
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..40 {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        assert_ne!(first.trace, run(seed + 40).trace);
    }
}
