//! Session documents, preferences and service settings, through boto3 and the stock CLI.

use std::{fs, process::Output};

use anyhow::Result;
use sortie_testkit::{Installation, aws, python, skip};

fn assert_succeeded(what: &str, output: &Output) {
    let (said, log) = (&output.stdout, &output.stderr);
    let (said, log) = (String::from_utf8_lossy(said), String::from_utf8_lossy(log));
    assert!(output.status.success(), "{what}: {said}\n{log}");
}

#[test]
fn boto3_manages_documents_and_starts_sessions_by_them() -> Result<()> {
    let Some(python) = python() else {
        return skip("a Python with boto3");
    };
    let installation = Installation::start()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/documents.py");
    let mut judge = installation.command(python)?;
    judge.arg(script).arg(installation.fact("node_id"));
    assert_succeeded("documents.py", &judge.output()?);
    Ok(())
}

/// The commands of AWS's guide to preferences, as they are printed there.
#[test]
fn the_cli_saves_preferences_from_files() -> Result<()> {
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let installation = Installation::start()?;
    let name = "SSM-SessionManagerRunShell";
    let file = installation.scratch().join("SessionManagerRunShell.json");
    let content = |minutes: u32| {
        format!(
            r#"{{"schemaVersion":"1.0","description":"d","sessionType":"Standard_Stream",
            "inputs":{{"idleSessionTimeout":"{minutes}"}}}}"#
        )
    };
    let from_file = format!("file://{}", file.display());
    fs::write(&file, content(5))?;
    let create = [
        "ssm",
        "create-document",
        "--name",
        name,
        "--content",
        &from_file,
        "--document-type",
        "Session",
        "--document-format",
        "JSON",
    ];
    let made = installation.aws(&aws, &create)?;
    assert_eq!(made["DocumentDescription"]["LatestVersion"], "1");
    fs::write(&file, content(6))?;
    let update = [
        "ssm",
        "update-document",
        "--name",
        name,
        "--content",
        &from_file,
        "--document-version",
        "$LATEST",
    ];
    let made = installation.aws(&aws, &update)?;
    assert_eq!(made["DocumentDescription"]["DocumentVersion"], "2");
    let default = [
        "ssm",
        "update-document-default-version",
        "--name",
        name,
        "--document-version",
        "2",
    ];
    installation.aws(&aws, &default)?;
    let get = ["ssm", "get-document", "--name", name];
    let got = installation.aws(&aws, &get)?;
    assert_eq!(got["DocumentVersion"], "2");
    assert_eq!(got["Content"], content(6).as_str());
    let list = [
        "ssm",
        "list-documents",
        "--filters",
        "Key=Owner,Values=Self",
        "Key=DocumentType,Values=Session",
    ];
    let listed = installation.aws(&aws, &list)?;
    assert_eq!(listed["DocumentIdentifiers"][0]["Name"], name);
    Ok(())
}
