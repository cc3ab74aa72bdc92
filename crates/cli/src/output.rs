//! Lines, tables and JSON for people and scripts. Colour only on a terminal and when `NO_COLOR` is
//! not set.

use std::io::{IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::Value;
use sortie_types::Timestamp;

use crate::error::CommandError;

/// Writes to standard output. A reader that has left is no failure.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::io("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Prints JSON with indentation.
pub(crate) fn print_json(value: &Value) -> Result<(), CommandError> {
    print(&format!("{value:#}\n"))
}

/// Writes a line to standard error, if anyone listens.
pub(crate) fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes to standard error as it is, if anyone listens.
pub(crate) fn error(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
}

/// A table without lines; on anything but a terminal nothing is wrapped, so that scripts see one
/// row a line.
pub(crate) fn print_table(header: &[&str], rows: Vec<Vec<Cell>>) -> Result<(), CommandError> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    table.add_rows(rows);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.force_no_tty();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    print(&text)
}

/// A cell, coloured when a person looks at it.
pub(crate) fn coloured(text: &str, colour: Color) -> Cell {
    let cell = Cell::new(text);
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        cell.fg(colour)
    } else {
        cell
    }
}

/// A cell with a time, or nothing.
pub(crate) fn time(time: Option<Timestamp>) -> Cell {
    Cell::new(time.map(Timestamp::iso_seconds).unwrap_or_default())
}

/// A cell with a text, or nothing.
pub(crate) fn text(text: Option<&str>) -> Cell {
    Cell::new(plain(text.unwrap_or_default()))
}

/// A text in one line and without what moves a terminal: machines say what they like about
/// themselves.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_machines_say_moves_no_terminal_and_makes_no_lines() {
        assert_eq!(
            plain("web\x1b]0;x\x07\u{9b}31m\nmi-0 Online"),
            "web\u{fffd}]0;x\u{fffd}\u{fffd}31m mi-0 Online"
        );
        assert_eq!(plain("서버 1"), "서버 1");
    }
}
