//! Conditions on nodes in listings: which keys there are, what their values may be, and whether a
//! node matches. Pure.

use std::{cmp::Ordering, str::FromStr};

use sortie_ports::{Node, PingStatus};
use sortie_types::{ActivationId, NodeId};

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterOperator {
    /// Starts with one of the values.
    BeginWith,
    /// Is one of the values.
    #[default]
    Equal,
    /// Is greater than one of the values; versions are compared number by number.
    GreaterThan,
    /// Is less than one of the values.
    LessThan,
    /// Is none of the values.
    NotEqual,
}

/// A text that is no operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an operator")]
pub struct UnknownOperator(pub String);

impl FromStr for FilterOperator {
    type Err = UnknownOperator;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "BeginWith" => Self::BeginWith,
            "Equal" => Self::Equal,
            "GreaterThan" => Self::GreaterThan,
            "LessThan" => Self::LessThan,
            "NotEqual" => Self::NotEqual,
            other => return Err(UnknownOperator(other.to_owned())),
        })
    }
}

/// One condition of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFilter {
    /// Such as `PingStatus` or `tag:Env`.
    pub key: String,
    /// Compared with any of them (`NotEqual`: with all).
    pub values: Vec<String>,
    /// How.
    pub operator: FilterOperator,
}

/// What a filter looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    ActivationId,
    AgentVersion,
    AssociationStatus,
    ComputerName,
    IamRole,
    InstanceId,
    IpAddress,
    Name,
    PingStatus,
    PlatformName,
    PlatformType,
    PlatformVersion,
    ResourceType,
    SourceId,
    SourceType,
    Tag(String),
    TagKey,
}

/// Why filters are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilterError {
    ActivationId(String),
    Document(String),
    InstanceId(String),
    Key(String),
    Value(String),
}

/// Checked conditions.
pub(crate) struct NodeConditions {
    conditions: Vec<(Field, FilterOperator, Vec<String>)>,
}

/// Which listing the filters are of: they know different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    Information,
    Properties,
}

impl Field {
    fn parse(key: &str, listing: Listing) -> Option<Self> {
        Some(match key {
            "ActivationIds" => Self::ActivationId,
            "AgentVersion" => Self::AgentVersion,
            "AssociationStatus" => Self::AssociationStatus,
            "IamRole" => Self::IamRole,
            "InstanceIds" => Self::InstanceId,
            "PingStatus" => Self::PingStatus,
            "PlatformTypes" => Self::PlatformType,
            "ResourceType" => Self::ResourceType,
            "SourceIds" => Self::SourceId,
            "SourceTypes" => Self::SourceType,
            "tag-key" => Self::TagKey,
            _ => match (key.strip_prefix("tag:"), listing) {
                (Some(tag), _) if !tag.is_empty() => Self::Tag(tag.to_owned()),
                (_, Listing::Properties) => Self::of_properties(key)?,
                _ => return None,
            },
        })
    }

    fn of_properties(key: &str) -> Option<Self> {
        Some(match key {
            "ComputerName" => Self::ComputerName,
            "IPAddress" => Self::IpAddress,
            "Name" => Self::Name,
            "PlatformName" => Self::PlatformName,
            "PlatformType" => Self::PlatformType,
            "PlatformVersion" => Self::PlatformVersion,
            _ => return None,
        })
    }

    fn is_tag(&self) -> bool {
        matches!(self, Self::Tag(_) | Self::TagKey)
    }

    /// Checks a value that is compared for equality.
    fn check(&self, value: &str) -> Result<(), FilterError> {
        let value_error = || Err(FilterError::Value(value.to_owned()));
        match self {
            Self::ActivationId if value.parse::<ActivationId>().is_err() => {
                Err(FilterError::ActivationId(value.to_owned()))
            }
            Self::InstanceId if value.parse::<NodeId>().is_err() => {
                Err(FilterError::InstanceId(value.to_owned()))
            }
            Self::PingStatus if !["Online", "ConnectionLost", "Inactive"].contains(&value) => {
                value_error()
            }
            Self::PlatformType if !["Linux", "MacOS", "Windows"].contains(&value) => value_error(),
            Self::ResourceType if !["ManagedInstance", "EC2Instance"].contains(&value) => {
                value_error()
            }
            _ => Ok(()),
        }
    }

    /// What a node has there; more than one for tag keys.
    fn of(&self, node: &Node, ping: PingStatus) -> Vec<String> {
        let info = &node.info;
        let one = |text: &Option<String>| text.iter().cloned().collect();
        match self {
            Self::ActivationId => vec![node.activation_id.to_string()],
            Self::AgentVersion => one(&info.agent_version),
            // No associations are run, and no node comes from another source.
            Self::AssociationStatus | Self::SourceId | Self::SourceType => Vec::new(),
            Self::ComputerName => one(&info.computer_name),
            Self::IamRole => vec![node.iam_role.clone()],
            Self::InstanceId => vec![node.id.to_string()],
            Self::IpAddress => one(&info.ip_address),
            Self::Name => one(&node.name),
            Self::PingStatus => vec![ping_text(ping).to_owned()],
            Self::PlatformName => one(&info.platform_name),
            Self::PlatformType => one(&info.platform_type),
            Self::PlatformVersion => one(&info.platform_version),
            Self::ResourceType => vec!["ManagedInstance".to_owned()],
            Self::Tag(key) => {
                let tags = node.tags.iter().filter(|tag| tag.key == *key);
                tags.map(|tag| tag.value.clone()).collect()
            }
            Self::TagKey => node.tags.iter().map(|tag| tag.key.clone()).collect(),
        }
    }
}

/// AWS's word.
pub(crate) fn ping_text(ping: PingStatus) -> &'static str {
    match ping {
        PingStatus::ConnectionLost => "ConnectionLost",
        PingStatus::Inactive => "Inactive",
        PingStatus::Online => "Online",
    }
}

impl NodeConditions {
    /// Checks keys and values, and that tag filters stand alone.
    pub(crate) fn parse(filters: &[NodeFilter], listing: Listing) -> Result<Self, FilterError> {
        let mut conditions = Vec::with_capacity(filters.len());
        for filter in filters {
            if filter.key == "DocumentName" && listing == Listing::Properties {
                let name = filter.values.first().cloned().unwrap_or_default();
                return Err(FilterError::Document(name));
            }
            let field = Field::parse(&filter.key, listing)
                .ok_or_else(|| FilterError::Key(format!("there is no filter {}", filter.key)))?;
            if matches!(
                filter.operator,
                FilterOperator::Equal | FilterOperator::NotEqual
            ) {
                filter
                    .values
                    .iter()
                    .try_for_each(|value| field.check(value))?;
            }
            conditions.push((field, filter.operator, filter.values.clone()));
        }
        let tags = conditions
            .iter()
            .filter(|(field, ..)| field.is_tag())
            .count();
        if tags > 0 && tags < conditions.len() {
            let why = "tag filters cannot be mixed with others".to_owned();
            return Err(FilterError::Key(why));
        }
        Ok(Self { conditions })
    }

    /// The node ids that are named; each must exist.
    pub(crate) fn named_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.conditions
            .iter()
            .filter(|(field, operator, _)| {
                *field == Field::InstanceId && *operator == FilterOperator::Equal
            })
            .flat_map(|(.., values)| values)
            .filter_map(|value| value.parse().ok())
    }

    /// Whether all conditions hold.
    pub(crate) fn hold(&self, node: &Node, ping: PingStatus) -> bool {
        self.conditions
            .iter()
            .all(|(field, operator, values)| holds(&field.of(node, ping), *operator, values))
    }
}

fn holds(actual: &[String], operator: FilterOperator, values: &[String]) -> bool {
    let any = |test: &dyn Fn(&str, &str) -> bool| {
        actual
            .iter()
            .any(|actual| values.iter().any(|value| test(actual, value)))
    };
    match operator {
        FilterOperator::BeginWith => any(&|actual, value| actual.starts_with(value)),
        FilterOperator::Equal => any(&|actual, value| actual == value),
        FilterOperator::GreaterThan => {
            any(&|actual, value| compare(actual, value) == Ordering::Greater)
        }
        FilterOperator::LessThan => any(&|actual, value| compare(actual, value) == Ordering::Less),
        FilterOperator::NotEqual => !any(&|actual, value| actual == value),
    }
}

/// Compares dotted numbers as numbers, so that 3.10 comes after 3.9, and everything else as text.
fn compare(one: &str, other: &str) -> Ordering {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split('.').map(|part| part.parse().ok()).collect()
    };
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert_eq!(compare("3.10.0.0", "3.9.1.0"), Ordering::Greater);
        assert_eq!(compare("3.3.0.0", "3.3.0.0"), Ordering::Equal);
        assert_eq!(compare("Debian", "Ubuntu"), Ordering::Less);
    }

    #[test]
    fn operators_look_at_any_value_except_for_not_equal() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let actual = texts(&["3.3.0.0"]);
        let holds = |operator, values: &[&str]| holds(&actual, operator, &texts(values));
        assert!(holds(FilterOperator::Equal, &["1", "3.3.0.0"]));
        assert!(holds(FilterOperator::BeginWith, &["3.3"]));
        assert!(!holds(FilterOperator::NotEqual, &["1", "3.3.0.0"]));
        assert!(holds(FilterOperator::NotEqual, &["1", "2"]));
        assert!(holds(FilterOperator::LessThan, &["3.10.0.0"]));
        assert!(!holds(FilterOperator::GreaterThan, &["3.10.0.0"]));
    }

    #[test]
    fn keys_and_values_are_checked() {
        let parse = |key: &str, value: &str, listing| {
            let filter = NodeFilter {
                key: key.into(),
                values: vec![value.into()],
                operator: FilterOperator::Equal,
            };
            NodeConditions::parse(&[filter], listing).err()
        };
        use Listing::{Information, Properties};
        assert_eq!(parse("PingStatus", "Online", Information), None);
        assert_eq!(
            parse("PingStatus", "Up", Information),
            Some(FilterError::Value("Up".into()))
        );
        assert!(matches!(
            parse("Color", "red", Information),
            Some(FilterError::Key(_))
        ));
        assert!(matches!(
            parse("tag:", "red", Properties),
            Some(FilterError::Key(_))
        ));
        assert!(matches!(
            parse("InstanceIds", "x", Properties),
            Some(FilterError::InstanceId(_))
        ));
        assert!(matches!(
            parse("ActivationIds", "x", Properties),
            Some(FilterError::ActivationId(_))
        ));
        assert!(matches!(
            parse("DocumentName", "x", Properties),
            Some(FilterError::Document(_))
        ));
        assert!(matches!(
            parse("ComputerName", "x", Information),
            Some(FilterError::Key(_))
        ));
        assert_eq!(parse("ComputerName", "x", Properties), None);
    }
}
