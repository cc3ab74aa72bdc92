//! Which nodes `exec --on` means.

use std::{collections::BTreeMap, str::FromStr};

use sortie_client::Api;
use sortie_wire::shapes::ssm::{InstanceInformation, InstanceInformationStringFilter};

use crate::{error::CommandError, nodes, output};

/// One `--on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Every node.
    All,
    /// Nodes that pass all of these, by the service's key.
    Matching(Vec<(String, String)>),
    /// One node, by id or name.
    Node(String),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if text.is_empty() {
            return Err("a selector is `all`, `tag:KEY=VALUE`, or the id or name of a node".into());
        }
        if !text.split(',').any(|part| part.starts_with("tag:")) {
            return Ok(Self::Node(text.to_owned()));
        }
        let parts = text.split(',').map(|part| {
            let (key, value) = part
                .split_once('=')
                .filter(|(key, _)| key.strip_prefix("tag:").is_some_and(|key| !key.is_empty()))
                .ok_or_else(|| format!("`{part}` is not of the form tag:KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        parts.collect::<Result<_, String>>().map(Self::Matching)
    }
}

/// A node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) id: String,
    /// What people call it; empty for a node without a name.
    pub(super) name: String,
    /// What its lines begin with: the name, or the id where that is not one node's alone.
    pub(super) label: String,
}

/// The nodes that any of the selectors means, each once, in the order of their labels.
pub(super) async fn find(api: &Api, on: &[Selector]) -> Result<Vec<Chosen>, CommandError> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for selector in on {
        for (id, name) in of(api, selector).await? {
            let known = found.entry(id).or_default();
            if known.is_empty() {
                *known = name;
            }
        }
    }
    if found.is_empty() {
        return Err(CommandError::NoNodes);
    }
    Ok(labelled(found))
}

async fn of(api: &Api, selector: &Selector) -> Result<Vec<(String, String)>, CommandError> {
    let filters = match selector {
        Selector::Node(node) => {
            let id = nodes::resolve(api, node).await?;
            let name = if id == *node { "" } else { node };
            return Ok(vec![(id, name.to_owned())]);
        }
        Selector::All => Vec::new(),
        Selector::Matching(filters) => filters.iter().map(filter).collect(),
    };
    let nodes = nodes::list(api, filters).await?;
    Ok(nodes.into_iter().filter_map(id_and_name).collect())
}

fn filter((key, value): &(String, String)) -> InstanceInformationStringFilter {
    InstanceInformationStringFilter {
        key: key.clone(),
        values: vec![value.clone()],
    }
}

fn id_and_name(node: InstanceInformation) -> Option<(String, String)> {
    let name = node.name.filter(|name| !name.is_empty());
    let name = name.or(node.computer_name).unwrap_or_default();
    Some((node.instance_id?, output::plain(&name)))
}

fn labelled(found: BTreeMap<String, String>) -> Vec<Chosen> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in found.values() {
        *count.entry(name).or_default() += 1;
    }
    let mut chosen: Vec<_> = found
        .iter()
        .map(|(id, name)| {
            let is_own = !name.is_empty() && count.get(name.as_str()) == Some(&1);
            Chosen {
                id: id.clone(),
                name: name.clone(),
                label: if is_own { name } else { id }.clone(),
            }
        })
        .collect();
    chosen.sort_by(|a, b| a.label.cmp(&b.label));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_everything_tags_or_a_node() {
        let tags = |tags: &[(&str, &str)]| {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            Ok(Selector::Matching(tags.iter().map(owned).collect()))
        };
        assert_eq!("all".parse(), Ok(Selector::All));
        assert_eq!("tag:Env=prod".parse(), tags(&[("tag:Env", "prod")]));
        assert_eq!("tag:Env=".parse(), tags(&[("tag:Env", "")]));
        assert_eq!(
            "tag:Env=prod,tag:Role=a=b".parse(),
            tags(&[("tag:Env", "prod"), ("tag:Role", "a=b")])
        );
        assert_eq!("web".parse(), Ok(Selector::Node("web".to_owned())));
        for bad in ["", "tag:", "tag:=x", "tag:Env", "tag:Env=prod,web"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_means_one_node() {
        let found = [
            ("mi-3", "db"),
            ("mi-1", "web"),
            ("mi-2", "db"),
            ("mi-4", ""),
        ];
        let found = found.map(|(id, name)| (id.to_owned(), name.to_owned()));
        let labels: Vec<_> = labelled(BTreeMap::from(found))
            .into_iter()
            .map(|node| node.label)
            .collect();
        assert_eq!(labels, ["mi-2", "mi-3", "mi-4", "web"]);
    }
}
