//! `sortie sessions list`, `show` and `terminate`.

use comfy_table::{Cell, Color};
use serde_json::Value;
use sortie_client::{Api, CallError};
use sortie_wire::{
    Shape,
    shapes::ssm::{
        DescribeSessions, DescribeSessionsRequest, Session, SessionFilter, SessionState,
        SessionStatus, TerminateSession,
    },
};

use crate::{
    arguments::{OneSession, SessionsList, TerminateSession as Terminate},
    error::CommandError,
    nodes, output,
};

/// Sessions asked for at a time, the most that the service gives.
const PAGE: i32 = 200;

pub(crate) async fn list(api: &Api, arguments: &SessionsList) -> Result<(), CommandError> {
    let mut filters = Vec::new();
    if let Some(node) = &arguments.node {
        filters.push(filter("Target", &nodes::resolve(api, node).await?));
    }
    if let Some(owner) = &arguments.owner {
        filters.push(filter("Owner", owner));
    }
    let state = if arguments.history {
        SessionState::HISTORY
    } else {
        SessionState::ACTIVE
    };
    let sessions = find(api, state, filters).await?;
    if arguments.json {
        return output::print_json(&Value::Array(sessions.iter().map(Shape::to_json).collect()));
    }
    let mut header = vec!["SESSION", "NODE", "STATUS", "OWNER", "STARTED"];
    if arguments.history {
        header.extend(["ENDED", "DETAILS"]);
    }
    header.push("REASON");
    let rows = sessions
        .iter()
        .map(|session| row(session, arguments.history))
        .collect();
    output::print_table(&header, rows)
}

fn row(session: &Session, history: bool) -> Vec<Cell> {
    let mut row = vec![
        output::text(session.session_id.as_deref()),
        output::text(session.target.as_deref()),
        status(session),
        output::text(session.owner.as_deref()),
        output::time(session.start_date),
    ];
    if history {
        row.push(output::time(session.end_date));
        row.push(output::text(session.details.as_deref()));
    }
    row.push(output::text(session.reason.as_deref()));
    row
}

fn status(session: &Session) -> Cell {
    let status = session.status.as_ref().map_or("", SessionStatus::as_str);
    let colour = match status {
        "Connected" => Color::Green,
        "Failed" => Color::Red,
        "Terminated" => Color::Reset,
        _ => Color::Yellow,
    };
    output::coloured(status, colour)
}

pub(crate) async fn show(api: &Api, arguments: &OneSession) -> Result<(), CommandError> {
    let filters = || vec![filter("SessionId", &arguments.session_id)];
    let mut found = find(api, SessionState::ACTIVE, filters()).await?;
    if found.is_empty() {
        found = find(api, SessionState::HISTORY, filters()).await?;
    }
    let session = found
        .into_iter()
        .next()
        .ok_or_else(|| CommandError::UnknownSession(arguments.session_id.clone()))?;
    if arguments.json {
        return output::print_json(&session.to_json());
    }
    output::print(&description(&session))
}

/// One line for each thing that is known.
fn description(session: &Session) -> String {
    let time = |time: Option<sortie_types::Timestamp>| time.map(|time| time.iso_seconds());
    let lines = [
        ("Session", session.session_id.clone()),
        ("Node", session.target.clone()),
        ("Status", session.status.as_ref().map(ToString::to_string)),
        ("Owner", session.owner.clone()),
        ("Document", session.document_name.clone()),
        ("Reason", session.reason.clone()),
        ("Started", time(session.start_date)),
        ("Ended", time(session.end_date)),
        ("Details", session.details.clone()),
        (
            "Maximum duration",
            session
                .max_session_duration
                .as_ref()
                .map(|minutes| format!("{minutes} min")),
        ),
    ];
    lines
        .into_iter()
        .filter_map(|(name, value)| {
            let value = value.filter(|value| !value.is_empty())?;
            Some(format!("{name:<17} {}\n", output::plain(&value)))
        })
        .collect()
}

pub(crate) async fn terminate(api: &Api, arguments: &Terminate) -> Result<(), CommandError> {
    for session_id in &arguments.session_id {
        let request = sortie_wire::shapes::ssm::TerminateSessionRequest {
            session_id: session_id.clone(),
        };
        match api.call::<TerminateSession>(&request).await {
            Ok(_) => output::print(&format!("{session_id}\n"))?,
            Err(error) if error.code() == Some("DoesNotExistException") => {
                return Err(CommandError::UnknownSession(session_id.clone()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn filter(key: &str, value: &str) -> SessionFilter {
    SessionFilter {
        key: key.into(),
        value: value.to_owned(),
    }
}

async fn find(
    api: &Api,
    state: SessionState,
    filters: Vec<SessionFilter>,
) -> Result<Vec<Session>, CallError> {
    let mut sessions = Vec::new();
    let mut request = DescribeSessionsRequest {
        state,
        max_results: Some(PAGE),
        next_token: None,
        filters: (!filters.is_empty()).then_some(filters),
    };
    loop {
        let page = api.call::<DescribeSessions>(&request).await?;
        sessions.extend(page.sessions.unwrap_or_default());
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            return Ok(sessions);
        }
    }
}
