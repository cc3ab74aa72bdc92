//! Judges cases: reads one in JSON a line from standard input, writes one decision a line.
//!
//! A line that is no case is answered with its `error` instead of a decision, and the exit status is
//! then 1. The form of a case is described at `sortie_iam::case`.

use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
};

use serde_json::json;
use sortie_iam::case;

fn main() -> anyhow::Result<ExitCode> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut status = ExitCode::SUCCESS;
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match std::str::from_utf8(&line) {
            Ok(line) => answer(line),
            Err(error) => Err(json!({ "id": null, "error": error.to_string() })),
        };
        let answer = answer.unwrap_or_else(|error| {
            status = ExitCode::FAILURE;
            error
        });
        writeln!(output, "{answer}")?;
    }
    output.flush()?;
    Ok(status)
}

fn answer(line: &str) -> Result<serde_json::Value, serde_json::Value> {
    let id = case::id(line);
    match case::judge(line) {
        Ok(decision) => Ok(json!({
            "id": id,
            "decision": decision.outcome.as_str(),
            "why": decision.explanation.sentences().join(" "),
        })),
        Err(error) => Err(json!({ "id": id, "error": error.to_string() })),
    }
}
