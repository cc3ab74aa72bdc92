//! What Terraform does with iam, through boto3, each answer judged by botocore's models.

use anyhow::Result;
use sortie_testkit::{Installation, python, skip};

#[test]
fn everything_is_created_read_back_updated_and_deleted() -> Result<()> {
    let Some(python) = python() else {
        return skip("a Python with boto3");
    };
    let installation = Installation::start()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/terraform_like.py");
    let output = installation.command(python)?.arg(script).output()?;
    let (said, log) = (&output.stdout, &output.stderr);
    let (said, log) = (String::from_utf8_lossy(said), String::from_utf8_lossy(log));
    assert!(output.status.success(), "{said}\n{log}");
    Ok(())
}
