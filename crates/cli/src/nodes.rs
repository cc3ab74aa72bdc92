//! `sortie nodes`, and finding the node that a person means.

use comfy_table::Color;
use serde_json::Value;
use sortie_channel::handshake::AGENT_VERSION;
use sortie_client::{Api, CallError};
use sortie_wire::{
    Shape,
    shapes::ssm::{
        DescribeInstanceInformation, DescribeInstanceInformationRequest, InstanceInformation,
        InstanceInformationStringFilter, PingStatus,
    },
};

use crate::{arguments::Nodes, error::CommandError, output};

/// Nodes asked for at a time, the most that the service gives.
const PAGE: i32 = 50;

pub(crate) async fn run(api: &Api, arguments: &Nodes) -> Result<(), CommandError> {
    let mut nodes = list(api, filters(arguments)).await?;
    if let Some(text) = &arguments.text {
        nodes.retain(|node| is_about(node, text));
    }
    if arguments.json {
        return output::print_json(&Value::Array(nodes.iter().map(Shape::to_json).collect()));
    }
    let rows = nodes.iter().map(row).collect();
    output::print_table(
        &[
            "NODE",
            "NAME",
            "STATUS",
            "PLATFORM",
            "ADDRESS",
            "AGENT",
            "LAST SEEN",
        ],
        rows,
    )
}

fn filters(arguments: &Nodes) -> Vec<InstanceInformationStringFilter> {
    let filter = |key: String, value: &str| InstanceInformationStringFilter {
        key,
        values: vec![value.to_owned()],
    };
    let online = arguments
        .online
        .then(|| filter("PingStatus".to_owned(), "Online"));
    let platform = arguments.platform.as_deref().map(|platform| {
        let word = match platform {
            "macos" => "MacOS",
            "windows" => "Windows",
            _ => "Linux",
        };
        filter("PlatformTypes".to_owned(), word)
    });
    let tags = arguments
        .tag
        .iter()
        .map(|(key, value)| filter(format!("tag:{key}"), value));
    online.into_iter().chain(platform).chain(tags).collect()
}

fn is_about(node: &InstanceInformation, text: &str) -> bool {
    let text = text.to_lowercase();
    [&node.instance_id, &node.name, &node.computer_name]
        .into_iter()
        .flatten()
        .any(|value| value.to_lowercase().contains(&text))
}

fn row(node: &InstanceInformation) -> Vec<comfy_table::Cell> {
    let status = node.ping_status.as_ref().map_or("", PingStatus::as_str);
    let colour = if status == "Online" {
        Color::Green
    } else {
        Color::Red
    };
    let platform = [&node.platform_name, &node.platform_version]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    vec![
        output::text(node.instance_id.as_deref()),
        output::text(node.name.as_deref().or(node.computer_name.as_deref())),
        output::coloured(status, colour),
        output::text(Some(&platform)),
        output::text(node.ip_address.as_ref().map(sortie_types::Secret::expose)),
        output::text(node.agent_version.as_deref()),
        output::time(node.last_ping_date_time),
    ]
}

/// Every node that passes the filters.
pub(crate) async fn list(
    api: &Api,
    filters: Vec<InstanceInformationStringFilter>,
) -> Result<Vec<InstanceInformation>, CallError> {
    let mut nodes = Vec::new();
    let mut request = DescribeInstanceInformationRequest {
        filters: (!filters.is_empty()).then_some(filters),
        max_results: Some(PAGE),
        ..DescribeInstanceInformationRequest::default()
    };
    loop {
        let page = api.call::<DescribeInstanceInformation>(&request).await?;
        nodes.extend(page.instance_information_list.unwrap_or_default());
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            return Ok(nodes);
        }
    }
}

/// The target that a person means by an id or a name.
pub(crate) async fn resolve(api: &Api, node: &str) -> Result<String, CommandError> {
    if is_target(node) {
        return Ok(node.to_owned());
    }
    pick(&list(api, Vec::new()).await?, node)
}

/// Refuses what an official agent on the node cannot do, before anything starts. Where the caller may
/// not look, the session itself tells.
pub(crate) async fn require_our_agent(
    api: &Api,
    target: &str,
    needs: &[&str],
) -> Result<(), CommandError> {
    if needs.is_empty() {
        return Ok(());
    }
    let filter = InstanceInformationStringFilter {
        key: "InstanceIds".to_owned(),
        values: vec![target.to_owned()],
    };
    let version = match list(api, vec![filter]).await {
        Ok(found) => found.into_iter().find_map(|node| node.agent_version),
        Err(error) => {
            tracing::debug!(%error, "the node's agent is not known");
            None
        }
    };
    match version {
        Some(version) if version != AGENT_VERSION => Err(CommandError::OfficialAgent {
            target: target.to_owned(),
            version: output::plain(&version),
            what: needs.join(" and no "),
        }),
        _ => Ok(()),
    }
}

/// Whether this is a target in the service's own form, which needs no look-up.
fn is_target(text: &str) -> bool {
    let has_id = ["mi-", "i-"].iter().any(|prefix| {
        text.strip_prefix(prefix).is_some_and(|id| {
            matches!(id.len(), 8 | 17) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    });
    has_id || text.starts_with("ecs:") || text.starts_with("sagemaker-cluster:")
}

/// The one node of this name. The given name goes before the machine's own.
fn pick(nodes: &[InstanceInformation], name: &str) -> Result<String, CommandError> {
    let with = |of: fn(&InstanceInformation) -> Option<&String>| -> Vec<String> {
        nodes
            .iter()
            .filter(|node| of(node).is_some_and(|own| own.eq_ignore_ascii_case(name)))
            .filter_map(|node| node.instance_id.clone())
            .collect()
    };
    let mut ids = with(|node| node.name.as_ref());
    if ids.is_empty() {
        ids = with(|node| node.computer_name.as_ref());
    }
    match ids.as_slice() {
        [] => Err(CommandError::UnknownNode(name.to_owned())),
        [id] => Ok(id.clone()),
        _ => Err(CommandError::AmbiguousNode {
            name: name.to_owned(),
            ids,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: Option<&str>, computer: Option<&str>) -> InstanceInformation {
        InstanceInformation {
            instance_id: Some(id.to_owned()),
            name: name.map(str::to_owned),
            computer_name: computer.map(str::to_owned),
            ..InstanceInformation::default()
        }
    }

    #[test]
    fn a_name_means_one_node_or_is_an_error_that_helps() {
        let nodes = [
            node("mi-1", Some("web"), Some("host-a")),
            node("mi-2", Some("db"), Some("web")),
            node("mi-3", Some("db"), None),
        ];
        assert_eq!(pick(&nodes, "WEB").unwrap(), "mi-1");
        assert_eq!(pick(&nodes, "host-a").unwrap(), "mi-1");
        let ambiguous = pick(&nodes, "db").unwrap_err().to_string();
        assert!(ambiguous.contains("mi-2, mi-3"), "{ambiguous}");
        let unknown = pick(&nodes, "mail").unwrap_err().to_string();
        assert!(
            unknown.contains("`mail`") && unknown.contains("sortie nodes"),
            "{unknown}"
        );
    }

    #[test]
    fn ids_need_no_look_up() {
        for id in ["mi-0123456789abcdef0", "i-0123abcd", "ecs:a_b_c"] {
            assert!(is_target(id), "{id}");
        }
        for name in ["mi-web", "i-", "web", "i-love-my-node"] {
            assert!(!is_target(name), "{name}");
        }
    }
}
