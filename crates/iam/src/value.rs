//! The typed values that conditions compare: decimal numbers, points in time, networks, bytes. Each
//! reads a text and either understands all of it or nothing.

use std::{cmp::Ordering, net::IpAddr};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// A decimal number, exact: `10`, `10.0` and `1e1` are equal, and no digit is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: Vec<u8>,
    /// Power of ten of the place before the first digit: `0.digits × 10^exponent`.
    exponent: i64,
}

impl Decimal {
    /// Sign, digits with a point somewhere, exponent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits,
                exponent: 0,
            });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
        Some(Self {
            negative,
            digits,
            exponent: exponent.checked_add(point)?,
        })
    }

    fn compare_size(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self
                .exponent
                .cmp(&other.exponent)
                .then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Enough for every number anybody compares, and far from overflow.
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.compare_size(other),
            (true, true) => other.compare_size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

/// A point in time, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(i128);

const NANOS: i128 = 1_000_000_000;

impl Instant {
    /// ISO 8601 down to the year alone, UTC where no zone is given; or seconds since the epoch. Four
    /// digits are a year.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let seconds = text.strip_prefix(['-', '+']).unwrap_or(text);
        let number = seconds
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if number && (seconds.len() != 4 || seconds.len() != text.len() || seconds.contains('.')) {
            return parse_epoch(text);
        }
        parse_iso(text)
    }
}

fn parse_epoch(text: &str) -> Option<Instant> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    if whole.is_empty() || whole.len() > 15 || !all_digits(whole) {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let nanos = whole * NANOS + parse_fraction(fraction)?;
    Some(Instant(if negative { -nanos } else { nanos }))
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Nanoseconds of digits after the point; digits beyond the ninth are cut off.
fn parse_fraction(digits: &str) -> Option<i128> {
    if !all_digits(digits) {
        return None;
    }
    let nine = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    Some(nine.fold(0, |nanos, digit| nanos * 10 + i128::from(digit - b'0')))
}

fn parse_iso(text: &str) -> Option<Instant> {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let days = parse_date(date, time.is_some())?;
    let (clock, offset) = match time {
        Some(time) => parse_time(time)?,
        None => (0, 0),
    };
    let seconds = i128::from(days) * 86_400 - i128::from(offset);
    Some(Instant(seconds * NANOS + clock))
}

fn number(text: &str, length: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    if text.len() != length || !all_digits(text) {
        return None;
    }
    text.parse().ok().filter(|value| range.contains(value))
}

/// Days since the epoch of `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, or before a time also `YYYYMMDD`.
fn parse_date(text: &str, before_time: bool) -> Option<i64> {
    if before_time && text.len() == 8 && all_digits(text) {
        return days_since_epoch(
            number(text.get(..4)?, 4, 0..=9999)?,
            number(text.get(4..6)?, 2, 1..=12)?,
            number(text.get(6..)?, 2, 1..=31)?,
        );
    }
    let mut parts = text.split('-');
    let year = number(parts.next()?, 4, 0..=9999)?;
    let month = match parts.next() {
        Some(month) => number(month, 2, 1..=12)?,
        None => 1,
    };
    let day = match parts.next() {
        Some(day) => number(day, 2, 1..=31)?,
        None => 1,
    };
    if parts.next().is_some() {
        return None;
    }
    days_since_epoch(year, month, day)
}

/// Of a date of the Gregorian calendar; `None` for a day that its month does not have.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day > length {
        return None;
    }
    // Years counted from March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// Nanoseconds since midnight, and the zone's offset in seconds.
fn parse_time(text: &str) -> Option<(i128, i64)> {
    let zone = text.find(['Z', 'z', '+', '-']);
    let (clock, zone) = match zone {
        Some(at) => (text.get(..at)?, text.get(at..)?),
        None => (text, ""),
    };
    Some((parse_clock(clock)?, parse_zone(zone)?))
}

/// `hh:mm`, `hh:mm:ss`, `hh:mm:ss.fraction`, and `hhmm`, `hhmmss` of the basic form.
fn parse_clock(text: &str) -> Option<i128> {
    let (text, fraction) = match text.split_once(['.', ',']) {
        Some((_, "")) => return None,
        Some((text, fraction)) => (text, fraction),
        None => (text, ""),
    };
    let (hours, minutes, seconds) = if text.contains(':') {
        let mut parts = text.split(':');
        let split = (parts.next()?, parts.next()?, parts.next());
        if parts.next().is_some() {
            return None;
        }
        split
    } else {
        (
            text.get(..2)?,
            text.get(2..4)?,
            text.get(4..).filter(|rest| !rest.is_empty()),
        )
    };
    if seconds.is_none() && !fraction.is_empty() {
        return None;
    }
    let hours = number(hours, 2, 0..=23)?;
    let minutes = number(minutes, 2, 0..=59)?;
    let seconds = number(seconds.unwrap_or("00"), 2, 0..=59)?;
    let whole = i128::from(hours * 3600 + minutes * 60 + seconds);
    Some(whole * NANOS + parse_fraction(fraction)?)
}

/// `Z`, `±hh:mm`, `±hhmm` or `±hh`; nothing is UTC.
fn parse_zone(text: &str) -> Option<i64> {
    if text.is_empty() || text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+')?),
    };
    let minutes = match text.len() {
        2 => "00",
        4 => text.get(2..)?,
        5 => text.get(2..)?.strip_prefix(':')?,
        _ => return None,
    };
    let hours = number(text.get(..2)?, 2, 0..=23)?;
    Some(sign * (hours * 3600 + number(minutes, 2, 0..=59)? * 60))
}

/// An address range of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    /// Leading bits that count.
    bits: u32,
}

impl Network {
    /// `address/bits`, or a single address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if !bits.is_empty() && all_digits(bits) => bits.parse().ok()?,
            Some(_) => return None,
            None => widest,
        };
        (bits <= widest).then_some(Self { address, bits })
    }

    /// Whether an address is in it. Addresses of the other family never are.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - self.bits.min(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - self.bits.min(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The bytes of standard base64, with or without padding.
pub(crate) fn parse_base64(text: &str) -> Option<Vec<u8>> {
    const READER: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    READER.decode(text).ok()
}

/// `true` or `false`, in any case.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn numbers_compare_by_value() {
        for (left, right) in [
            ("10", "10.0"),
            ("10", "1e1"),
            ("+5", "5."),
            (".5", "0.50"),
            ("0", "-0.0e7"),
            ("1200", "12E+2"),
            ("0.001", "1e-3"),
        ] {
            assert_eq!(decimal(left), decimal(right));
        }
        let ascending = [
            "-1e3",
            "-20",
            "-3",
            "-0.5",
            "0",
            "0.05",
            "0.5",
            "3",
            "20",
            "20.01",
            "3599",
            "3600",
            "9007199254740992",
            "9007199254740993",
            "1e30",
        ];
        for pair in ascending.windows(2) {
            assert!(decimal(pair[0]) < decimal(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn what_is_left_over_makes_it_no_number() {
        for text in [
            "",
            "-",
            ".",
            "e1",
            "1e",
            "1e+",
            "10 ",
            " 10",
            "10x",
            "0x10",
            "1,5",
            "NaN",
            "inf",
            "1.2.3",
            "--1",
            "1e1.5",
            "1e9999999999",
            "１",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn one_point_in_time_has_many_forms() {
        let forms = [
            "2026-05-04T08:00:00Z",
            "2026-05-04T08:00Z",
            "2026-05-04T08:00:00",
            "2026-05-04T08:00:00.000Z",
            "2026-05-04T17:00:00+09:00",
            "2026-05-04T02:30:00-0530",
            "2026-05-04T10:00:00+02",
            "20260504T080000Z",
            "1777881600",
            "1777881600.0",
        ];
        for form in forms {
            assert_eq!(
                Instant::parse(form),
                Some(Instant(1_777_881_600 * NANOS)),
                "{form}"
            );
        }
        for (short, long) in [
            ("2026", "2026-01-01T00:00:00Z"),
            ("2026-05", "2026-05-01T00:00:00Z"),
            ("2026-05-04", "2026-05-04T00:00:00Z"),
            ("2024-02-29", "1709164800"),
            ("1969-12-31T23:59:59Z", "-1"),
            ("0", "1970"),
        ] {
            assert!(Instant::parse(short).is_some(), "{short}");
            assert_eq!(Instant::parse(short), Instant::parse(long), "{short}");
        }
        assert!(Instant::parse("1777881600.5") > Instant::parse("2026-05-04T08:00:00.4Z"));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-02-29",
            "2026-5-4",
            "2026-05-04 08:00:00Z",
            "2026-05-04T24:00:00Z",
            "2026-05-04T08Z",
            "2026-05-04T08:00:00.Z",
            "2026-05-04T",
            "2026-05-04T08:00:00+9",
            "2026-05-04T08:00:00Zx",
            "1e9",
            "1777881600.",
            "--1",
            "1777881600000000",
            "2026-05-04T08:00:00ü",
        ] {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
    }

    #[test]
    fn networks_hold_addresses_of_their_family() {
        let holds = |network: &str, address: &str| {
            Network::parse(network)
                .unwrap_or_else(|| panic!("{network}"))
                .contains(address.parse().expect(address))
        };
        assert!(holds("203.0.113.0/24", "203.0.113.255"));
        assert!(!holds("203.0.113.0/24", "203.0.114.0"));
        assert!(
            holds("203.0.113.77/24", "203.0.113.1"),
            "host bits do not count"
        );
        assert!(holds("192.0.2.1", "192.0.2.1"));
        assert!(!holds("192.0.2.1", "192.0.2.2"));
        assert!(holds("0.0.0.0/0", "255.255.255.255"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(!holds("::/0", "192.0.2.1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(holds("2001:db8:1234::/48", "2001:DB8:1234:ffff::1"));
        assert!(!holds("2001:db8:1234::/48", "2001:db8:1235::1"));
        assert!(holds("2001:db8::1", "2001:db8:0:0::1"));
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0",
            "10.0.0.0/8/8",
            "fe80::1%eth0",
            "010.0.0.1",
            "10.0.0.0/8 ",
            "10.0.0.0/255.0.0.0",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        assert_eq!(parse_base64("QmluYXJ5").as_deref(), Some(&b"Binary"[..]));
        assert_eq!(parse_base64("YQ==").as_deref(), Some(&b"a"[..]));
        assert_eq!(parse_base64("YQ").as_deref(), Some(&b"a"[..]));
        assert_eq!(parse_base64(""), Some(Vec::new()));
        assert_eq!(parse_base64("Y Q="), None);
        assert_eq!(parse_base64("_-_-"), None);
    }
}
