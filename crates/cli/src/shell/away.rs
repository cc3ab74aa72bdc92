//! What a person is told while the connection is away: one line that is renewed in place. Pure.

use std::time::Duration;

/// How long a connection is away before the person is told.
pub(crate) const QUIET: Duration = Duration::from_secs(2);

/// How often the line is renewed.
pub(crate) const RENEWAL: Duration = Duration::from_secs(1);

/// To the beginning of the line, and without what it holds.
const AGAIN: &str = "\r\x1b[K";

/// The line, after being away for so long, with the person's way out. Begins a line of its own at
/// first, and takes the place of its predecessor when it is `renewed`.
pub(crate) fn notice(away: Duration, renewed: bool, way_out: &str) -> String {
    let begin = if renewed { AGAIN } else { "\r\n" };
    format!(
        "{begin}[sortie: connection lost for {}, coming back; {way_out}]",
        spoken(away)
    )
}

/// The longest [`notice`] has at most so many columns.
pub(crate) const COLUMNS: u32 = 80;

/// The last line, once the connection is back.
pub(crate) fn farewell(away: Duration) -> String {
    format!(
        "{AGAIN}[sortie: connected again after {}]\r\n",
        spoken(away)
    )
}

/// `5 s`, `2 min 5 s`, `1 h 2 min`.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_short_as_they_can_be() {
        for (seconds, text) in [
            (2, "2 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (125, "2 min 5 s"),
            (3_725, "1 h 2 min"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_line_keeps_its_place_and_fits_an_ordinary_terminal() {
        let first = notice(Duration::from_secs(2), false, "Enter ~. leaves");
        assert!(first.starts_with("\r\n[sortie: connection lost for 2 s"));
        let longest = notice(
            Duration::from_secs(23 * 3600 + 3599),
            true,
            "Enter ~. leaves",
        );
        assert!(longest.starts_with("\r\x1b[K["));
        assert!(longest.len() - AGAIN.len() < COLUMNS as usize);
        assert!(farewell(Duration::from_secs(3)).ends_with("\r\n"));
    }
}
