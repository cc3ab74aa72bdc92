//! Every operation there is, as nobody, as a forger and as the administrator, with its record in the
//! trail. The operations are those of `sortie-wire`, so a new one without a case fails here.

use anyhow::Result;
use sortie_testkit::{Installation, python, skip};
use sortie_wire::shapes;

#[test]
fn every_operation_refuses_strangers_and_leaves_its_record() -> Result<()> {
    let Some(python) = python() else {
        return skip("a Python with botocore");
    };
    let installation = Installation::with_variables(&[("SORTIE_DATA_EVENTS", "true")])?;
    let operations: Vec<String> = shapes::operations()
        .map(|operation| format!("{}.{}", operation.service.signing_name(), operation.name))
        .collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/coverage.py");
    let mut walk = installation.command(python)?;
    walk.arg(script)
        .arg(installation.data_dir())
        .arg(serde_json::to_string(&operations)?);
    let output = walk.arg("server/sortie.db").output()?;
    let (said, log) = (&output.stdout, &output.stderr);
    let (said, log) = (String::from_utf8_lossy(said), String::from_utf8_lossy(log));
    assert!(output.status.success(), "{said}\n{log}");
    Ok(())
}
