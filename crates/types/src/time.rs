//! Points in time as Sortie keeps and shows them: Unix milliseconds. Reading a clock is not done
//! here.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// A text that is not a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 8601 date and time")]
pub struct ParseTimestampError;

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// From seconds with a fraction, as AWS JSON protocols carry times. `None` when out of range.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked first"
    )]
    pub fn from_epoch_seconds(seconds: f64) -> Option<Self> {
        // Year 9999: what ISO 8601 with four digits can still show.
        (seconds.is_finite() && (0.0..253_402_300_800.0).contains(&seconds))
            .then(|| Self((seconds * 1000.0).round() as i64))
    }

    /// Seconds with a fraction of milliseconds, as AWS JSON protocols carry times.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact up to the year 287396")]
    pub fn epoch_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// This time and `by` more, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// This time and `by` less, saturating.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// ISO 8601 in UTC with seconds, as CloudTrail and the query protocol write it:
    /// `2026-05-04T08:00:00Z`.
    #[must_use]
    pub fn iso_seconds(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%SZ")
    }

    /// The basic form that Signature Version 4 uses: `20260504T080000Z`.
    #[must_use]
    pub fn iso_basic(self) -> String {
        self.format("%Y%m%dT%H%M%SZ")
    }

    fn format(self, form: &str) -> String {
        let time = jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        time.strftime(form).to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso_seconds())
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// Reads ISO 8601 with a zone (`2026-05-04T08:00:00Z`, `…+09:00`), and the basic form of
    /// Signature Version 4.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(time.as_millisecond()));
        }
        jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text)
            .ok()
            .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|zoned| Self(zoned.timestamp().as_millisecond()))
            .ok_or(ParseTimestampError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_iso_forms_round_trip_to_the_second() {
        let time = Timestamp::from_millis(1_777_881_600_000);
        assert_eq!(time.iso_seconds(), "2026-05-04T08:00:00Z");
        assert_eq!(time.iso_basic(), "20260504T080000Z");
        assert_eq!(time.iso_seconds().parse(), Ok(time));
        assert_eq!(time.iso_basic().parse(), Ok(time));
        assert_eq!("2026-05-04T17:00:00+09:00".parse(), Ok(time));
    }

    #[test]
    fn texts_that_are_no_times_are_refused() {
        for text in [
            "",
            "yesterday",
            "20260504T080000",
            "2026-13-01T00:00:00Z",
            "20261301T000000Z",
        ] {
            assert_eq!(
                text.parse::<Timestamp>(),
                Err(ParseTimestampError),
                "{text}"
            );
        }
    }

    #[test]
    fn epoch_seconds_out_of_range_are_refused() {
        for seconds in [f64::NAN, f64::INFINITY, -1.0, 1e18] {
            assert_eq!(Timestamp::from_epoch_seconds(seconds), None);
        }
        assert_eq!(
            Timestamp::from_epoch_seconds(1.0005).map(Timestamp::millis),
            Some(1001)
        );
    }
}
