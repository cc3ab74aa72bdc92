//! One command on many nodes.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use sortie_testkit::{Agent, Installation, Terminal, aws, skip, wait_for};

use super::{Piped, signal, text};

/// An installation whose machine is three nodes: one of `dev`, one beside it, and one that has gone.
struct Fleet {
    agents: Vec<Agent>,
    ids: BTreeMap<&'static str, String>,
    installation: Installation,
}

impl Fleet {
    fn begin() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        let mut fleet = Self {
            agents: Vec::new(),
            ids: BTreeMap::new(),
            installation: Installation::start()?,
        };
        let first = fleet.installation.fact("node_id").to_owned();
        fleet.ids.insert("first", first);
        for name in ["second", "gone"] {
            let agent = fleet.enrol(&aws, name)?;
            fleet.until_status(&aws, name, "connected")?;
            fleet.agents.push(agent);
        }
        let gone = fleet.agents.pop().context("no agent")?;
        gone.stop()?;
        fleet.until_status(&aws, "gone", "notconnected")?;
        for (name, id) in &fleet.ids {
            let tags = ["Key=Env,Value=prod", &format!("Key=Name,Value={name}")];
            let add = [
                "ssm",
                "add-tags-to-resource",
                "--resource-type",
                "ManagedInstance",
            ];
            let add = [&add[..], &["--resource-id", id, "--tags"], &tags].concat();
            fleet.installation.aws(&aws, &add)?;
        }
        Ok(Some(fleet))
    }

    fn enrol(&mut self, aws: &Path, name: &'static str) -> Result<Agent> {
        let create = ["ssm", "create-activation", "--iam-role", "SortieNode"];
        let create = [&create[..], &["--default-instance-name", name]].concat();
        let activation = self.installation.aws(aws, &create)?;
        let (id, agent) = self
            .installation
            .enrol(&activation, name, &["--run-as-self"])?;
        self.ids.insert(name, id);
        Ok(agent)
    }

    fn id(&self, name: &str) -> &str {
        self.ids.get(name).map_or("", String::as_str)
    }

    fn until_status(&self, aws: &Path, name: &str, status: &str) -> Result<()> {
        wait_for(status, || {
            let ask = ["ssm", "get-connection-status", "--target", self.id(name)];
            let answer = self.installation.aws(aws, &ask)?;
            Ok((answer["Status"] == status).then_some(()))
        })
    }

    fn exec(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.installation.command("sortie")?;
        command.arg("exec").args(arguments);
        Ok(command)
    }
}

#[test]
fn one_command_runs_on_many_nodes() -> Result<()> {
    let Some(fleet) = Fleet::begin()? else {
        return Ok(());
    };
    whole_lines_and_a_summary(&fleet)?;
    a_line_of_json_for_each_node(&fleet)?;
    the_nodes_that_are_meant(&fleet)?;
    an_interrupted_command_ends_everywhere(&fleet)?;
    progress_is_for_people(&fleet)
}

/// The first node that makes the folder goes on, the other fails, and one is not there.
fn one_fails(fleet: &Fleet, name: &str) -> String {
    let place = fleet.installation.scratch().join(name);
    format!(
        "mkdir {} 2>/dev/null || {{ echo late >&2; exit 3; }}; ",
        place.display()
    )
}

fn whole_lines_and_a_summary(fleet: &Fleet) -> Result<()> {
    let lines =
        "i=0; while [ $i -lt 3000 ]; do printf 'line '; echo $i; i=$((i+1)); done; printf end";
    let script = format!("{}{lines}", one_fails(fleet, "lines"));
    let arguments = ["--on", "tag:Env=prod", "--", "sh", "-c", &script];
    let output = fleet.exec(&arguments)?.output()?;
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(255), "{told}");
    let node = said.split(": ").next().unwrap_or_default();
    let expected: String = (0..3000).map(|n| format!("{node}: line {n}\n")).collect();
    assert_eq!(said, format!("{expected}{node}: end\n"));
    assert!(told.contains(": late\n"), "{told}");
    assert!(told.contains("sortie: 2 of 3 nodes failed:"), "{told}");
    assert!(told.contains(": exit status 3\n"), "{told}");
    assert!(
        told.contains(&format!("  gone ({}): not connected\n", fleet.id("gone"))),
        "{told}"
    );

    // Both at once: no line of one is in a line of the other.
    let on = ["--on", fleet.id("first"), "--on", "second", "--"];
    let output = fleet
        .exec(&[&on[..], &["sh", "-c", lines]].concat())?
        .output()?;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    for label in [fleet.id("first"), "second"] {
        let prefix = format!("{label}: ");
        let said = text(&output.stdout);
        let own: Vec<_> = said
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect();
        assert_eq!(own.len(), 3001, "{label}");
        assert!(
            own.iter()
                .take(3000)
                .enumerate()
                .all(|(n, line)| *line == format!("line {n}"))
        );
    }
    assert_eq!(text(&output.stdout).lines().count(), 6002);
    Ok(())
}

fn a_line_of_json_for_each_node(fleet: &Fleet) -> Result<()> {
    let script = format!("{}printf 'one\\ntwo'; cat", one_fails(fleet, "json"));
    let arguments = [
        "--on",
        "all",
        "--json",
        "--parallel",
        "1",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let output = fleet.exec(&arguments)?.output()?;
    assert_eq!(output.status.code(), Some(255));
    let said = text(&output.stdout);
    let lines: Vec<Value> = said
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let with = |status: &str| lines.iter().find(|line| line["status"] == status);
    assert_eq!(lines.len(), 3, "{said}");
    let done = with("success").context("nobody succeeded")?;
    assert_eq!(
        (&done["stdout"], &done["exit_status"]),
        (&"one\ntwo".into(), &0.into())
    );
    let failed = with("failed").context("nobody failed")?;
    assert_eq!(
        (&failed["stderr"], &failed["exit_status"]),
        (&"late\n".into(), &3.into())
    );
    let error = with("error").context("everybody was there")?;
    assert_eq!(
        (&error["name"], &error["error"]),
        (&"gone".into(), &"not connected".into())
    );
    assert_eq!(error["node_id"], fleet.id("gone"));
    Ok(())
}

fn the_nodes_that_are_meant(fleet: &Fleet) -> Result<()> {
    let run = |on: &[&str]| -> Result<(Option<i32>, String)> {
        let output = fleet
            .exec(&[on, &["--", "echo", "here"]].concat())?
            .output()?;
        Ok((output.status.code(), text(&output.stdout)))
    };
    let second = (Some(0), "second: here\n".to_owned());
    assert_eq!(run(&["--on", "tag:Env=prod,tag:Name=second"])?, second);
    assert_eq!(
        run(&["--on", "second", "--on", fleet.id("second")])?,
        second
    );
    assert_eq!(run(&["--on", "tag:Env=test"])?, (Some(255), String::new()));
    assert_eq!(run(&["--on", "no-such"])?, (Some(255), String::new()));
    Ok(())
}

fn an_interrupted_command_ends_everywhere(fleet: &Fleet) -> Result<()> {
    let words = ["--", "sh", "-c", "echo ready; exec sleep 600"];
    let on = ["--on", "second", "--on", fleet.id("first")];
    let mut piped = Piped::start(&mut fleet.exec(&[&on[..], &words].concat())?)?;
    piped.until("ready\n")?;
    piped.until("ready\n")?;
    signal(&piped.child, Signal::INT)?;
    let (code, _, told) = piped.finish()?;
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains("2 of 2 nodes failed"), "{told}");
    let arguments = ["sessions", "list", "--json"];
    wait_for("the sessions to end", || {
        let output = fleet
            .installation
            .command("sortie")?
            .args(arguments)
            .output()?;
        let sessions: Value = serde_json::from_slice(&output.stdout)?;
        Ok(sessions.as_array().is_some_and(Vec::is_empty).then_some(()))
    })
}

fn progress_is_for_people(fleet: &Fleet) -> Result<()> {
    let words = [
        "--",
        "sh",
        "-c",
        "echo ready; until [ -e go ]; do sleep 0.1; done",
    ];
    let place = fleet.installation.scratch().join("go");
    let wait = words[3].replace("go ]", &format!("{} ]", place.display()));
    let words = [words[0], words[1], words[2], &wait];
    let command = fleet.exec(&[&["--on", "second"][..], &words].concat())?;
    let mut terminal = Terminal::open(&command, 80, 24)?;
    terminal.until("second: ready")?;
    terminal.until("[0/1 nodes done, 0 failed, 1 running]")?;
    fs::write(place, "")?;
    assert_eq!(terminal.exit_status()?.code(), Some(0));
    Ok(())
}
