//! What people prove themselves with: passwords and the codes of MFA devices; and the limit on
//! wrong ones. Who the person is, what a proof allows, and what a refusal is called are the callers'
//! matter, and so is refusing a code a second time: [`Secrets::check_code`] returns the change that
//! does, and only the commit of it makes the code good.
//!
//! Nothing here tells whether a name exists: a password of nobody is checked against a hash of the
//! same cost, and attempts are counted for any name alike.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use aws_lc_rs::digest::{SHA256, digest};
use sortie_ports::{Change, MfaDevice, StoreError};
use sortie_types::{Arn, Secret, Timestamp};
use tokio::sync::Semaphore;
use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

use crate::{
    call::InternalError,
    mint::{self, RandomError},
    seal::{Purpose, RootKey, Sealer},
};

/// Passwords that are hashed at the same time. Each takes 19 MiB and a core.
const HASHES_AT_ONCE: usize = 2;
/// Callers that wait for their password to be hashed; one more is turned away.
const HASHES_WAITING: usize = 64;
/// A hash of the same cost as a real one that no password has.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Bytes of a seed: what RFC 4226 recommends.
pub(crate) const SEED_LENGTH: usize = 20;
/// How long a code is shown, as every authenticator app has it.
const STEP_SECONDS: u64 = 30;
const STEP_MILLIS: i64 = 30_000;
/// A code is good one step before and after its own.
const SKEW: u16 = 1;
/// How far a device's clock may be off when two codes in a row tell by how much.
const SEARCH_STEPS: i64 = 20;

/// Why a proof was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Too many wrong ones lately, or too many at once. Whether this one was right was not looked at.
    #[error("too many attempts")]
    Throttled,
    /// It is not the password, or not a code of this moment.
    #[error("wrong password or code")]
    Wrong,
}

crate::call::internal!(Refused);

/// Who tries, from where, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// The name or unique id that is claimed; need not exist.
    pub(crate) principal: &'a str,
    /// The address.
    pub(crate) source: &'a str,
    pub(crate) now: Timestamp,
}

/// Two codes in a row, found on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InStep {
    /// The step of the second code: older ones are used up with it.
    pub(crate) step: i64,
    /// How many steps the device's clock is ahead of ours.
    pub(crate) drift_steps: i64,
}

/// The checks, with what they share.
pub(crate) struct Secrets {
    seeds: Sealer,
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
    attempts: Mutex<Attempts>,
}

impl Secrets {
    pub(crate) fn new(root_key: &RootKey) -> Result<Self, RandomError> {
        Ok(Self {
            seeds: root_key.derive(Purpose::MfaSeed)?,
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            waiting: Semaphore::new(HASHES_WAITING),
            attempts: Mutex::default(),
        })
    }

    /// A password as it is kept: Argon2id in PHC form.
    ///
    /// # Errors
    /// [`Refused::Throttled`] when too many wait already, and failures of ours.
    pub(crate) async fn hash_password(&self, password: &Secret) -> Result<String, Refused> {
        let password = password.clone();
        let salt: [u8; 16] = mint::random()?;
        let hashed = self
            .off_the_threads(move || {
                Argon2::default()
                    .hash_password_with_salt(password.expose().as_bytes(), &salt)
                    .map(|hash| hash.to_string())
            })
            .await?;
        // Parameters and salt are ours, so only a lack of memory is left.
        hashed.map_err(|_| RandomError.into())
    }

    /// Whether this is the password behind `hash`; without one it takes as long and never is.
    ///
    /// # Errors
    /// As [`Refused`] says.
    pub(crate) async fn check_password(
        &self,
        attempt: &Attempt<'_>,
        password: &Secret,
        hash: Option<&str>,
    ) -> Result<(), Refused> {
        let charged = self.begin(Factor::Password, attempt)?;
        let hash = hash.unwrap_or(NOBODYS_HASH).to_owned();
        let password = password.clone();
        let matches = self
            .off_the_threads(move || {
                let hash = PasswordHash::new(&hash).ok()?;
                let password = password.expose().as_bytes();
                Some(Argon2::default().verify_password(password, &hash).is_ok())
            })
            .await?;
        match matches {
            Some(true) => {
                let mut attempts = self.attempts();
                attempts.take_back(&charged);
                attempts.remember(attempt);
                Ok(())
            }
            Some(false) => Err(Refused::Wrong),
            None => Err(corrupt("a password hash").into()),
        }
    }

    /// Runs a hash where it holds up nobody but those who hash.
    async fn off_the_threads<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let _place = self.waiting.try_acquire().map_err(|_| Refused::Throttled)?;
        let hashing = Arc::clone(&self.hashing).acquire_owned().await;
        // The permit goes along: a caller who leaves does not make room before the work is done.
        let running = tokio::task::spawn_blocking(move || {
            let _permit = hashing;
            work()
        });
        running.await.map_err(|error| {
            Refused::from(InternalError::Store(StoreError::Engine(Box::new(error))))
        })
    }

    /// A new seed, and how it is kept for the device of this serial number.
    pub(crate) fn new_seed(
        &self,
        serial_number: &Arn,
    ) -> Result<(Zeroizing<[u8; SEED_LENGTH]>, Vec<u8>), RandomError> {
        let seed = Zeroizing::new(mint::random()?);
        let place = serial_number.as_str().as_bytes();
        let sealed = self.seeds.seal(place, seed.as_ref())?;
        Ok((seed, sealed))
    }

    /// Checks a code of a device. The change that comes back belongs into the commit that the code
    /// allows; it refuses the code when it was used before.
    ///
    /// # Errors
    /// As [`Refused`] says.
    pub(crate) fn check_code(
        &self,
        attempt: &Attempt<'_>,
        device: &MfaDevice,
        code: &str,
    ) -> Result<Change, Refused> {
        self.check_code_of_any(attempt, &[device], code)
    }

    /// The same for a code of one of several devices. Each of them is one more that a guess can meet, so
    /// each counts.
    ///
    /// # Errors
    /// As [`Refused`] says.
    pub(crate) fn check_code_of_any(
        &self,
        attempt: &Attempt<'_>,
        devices: &[&MfaDevice],
        code: &str,
    ) -> Result<Change, Refused> {
        let charged = self.begin(Factor::Code(devices.len()), attempt)?;
        for device in devices {
            let totp = self.totp(device)?;
            let theirs = step_of(attempt.now).saturating_add(device.drift_steps);
            if let Some(step) = matching(&totp, code, theirs) {
                self.attempts().take_back(&charged);
                return Ok(use_step(device, step));
            }
        }
        Err(Refused::Wrong)
    }

    /// Finds two codes in a row on a device whose clock is not known.
    ///
    /// # Errors
    /// As [`Refused`] says.
    pub(crate) fn check_consecutive(
        &self,
        attempt: &Attempt<'_>,
        device: &MfaDevice,
        codes: [&str; 2],
    ) -> Result<InStep, Refused> {
        let charged = self.begin(Factor::Code(1), attempt)?;
        let found = consecutive(&self.totp(device)?, codes, step_of(attempt.now));
        let found = found.ok_or(Refused::Wrong)?;
        self.attempts().take_back(&charged);
        Ok(found)
    }

    fn totp(&self, device: &MfaDevice) -> Result<Totp, InternalError> {
        let place = device.serial_number.as_str().as_bytes();
        let seed = self.seeds.open(place, &device.sealed_seed);
        let seed = seed.map_err(|_| corrupt("the seed of an MFA device"))?;
        let seed: [u8; SEED_LENGTH] = seed
            .as_slice()
            .try_into()
            .map_err(|_| corrupt("the seed of an MFA device"))?;
        authenticator(seed).ok_or_else(|| corrupt("the seed of an MFA device"))
    }

    fn begin(&self, factor: Factor, attempt: &Attempt<'_>) -> Result<Charged, Refused> {
        if let Some(charged) = self.attempts().admit(factor, attempt) {
            return Ok(charged);
        }
        tracing::warn!(
            source = attempt.source,
            ?factor,
            "too many wrong passwords or codes"
        );
        Err(Refused::Throttled)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        let attempts = self.attempts.lock();
        attempts.unwrap_or_else(PoisonError::into_inner)
    }
}

fn corrupt(what: &str) -> InternalError {
    InternalError::Store(StoreError::Corrupt {
        table: "identities",
        what: format!("{what} cannot be read"),
    })
}

/// The change that uses a step of a device up.
pub(crate) fn use_step(device: &MfaDevice, step: i64) -> Change {
    Change::UseMfaStep {
        serial_number: device.serial_number.clone(),
        step,
    }
}

/// HMAC-SHA-1 and six digits: the one form that every authenticator app reads.
fn authenticator(seed: [u8; SEED_LENGTH]) -> Option<Totp> {
    let builder = Builder::new().with_skew(SKEW).with_secret(seed);
    builder.with_step_duration(STEP_SECONDS).build().ok()
}

fn step_of(now: Timestamp) -> i64 {
    now.millis().div_euclid(STEP_MILLIS)
}

/// A code within the skew around a step. Compared in constant time.
fn matching(totp: &Totp, code: &str, step: i64) -> Option<i64> {
    // The far future would overflow where steps become seconds.
    let step = u64::from(u32::try_from(step).ok()?);
    let step = totp.check(code, step * STEP_SECONDS)?;
    i64::try_from(step).ok()
}

fn consecutive(totp: &Totp, [first, second]: [&str; 2], ours: i64) -> Option<InStep> {
    // Searched from where the clock is right outwards, in the order 0, -1, 1, -2, ….
    let distances = (0..=SEARCH_STEPS).flat_map(|distance| [-distance, distance]);
    let mut steps = distances.map(|distance| ours.saturating_add(distance));
    let exact = |code: &str, step: i64| {
        let step = u64::from(u32::try_from(step).ok()?);
        let shown = totp.generate(step * STEP_SECONDS).to_string();
        aws_lc_rs::constant_time::verify_slices_are_equal(shown.as_bytes(), code.as_bytes()).ok()
    };
    let step = steps.find(|step| {
        exact(second, *step).is_some() && exact(first, step.saturating_sub(1)).is_some()
    })?;
    let ahead = step - ours;
    // What the skew forgives anyway is the time it took to type.
    let within_skew = ahead.unsigned_abs() <= u64::from(SKEW);
    Some(InStep {
        step,
        drift_steps: if within_skew { 0 } else { ahead },
    })
}

/// RFC 4648 base32 without padding, as authenticator apps read seeds.
pub(crate) fn base32(bytes: &[u8]) -> Secret {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let bits = group.iter().enumerate().fold(0_u64, |bits, (index, byte)| {
            bits | u64::from(*byte) << (32 - 8 * index)
        });
        let letters = (0..(group.len() * 8).div_ceil(5)).map(|letter| bits >> (35 - 5 * letter));
        text.extend(letters.filter_map(|letter| {
            let letter = usize::try_from(letter & 31).ok()?;
            ALPHABET.get(letter).copied().map(char::from)
        }));
    }
    Secret::new(text)
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factor {
    /// A code of one of so many devices. Whoever tries knows the principal's key or password already,
    /// so the limit is the principal's wherever it comes from, as six digits are few; and others
    /// behind the same address have no part in it.
    Code(usize),
    /// Anybody can try; so that nobody can lock a user out, the strict limit is for a principal from
    /// one address, and it is the only one where the principal came in from there before.
    Password,
}

/// So many at once, and one more after each interval.
#[derive(Clone, Copy, Debug)]
struct Limit {
    burst: i64,
    interval: Duration,
}

/// Six digits, of which three codes are good at any time: guessing one takes years at this rate.
const CODES: Limit = Limit {
    burst: 10,
    interval: Duration::from_mins(5),
};
const PASSWORDS_FROM_ONE_SOURCE: Limit = Limit {
    burst: 10,
    interval: Duration::from_mins(1),
};
const PASSWORDS_OF_ONE_PRINCIPAL: Limit = Limit {
    burst: 100,
    interval: Duration::from_secs(10),
};
const ANY_OF_ONE_SOURCE: Limit = Limit {
    burst: 50,
    interval: Duration::from_secs(10),
};

/// How long a principal is known at an address after the right password.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);
/// Principals at addresses that are known; one more makes the one of longest ago be forgotten.
const KNOWN: usize = 4 * 1024;

/// Counts that are told apart; beyond, those of one limit share a count.
const COUNTS: usize = 16 * 1024;

type Count = [u8; 16];

/// Wrong attempts. An attempt counts from when it begins, so that many at the same time are no way
/// round, and no longer once it was right. Of each count only the time is kept at which it will be
/// empty.
#[derive(Debug, Default)]
struct Attempts {
    empty_at: HashMap<Count, Timestamp>,
    /// When a principal last came in from an address.
    known: HashMap<Count, Timestamp>,
}

/// What an attempt was counted as, and for how long: what is taken back when it was right.
#[derive(Debug)]
struct Charged(Vec<(Count, Duration)>);

impl Attempts {
    /// Counts an attempt; `None`: it must not be made.
    fn admit(&mut self, factor: Factor, attempt: &Attempt<'_>) -> Option<Charged> {
        let now = attempt.now;
        let mut charges = Vec::new();
        for (limit, count) in self.counts(factor, attempt) {
            let count = self.place(limit, count, now);
            let until = self.until(limit, count, now);
            let cost = limit.cost(factor);
            if until > now.plus(limit.whole().saturating_sub(cost)) {
                return None;
            }
            charges.push((count, until, cost));
        }
        let mut charged = Vec::new();
        for (count, until, cost) in charges {
            self.empty_at.insert(count, until.plus(cost));
            charged.push((count, cost));
        }
        Some(Charged(charged))
    }

    /// A right attempt does not count.
    fn take_back(&mut self, charged: &Charged) {
        for (count, cost) in &charged.0 {
            if let Some(until) = self.empty_at.get_mut(count) {
                *until = until.minus(*cost);
            }
        }
    }

    /// A principal came in from an address with the right password.
    fn remember(&mut self, attempt: &Attempt<'_>) {
        let pair = pair(attempt);
        if self.known.len() >= KNOWN && !self.known.contains_key(&pair) {
            let oldest = self.known.iter().min_by_key(|(_, seen)| **seen);
            if let Some(oldest) = oldest.map(|(pair, _)| *pair) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(pair, attempt.now);
    }

    fn knows(&self, attempt: &Attempt<'_>) -> bool {
        let seen = self.known.get(&pair(attempt));
        seen.is_some_and(|seen| attempt.now < seen.plus(KNOWN_FOR))
    }

    fn counts(&self, factor: Factor, attempt: &Attempt<'_>) -> Vec<(Limit, Count)> {
        let principal = attempt.principal.to_lowercase();
        if matches!(factor, Factor::Code(_)) {
            return vec![(CODES, name("code", &principal))];
        }
        let mut counts = vec![(PASSWORDS_FROM_ONE_SOURCE, pair(attempt))];
        if !self.knows(attempt) {
            let source = network(attempt.source);
            counts.push((PASSWORDS_OF_ONE_PRINCIPAL, name("principal", &principal)));
            counts.push((ANY_OF_ONE_SOURCE, name("source", &source)));
        }
        counts
    }

    /// When a count will be empty. A clock that was set back must not leave it full for longer than
    /// it can be.
    fn until(&mut self, limit: Limit, count: Count, now: Timestamp) -> Timestamp {
        let Some(until) = self.empty_at.get_mut(&count) else {
            return now;
        };
        *until = (*until).min(now.plus(limit.whole()));
        (*until).max(now)
    }

    /// The count itself, or the one that is shared when there is no room for more.
    fn place(&mut self, limit: Limit, count: Count, now: Timestamp) -> Count {
        if self.empty_at.len() >= COUNTS && !self.empty_at.contains_key(&count) {
            self.empty_at.retain(|_, until| *until > now);
            if self.empty_at.len() >= COUNTS {
                return name("shared", &limit.interval.as_secs().to_string());
            }
        }
        count
    }
}

impl Limit {
    /// How long a full count takes to become empty.
    fn whole(self) -> Duration {
        self.interval * u32::try_from(self.burst).unwrap_or(u32::MAX)
    }

    /// What an attempt counts. More than there is room for at all would never be admitted.
    fn cost(self, factor: Factor) -> Duration {
        let units = match factor {
            Factor::Code(devices) => u32::try_from(devices).unwrap_or(u32::MAX).max(1),
            Factor::Password => 1,
        };
        self.interval.saturating_mul(units).min(self.whole())
    }
}

/// A principal from one address.
fn pair(attempt: &Attempt<'_>) -> Count {
    let (source, principal) = (network(attempt.source), attempt.principal.to_lowercase());
    name("pair", &format!("{source} {principal}"))
}

/// The network that one subscriber has: of IPv6 addresses everybody has as many as he likes.
fn network(source: &str) -> String {
    match source.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => source.to_owned(),
    }
}

/// A stranger's text of any length as a name of fixed length.
fn name(kind: &str, text: &str) -> Count {
    let mut name = [0; 16];
    let digest = digest(&SHA256, format!("{kind}\0{text}").as_bytes());
    for (to, from) in name.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_777_881_600_000);

    fn secrets() -> Secrets {
        Secrets::new(&RootKey::from_bytes([5; 32])).unwrap()
    }

    fn attempt(principal: &str, now: Timestamp) -> Attempt<'_> {
        Attempt {
            principal,
            source: "192.0.2.1",
            now,
        }
    }

    /// Whether one more code of one device may be tried.
    fn admits(attempts: &mut Attempts, principal: &str, now: Timestamp) -> bool {
        let charged = attempts.admit(Factor::Code(1), &attempt(principal, now));
        charged.is_some()
    }

    fn device(secrets: &Secrets) -> (MfaDevice, Totp) {
        let serial_number = Arn::new("iam", "", "111122223333", "mfa/alice");
        let (seed, sealed_seed) = secrets.new_seed(&serial_number).unwrap();
        let device = MfaDevice {
            serial_number,
            sealed_seed,
            created: NOW,
            user: None,
            enabled: None,
            drift_steps: 0,
            tags: Vec::new(),
        };
        (device, authenticator(*seed).unwrap())
    }

    fn code(totp: &Totp, step: i64) -> String {
        totp.generate(u64::try_from(step).unwrap() * 30).to_string()
    }

    #[tokio::test]
    async fn a_password_is_its_own_and_nobodys_takes_the_same_way() {
        let secrets = secrets();
        let password = Secret::new("correct horse battery");
        let hash = secrets.hash_password(&password).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let other = secrets.hash_password(&password).await.unwrap();
        assert_ne!(hash, other, "salted");
        let tried = attempt("alice", NOW);
        let right = secrets.check_password(&tried, &password, Some(&hash)).await;
        assert!(right.is_ok());
        let wrong = Secret::new("correct horse batterx");
        let refused = secrets.check_password(&tried, &wrong, Some(&hash)).await;
        assert!(matches!(refused, Err(Refused::Wrong)));
        let nobody = secrets.check_password(&tried, &password, None).await;
        assert!(matches!(nobody, Err(Refused::Wrong)));
        let broken = secrets.check_password(&tried, &password, Some("x")).await;
        assert!(matches!(broken, Err(Refused::Internal(_))));
        assert!(PasswordHash::new(NOBODYS_HASH).is_ok());
    }

    #[tokio::test]
    async fn more_than_may_wait_are_turned_away() {
        let secrets = secrets();
        let places = secrets.waiting.try_acquire_many(HASHES_WAITING as u32);
        let refused = secrets.hash_password(&Secret::new("x")).await;
        assert!(matches!(refused, Err(Refused::Throttled)));
        drop(places.unwrap());
        assert!(secrets.hash_password(&Secret::new("x")).await.is_ok());
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let totp = authenticator(*b"12345678901234567890").unwrap();
        for (time, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (2_000_000_000, "279037"),
        ] {
            assert_eq!(totp.generate(time).to_string(), expected);
        }
    }

    #[test]
    fn a_code_is_good_around_its_step_alone_and_names_it() {
        let secrets = secrets();
        let (mut device, totp) = device(&secrets);
        let now = step_of(NOW);
        for (ahead, good) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let outcome =
                secrets.check_code(&attempt("u", NOW), &device, &code(&totp, now + ahead));
            match outcome {
                Ok(Change::UseMfaStep { step, .. }) => {
                    assert_eq!((step, good), (now + ahead, true))
                }
                Err(Refused::Wrong) => assert!(!good, "{ahead}"),
                other => panic!("{other:?}"),
            }
        }
        device.drift_steps = 7;
        let outcome = secrets.check_code(&attempt("u", NOW), &device, &code(&totp, now + 8));
        assert!(outcome.is_ok());
        for garbage in ["", "12345", "1234567", "+12345", "abcdef", "１２３４５６"] {
            let outcome = secrets.check_code(&attempt("v", NOW), &device, garbage);
            assert!(matches!(outcome, Err(Refused::Wrong)), "{garbage}");
        }
    }

    #[test]
    fn two_codes_in_a_row_tell_the_drift() {
        let secrets = secrets();
        let (device, totp) = device(&secrets);
        let now = step_of(NOW);
        for (ahead, drift) in [(0, 0), (1, 0), (-1, 0), (2, 2), (-9, -9), (20, 20)] {
            let codes = [code(&totp, now + ahead - 1), code(&totp, now + ahead)];
            let found =
                secrets.check_consecutive(&attempt("u", NOW), &device, [&codes[0], &codes[1]]);
            let expected = InStep {
                step: now + ahead,
                drift_steps: drift,
            };
            assert_eq!(found.unwrap(), expected);
        }
        let (one, two) = (code(&totp, now), code(&totp, now + 1));
        for codes in [[&one, &one], [&two, &one], [&one, &code(&totp, now + 2)]] {
            let refused =
                secrets.check_consecutive(&attempt("u", NOW), &device, [codes[0], codes[1]]);
            assert!(matches!(refused, Err(Refused::Wrong)), "{codes:?}");
        }
        let far = [code(&totp, now + 21), code(&totp, now + 22)];
        let refused = secrets.check_consecutive(&attempt("u", NOW), &device, [&far[0], &far[1]]);
        assert!(matches!(refused, Err(Refused::Wrong)));
    }

    #[test]
    fn a_code_is_found_on_one_of_many_devices_and_a_wrong_one_counts_for_each() {
        let secrets = secrets();
        let (one, _) = device(&secrets);
        let (other, totp) = device(&secrets);
        let devices = [&one, &one, &one, &one, &one, &one, &other];
        for _ in 0..20 {
            let code = code(&totp, step_of(NOW));
            let found = secrets.check_code_of_any(&attempt("u", NOW), &devices, &code);
            assert!(matches!(found, Ok(Change::UseMfaStep { .. })));
        }
        let guess = |devices: &[&MfaDevice]| {
            let guessed = secrets.check_code_of_any(&attempt("u", NOW), devices, "no");
            matches!(guessed, Err(Refused::Wrong))
        };
        // Seven and three of ten.
        assert!(guess(&devices));
        assert!(!guess(&devices));
        assert!(guess(&[&one; 3]));
        assert!(!guess(&[&one]));
        // Of so many that one attempt is all there is.
        let many = [&one; 20];
        let tried = secrets.check_code_of_any(&attempt("v", NOW), &many, "no");
        assert!(matches!(tried, Err(Refused::Wrong)));
    }

    #[tokio::test]
    async fn who_came_in_before_is_not_locked_out_by_strangers() {
        let secrets = secrets();
        let password = Secret::new("correct horse battery");
        let hash = secrets.hash_password(&password).await.unwrap();
        let here = attempt("alice", NOW);
        let right = secrets.check_password(&here, &password, Some(&hash)).await;
        assert!(right.is_ok());
        // Guesses from everywhere, and of any name from here.
        for index in 0..2000 {
            let (name, source) = (format!("user{index}"), format!("198.51.100.{index}"));
            let (mut of_alice, mut from_here) = (here, here);
            (of_alice.source, from_here.principal) = (&source, &name);
            secrets.attempts().admit(Factor::Password, &of_alice);
            secrets.attempts().admit(Factor::Password, &from_here);
        }
        let mut elsewhere = here;
        elsewhere.source = "203.0.113.9";
        let mut bob = here;
        bob.principal = "bob";
        let mut attempts = secrets.attempts();
        assert!(attempts.admit(Factor::Password, &elsewhere).is_none());
        assert!(attempts.admit(Factor::Password, &bob).is_none());
        // The strict limit stays.
        let admitted = (0..100).filter(|_| attempts.admit(Factor::Password, &here).is_some());
        assert_eq!(admitted.count(), 10);
        // Not for ever.
        let mut later = here;
        later.now = NOW.plus(KNOWN_FOR);
        assert!(!attempts.knows(&later));
    }

    #[test]
    fn wrong_codes_of_one_do_not_keep_others_of_the_same_address_out() {
        let mut attempts = Attempts::default();
        for index in 0..100 {
            assert!(admits(&mut attempts, &format!("AIDA{index}"), NOW));
        }
        let password = attempts.admit(Factor::Password, &attempt("bob", NOW));
        assert!(password.is_some());
    }

    #[test]
    fn what_was_charged_is_what_is_taken_back() {
        let mut attempts = Attempts::default();
        for index in 0..COUNTS {
            attempts
                .empty_at
                .insert(name("filler", &index.to_string()), NOW.plus(KNOWN_FOR));
        }
        // There is no room: the shared count is charged.
        let charged = attempts.admit(Factor::Code(1), &attempt("AIDA", NOW));
        let shared = attempts.empty_at.len();
        // Meanwhile there is room again.
        attempts
            .empty_at
            .retain(|_, until| *until < NOW.plus(KNOWN_FOR));
        assert_eq!(shared - COUNTS, attempts.empty_at.len());
        attempts.take_back(&charged.unwrap());
        assert!(attempts.empty_at.values().all(|until| *until <= NOW));
    }

    #[test]
    fn those_who_are_known_are_bounded() {
        let mut attempts = Attempts::default();
        for index in 0..=KNOWN {
            let now = NOW.plus(Duration::from_secs(u64::try_from(index).unwrap()));
            attempts.remember(&attempt(&format!("user{index}"), now));
        }
        assert_eq!(attempts.known.len(), KNOWN);
        assert!(!attempts.knows(&attempt("user0", NOW)));
        assert!(attempts.knows(&attempt("user1", NOW)));
    }

    #[test]
    fn a_seed_opens_for_its_own_device_alone() {
        let secrets = secrets();
        let (mut device, _) = device(&secrets);
        device.serial_number = Arn::new("iam", "", "111122223333", "mfa/bob");
        let outcome = secrets.check_code(&attempt("u", NOW), &device, "000000");
        assert!(matches!(outcome, Err(Refused::Internal(_))));
    }

    #[test]
    fn seeds_are_written_as_rfc_4648_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()).expose(), text);
        }
    }

    #[test]
    fn guessing_codes_ends_wherever_it_comes_from_and_goes_on_slowly() {
        let mut attempts = Attempts::default();
        let from = |index: usize| format!("192.0.2.{index}");
        let tries = |attempts: &mut Attempts, now| {
            let admitted = (0..200).filter(|index| {
                let source = from(*index);
                let attempt = Attempt {
                    principal: "AIDA",
                    source: &source,
                    now,
                };
                attempts.admit(Factor::Code(1), &attempt).is_some()
            });
            admitted.count()
        };
        assert_eq!(tries(&mut attempts, NOW), 10);
        assert_eq!(tries(&mut attempts, NOW.plus(Duration::from_mins(4))), 0);
        assert_eq!(tries(&mut attempts, NOW.plus(Duration::from_mins(5))), 1);
        assert_eq!(tries(&mut attempts, NOW.plus(Duration::from_hours(2))), 10);
    }

    #[test]
    fn right_ones_do_not_count() {
        let mut attempts = Attempts::default();
        for _ in 0..1000 {
            let charged = attempts.admit(Factor::Code(1), &attempt("AIDA", NOW));
            attempts.take_back(&charged.unwrap());
        }
    }

    #[test]
    fn one_address_cannot_lock_a_user_out_elsewhere() {
        let mut attempts = Attempts::default();
        let here = attempt("Alice", NOW);
        let admitted = (0..100).filter(|_| attempts.admit(Factor::Password, &here).is_some());
        assert_eq!(admitted.count(), 10);
        let elsewhere = Attempt {
            source: "198.51.100.1",
            ..here
        };
        assert!(attempts.admit(Factor::Password, &elsewhere).is_some());
        let cased = Attempt {
            principal: "aLICE",
            ..here
        };
        assert!(attempts.admit(Factor::Password, &cased).is_none());
    }

    #[test]
    fn one_network_tries_so_many_names_only() {
        let mut attempts = Attempts::default();
        let admitted = (0..1000).filter(|index| {
            let (principal, source) = (format!("user{index}"), format!("2001:db8::{index:x}"));
            let attempt = Attempt {
                principal: &principal,
                source: &source,
                now: NOW,
            };
            attempts.admit(Factor::Password, &attempt).is_some()
        });
        assert_eq!(admitted.count(), 50);
    }

    #[test]
    fn a_flood_of_names_and_addresses_takes_bounded_memory_and_frees_nobody() {
        let mut attempts = Attempts::default();
        let guessed = attempt("AIDA", NOW);
        while attempts.admit(Factor::Code(1), &guessed).is_some() {}
        for index in 0..COUNTS {
            let (principal, source) = (format!("u{index}"), format!("s{index}"));
            let attempt = Attempt {
                principal: &principal,
                source: &source,
                now: NOW,
            };
            attempts.admit(Factor::Password, &attempt);
        }
        assert!(attempts.empty_at.len() <= COUNTS + 4);
        assert!(attempts.admit(Factor::Code(1), &guessed).is_none());
        let later = NOW.plus(Duration::from_hours(2));
        assert!(admits(&mut attempts, "AIDA", later));
        assert!(admits(&mut attempts, "AIDB", later));
        assert!(attempts.empty_at.len() < 10);
    }

    #[test]
    fn a_clock_set_back_does_not_lock_for_long() {
        let mut attempts = Attempts::default();
        while admits(&mut attempts, "AIDA", NOW) {}
        let before = NOW.minus(Duration::from_hours(1000));
        assert!(!admits(&mut attempts, "AIDA", before));
        let after = before.plus(Duration::from_hours(2));
        assert!(admits(&mut attempts, "AIDA", after));
    }
}
