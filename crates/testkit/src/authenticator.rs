//! The authenticator app of a test person: codes of a virtual MFA device, made from its seed as
//! RFC 6238 says, and independently of the server's own code.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use aws_lc_rs::hmac;

/// How long a code is shown.
const STEP: Duration = Duration::from_secs(30);

/// Shows codes for one seed.
#[derive(Clone)]
pub struct Authenticator {
    seed: Vec<u8>,
}

impl Authenticator {
    /// With a seed in Base32, as a person would type it off the screen.
    ///
    /// # Errors
    /// When it is not Base32.
    pub fn new(seed: &str) -> Result<Self> {
        let mut bits = 0_u32;
        let mut count = 0;
        let mut bytes = Vec::new();
        for letter in seed.trim().trim_end_matches('=').chars() {
            let value = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
                .find(letter.to_ascii_uppercase())
                .with_context(|| format!("`{letter}` is not Base32"))?;
            bits = bits << 5 | u32::try_from(value)?;
            count += 5;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count).to_be_bytes()[3]);
            }
        }
        if bytes.len() < 10 {
            bail!("a seed of {} bytes is none", bytes.len());
        }
        Ok(Self { seed: bytes })
    }

    /// The code of `steps` from now: 0 is the one that is shown, -1 the one before.
    ///
    /// # Errors
    /// When the clock is before 1970.
    pub fn code(&self, steps: i64) -> Result<String> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let step = i64::try_from(since.as_secs() / STEP.as_secs())? + steps;
        Ok(self.code_of(step))
    }

    fn code_of(&self, step: i64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.seed);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 15);
        let word = u32::from_be_bytes([
            tag[offset] & 0x7f,
            tag[offset + 1],
            tag[offset + 2],
            tag[offset + 3],
        ]);
        format!("{:06}", word % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of RFC 6238, appendix B, cut to six digits.
    #[test]
    fn the_codes_are_those_of_the_rfc() {
        let shown = Authenticator::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_234_567_890, "005924"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(shown.code_of(time / 30), code);
        }
    }
}
