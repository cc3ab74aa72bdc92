//! The figures: medians over the rounds, ratios, and what is demanded of them.

use std::fmt::Write;

/// Whose figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ours,
    /// `ssh -J`.
    Jump,
    /// ssh over a reverse tunnel.
    Reverse,
}

/// What is demanded of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judge {
    None,
    /// In the row's unit.
    AtLeast {
        limit: f64,
    },
    /// In the row's unit.
    AtMost {
        limit: f64,
        aim: f64,
    },
    /// In parts of what `ssh -J` takes.
    TimesJump {
        limit: f64,
        aim: f64,
    },
    /// As fast as ssh over a reverse tunnel, if possible as `ssh -J`.
    Echo,
    /// As much as `ssh -J`.
    AtLeastJump,
    /// So many times what ssh over a reverse tunnel moves.
    TimesReverse {
        limit: f64,
        aim: f64,
    },
}

/// One measure.
struct Row {
    name: String,
    judge: Judge,
    values: Vec<(Peer, f64)>,
}

/// All measures, in the order of their declaration.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn declare(&mut self, name: &str, judge: Judge) {
        self.rows.push(Row {
            name: name.to_owned(),
            judge,
            values: Vec::new(),
        });
    }

    /// One round's figure of a declared row.
    pub(crate) fn add(&mut self, name: &str, peer: Peer, value: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.values.push((peer, value));
        }
    }

    /// The rows whose limit is not kept, each with its figure.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self
            .rows
            .iter()
            .filter(|row| row.verdict().1 == Some(false));
        missed
            .map(|row| format!("{}: {}", row.name, row.cell(Peer::Ours)))
            .collect()
    }

    /// The rows with a limit that could not be judged, because a peer was not measured.
    pub(crate) fn unjudged(&self) -> Vec<&str> {
        let unjudged = self.rows.iter().filter(|row| {
            let (demand, kept) = row.verdict();
            !demand.is_empty() && kept.is_none()
        });
        unjudged.map(|row| row.name.as_str()).collect()
    }

    /// As Markdown.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from(
            "| measure | Sortie | `ssh -J` | ssh, reverse tunnel | ÷ `ssh -J` | ÷ reverse | limit (aim) | kept |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let (demand, kept) = row.verdict();
            let kept = match kept {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let cells = [Peer::Ours, Peer::Jump, Peer::Reverse].map(|peer| row.cell(peer));
            let ratios = [Peer::Jump, Peer::Reverse].map(|peer| match row.ratio(peer) {
                Some(ratio) => format!("{ratio:.2}"),
                None => String::new(),
            });
            let _ = writeln!(
                text,
                "| {} | {} | {} | {demand} | {kept} |",
                row.name,
                cells.join(" | "),
                ratios.join(" | ")
            );
        }
        text
    }
}

impl Row {
    fn of(&self, peer: Peer) -> Vec<f64> {
        let own = self.values.iter().filter(|(other, _)| *other == peer);
        let mut values: Vec<f64> = own.map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, peer: Peer) -> Option<f64> {
        let values = self.of(peer);
        let upper = values.get(values.len() / 2)?;
        let lower = values.get(values.len().saturating_sub(1) / 2)?;
        Some((lower + upper) / 2.0)
    }

    /// Ours in parts of the peer's.
    fn ratio(&self, peer: Peer) -> Option<f64> {
        let theirs = self.median(peer).filter(|median| *median > 0.0)?;
        Some(self.median(Peer::Ours)? / theirs)
    }

    /// The median, and the rounds it is of.
    fn cell(&self, peer: Peer) -> String {
        let values = self.of(peer);
        let (Some(median), Some(first), Some(last)) =
            (self.median(peer), values.first(), values.last())
        else {
            return "–".to_owned();
        };
        match values.len() {
            1 => figure(median),
            _ => format!("{} ({}–{})", figure(median), figure(*first), figure(*last)),
        }
    }

    /// What is demanded, in words, and whether it is kept, where that can be said.
    fn verdict(&self) -> (String, Option<bool>) {
        let ours = self.median(Peer::Ours);
        let within = |value: Option<f64>, limit: f64| value.map(|value| value <= limit);
        match self.judge {
            Judge::None => (String::new(), None),
            Judge::AtLeast { limit } => {
                let kept = ours.map(|ours| ours >= limit);
                (format!("≥ {}", figure(limit)), kept)
            }
            Judge::AtMost { limit, aim } if limit <= aim => {
                (format!("≤ {}", figure(limit)), within(ours, limit))
            }
            Judge::AtMost { limit, aim } => {
                let words = format!("≤ {} ({})", figure(limit), figure(aim));
                (words, within(ours, limit))
            }
            Judge::TimesJump { limit, aim } => {
                let words = format!("≤ {limit} of `ssh -J` ({aim})");
                (words, within(self.ratio(Peer::Jump), limit))
            }
            Judge::Echo => {
                let words = "≤ reverse tunnel (≤ `ssh -J`)".to_owned();
                (words, within(self.ratio(Peer::Reverse), 1.0))
            }
            Judge::AtLeastJump => {
                let ratio = self.ratio(Peer::Jump);
                ("≥ `ssh -J`".to_owned(), ratio.map(|ratio| ratio >= 1.0))
            }
            Judge::TimesReverse { limit, aim } => {
                let ratio = self.ratio(Peer::Reverse);
                let words = format!("≥ {limit} × reverse tunnel ({aim})");
                (words, ratio.map(|ratio| ratio >= limit))
            }
        }
    }
}

/// The value below which this part of them lies.
pub(crate) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * part).ceil() as usize;
    values
        .get(index.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Three figures or so.
fn figure(value: f64) -> String {
    if value == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(judge: Judge, ours: &[f64], jump: &[f64], reverse: &[f64]) -> Table {
        let mut table = Table::default();
        table.declare("it", judge);
        for (peer, values) in [
            (Peer::Ours, ours),
            (Peer::Jump, jump),
            (Peer::Reverse, reverse),
        ] {
            for value in values {
                table.add("it", peer, *value);
            }
        }
        table
    }

    #[test]
    fn medians_are_judged_by_their_ratio() {
        let judge = Judge::TimesJump {
            limit: 0.25,
            aim: 0.1,
        };
        let kept = table(judge, &[99.0, 24.0, 1.0], &[100.0, 90.0, 110.0], &[]);
        assert!(kept.missed().is_empty());
        let missed = table(judge, &[26.0], &[100.0], &[]);
        assert_eq!(missed.missed(), ["it: 26.0"]);
        assert!(
            table(Judge::Echo, &[5.0], &[4.0], &[5.0])
                .missed()
                .is_empty()
        );
        assert_eq!(table(Judge::Echo, &[6.0], &[9.0], &[5.0]).missed().len(), 1);
        assert_eq!(
            table(Judge::AtLeastJump, &[3.0], &[4.0], &[])
                .missed()
                .len(),
            1
        );
        let times = Judge::TimesReverse {
            limit: 1.2,
            aim: 1.5,
        };
        assert!(table(times, &[12.1], &[], &[10.0]).missed().is_empty());
        assert_eq!(table(times, &[11.0], &[9.0], &[10.0]).missed().len(), 1);
        let least = Judge::AtLeast { limit: 200.0 };
        assert!(table(least, &[200.0], &[], &[]).missed().is_empty());
        assert_eq!(table(least, &[199.0], &[], &[]).missed().len(), 1);
        let none = Judge::AtMost {
            limit: 0.0,
            aim: 0.0,
        };
        assert_eq!(table(none, &[1.0], &[], &[]).missed().len(), 1);
        assert!(table(none, &[0.0], &[], &[]).missed().is_empty());
    }

    #[test]
    fn what_has_no_peer_is_not_judged_against_it() {
        let alone = table(Judge::Echo, &[5.0, 7.0], &[], &[]);
        assert!(alone.missed().is_empty());
        assert_eq!(alone.unjudged(), ["it"]);
        assert!(alone.render().contains("| it | 6.00 (5.00–7.00) | – | – |"));
    }
}
