//! `sortie explain`: why something is allowed or refused, in the server's sentences.

use sortie_client::Api;
use sortie_wire::{
    Shape,
    shapes::sortie::{ContextEntry, Decision, Explain, ExplainRequest},
};

use crate::{arguments, error::CommandError, nodes, output};

/// Exit status when what was asked about is not allowed.
const NOT_ALLOWED: u8 = 1;

pub(crate) async fn run(api: &Api, arguments: &arguments::Explain) -> Result<u8, CommandError> {
    let principal = arguments.principal.as_deref();
    let is_arn = |principal: &&str| principal.starts_with("arn:");
    let request = ExplainRequest {
        action: arguments.action.clone(),
        resource: Some(resource(api, &arguments.action, &arguments.resource).await?),
        principal_arn: principal.filter(is_arn).map(str::to_owned),
        user_name: principal.filter(|p| !is_arn(p)).map(str::to_owned),
        context: Some(context(&arguments.context)),
    };
    let answer = api.call::<Explain>(&request).await?;
    let status = if answer.decision == Decision::ALLOWED {
        0
    } else {
        NOT_ALLOWED
    };
    if arguments.json {
        output::print_json(&answer.to_json())?;
        return Ok(status);
    }
    let lines: String = answer
        .sentences
        .iter()
        .map(|sentence| format!("{}\n", output::plain(sentence)))
        .collect();
    output::print(&lines)?;
    Ok(status)
}

/// A node's name becomes its id for the actions on nodes; all else is the server's to understand.
async fn resource(api: &Api, action: &str, resource: &str) -> Result<String, CommandError> {
    const ON_NODES: [&str; 2] = ["ssm:StartSession", "ssm:GetConnectionStatus"];
    let is_on_node = ON_NODES.iter().any(|on| on.eq_ignore_ascii_case(action));
    if is_on_node && resource != "*" && !resource.starts_with("arn:") {
        return nodes::resolve(api, resource).await;
    }
    Ok(resource.to_owned())
}

/// The values of each key together.
fn context(given: &[(String, String)]) -> Vec<ContextEntry> {
    let mut entries: Vec<ContextEntry> = Vec::new();
    for (key, value) in given {
        let known = entries
            .iter_mut()
            .find(|entry| entry.key.eq_ignore_ascii_case(key));
        match known {
            Some(entry) => entry.values.push(value.clone()),
            None => entries.push(ContextEntry {
                key: key.clone(),
                values: vec![value.clone()],
            }),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_key_stand_together() {
        let given = [("a", "1"), ("b", "2"), ("A", "3")];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let entries = context(&given);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].values, ["1", "3"]);
    }
}
