//! The node operations of people: lists, deregistering, roles.

use std::{collections::HashSet, time::Duration};

use sortie_ports::{Change, Conflict, Node, NodeState, PingStatus, Signal, StoreError};
use sortie_types::{NodeId, Timestamp};

use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, AskedResource, AuthorizeError, Authorized, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    filters::{FilterError, Listing, NodeConditions, NodeFilter},
    pass_role::UnusableRole,
    sessions::told_to_end,
    token,
    trail::Done,
};

/// Two heartbeats of five minutes, and some slack.
const HEARD_LATELY: Duration = Duration::from_secs(2 * 5 * 60 + 30);
/// Silent for longer means inactive.
const INACTIVE_AFTER: Duration = Duration::from_hours(30 * 24);
/// Nodes on a page of `DescribeInstanceInformation`, at most and unless asked otherwise.
const INFORMATION_PAGE: usize = 50;
/// Nodes on a page of `DescribeInstanceProperties`, at most.
const LARGEST_PROPERTIES_PAGE: usize = 1000;
/// How often a deregistration is tried again because one of the node's sessions moved meanwhile.
const ATTEMPTS: usize = 8;

/// A node as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The row, with the latest heartbeat.
    pub node: Node,
    /// How it is doing.
    pub ping_status: PingStatus,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct DescribeInstanceInformationInput {
    /// `Filters`.
    pub filters: Vec<NodeFilter>,
    /// `InstanceInformationFilterList`, the older form; not together with the other.
    pub filter_list: Vec<NodeFilter>,
    /// 5 to 50.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// A page of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeInstanceInformationOutput {
    /// In order of id.
    pub nodes: Vec<NodeView>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// Why nothing was listed.
#[derive(Debug, thiserror::Error)]
pub enum DescribeInstanceInformationError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// There is no such filter, or not together with the others.
    #[error("{why}")]
    InvalidFilterKey {
        /// In words.
        why: String,
    },
    /// The filter cannot have this value.
    #[error("{why}")]
    InvalidFilterValue {
        /// In words.
        why: String,
    },
    /// No node of this id.
    #[error("instance {id} does not exist")]
    InvalidInstanceId {
        /// As it was given.
        id: String,
    },
    /// Not of the page before.
    #[error("next token is not valid")]
    InvalidNextToken,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct DescribeInstancePropertiesInput {
    /// `InstancePropertyFilterList` and `FiltersWithOperator`.
    pub filters: Vec<NodeFilter>,
    /// 5 to 1000.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// A page of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeInstancePropertiesOutput {
    /// In order of id.
    pub nodes: Vec<NodeView>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// Why nothing was listed.
#[derive(Debug, thiserror::Error)]
pub enum DescribeInstancePropertiesError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Not the form of an activation's id.
    #[error("activation id {id} is not valid")]
    InvalidActivationId {
        /// As it was given.
        id: String,
    },
    /// Nodes have no associations with documents.
    #[error("document {name} does not exist")]
    InvalidDocument {
        /// As it was given.
        name: String,
    },
    /// There is no such filter, or not together with the others.
    #[error("{why}")]
    InvalidFilterKey {
        /// In words.
        why: String,
    },
    /// The filter cannot have this value.
    #[error("{why}")]
    InvalidFilterValue {
        /// In words.
        why: String,
    },
    /// No node of this id.
    #[error("instance {id} does not exist")]
    InvalidInstanceId {
        /// As it was given.
        id: String,
    },
    /// Not of the page before.
    #[error("next token is not valid")]
    InvalidNextToken,
}

/// What to throw out.
#[derive(Clone, Debug)]
pub struct DeregisterManagedInstanceInput {
    /// The node.
    pub instance_id: String,
}

/// Why it was not thrown out.
#[derive(Debug, thiserror::Error)]
pub enum DeregisterManagedInstanceError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// No node of this id.
    #[error("instance {id} does not exist")]
    InvalidInstanceId {
        /// As it was given.
        id: String,
    },
}

/// What to change.
#[derive(Clone, Debug)]
pub struct UpdateManagedInstanceRoleInput {
    /// The node.
    pub instance_id: String,
    /// Its new role.
    pub iam_role: String,
}

/// Why it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateManagedInstanceRoleError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// No node of this id.
    #[error("instance {id} does not exist")]
    InvalidInstanceId {
        /// As it was given.
        id: String,
    },
    /// No role that nodes may act with.
    #[error(transparent)]
    InvalidRole(#[from] UnusableRole),
}

internal!(
    DescribeInstanceInformationError,
    DescribeInstancePropertiesError,
    DeregisterManagedInstanceError,
    UpdateManagedInstanceRoleError,
);
refusable!(
    DescribeInstanceInformationError,
    DescribeInstancePropertiesError,
    DeregisterManagedInstanceError,
    UpdateManagedInstanceRoleError,
);

/// How a node is doing. Enrolling is no heartbeat: a node whose agent never ran was never online.
fn ping_status(
    connected: bool,
    registered: Timestamp,
    last_ping: Timestamp,
    now: Timestamp,
) -> PingStatus {
    let silent = now.since(last_ping);
    let was_heard = last_ping > registered;
    if connected || (was_heard && silent <= HEARD_LATELY) {
        PingStatus::Online
    } else if silent > INACTIVE_AFTER {
        PingStatus::Inactive
    } else {
        PingStatus::ConnectionLost
    }
}

/// A page of a listing, before its token is sealed.
struct Page {
    nodes: Vec<NodeView>,
    last: Option<NodeId>,
}

/// Why there is no page.
enum PageError {
    Filter(FilterError),
    NextToken,
    Store(InternalError),
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl Control {
    /// A node as it is now, with what is known of it in memory.
    pub(crate) fn view(&self, mut node: Node, now: Timestamp) -> NodeView {
        if let Some(heard) = self.memory().heard.get(&node.id) {
            node.last_ping = node.last_ping.max(*heard);
        }
        NodeView {
            ping_status: ping_status(node.connected, node.registered, node.last_ping, now),
            node,
        }
    }

    async fn list(
        &self,
        call: &Call,
        rule: &OperationRule,
        (listing, filters): (Listing, &[NodeFilter]),
        limit: usize,
        next_token: Option<&str>,
    ) -> Result<Page, PageError> {
        let conditions = NodeConditions::parse(filters, listing).map_err(PageError::Filter)?;
        for id in conditions.named_nodes().collect::<HashSet<_>>() {
            if self.active_node(&id).await?.is_none() {
                return Err(PageError::Filter(FilterError::InstanceId(id.to_string())));
            }
        }
        let after = token::cursor(&self.inner.page_sealer, rule.name, next_token)
            .map_err(|_| PageError::NextToken)?;
        let mut nodes = self
            .matching_nodes(after, limit + 1, &conditions, call.now)
            .await?;
        let more = nodes.len() > limit;
        nodes.truncate(limit);
        let last = nodes
            .last()
            .filter(|_| more)
            .map(|view| view.node.id.clone());
        Ok(Page { nodes, last })
    }

    /// The next `wanted` nodes that match, behind `after`.
    async fn matching_nodes(
        &self,
        mut after: Option<NodeId>,
        wanted: usize,
        conditions: &NodeConditions,
        now: Timestamp,
    ) -> Result<Vec<NodeView>, StoreError> {
        let mut found = Vec::new();
        loop {
            let page = self.inner.state.nodes(after.clone(), wanted).await?;
            let last_page = page.len() < wanted;
            after = page.last().map(|last| last.id.clone()).or(after);
            let views = page.into_iter().map(|node| self.view(node, now));
            let matching = views.filter(|view| conditions.hold(&view.node, view.ping_status));
            found.extend(matching.take(wanted - found.len()));
            if last_page || found.len() == wanted {
                return Ok(found);
            }
        }
    }

    pub(crate) async fn active_node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let node = self.inner.state.node(id).await?;
        Ok(node.filter(|node| node.state == NodeState::Active))
    }

    fn page_token(
        &self,
        rule: &OperationRule,
        last: Option<&NodeId>,
    ) -> Result<Option<String>, InternalError> {
        let seal = |id| token::next_token(&self.inner.page_sealer, rule.name, id);
        Ok(last.map(seal).transpose()?)
    }

    /// `DescribeInstanceInformation`.
    ///
    /// # Errors
    /// As [`DescribeInstanceInformationError`] says.
    pub async fn describe_instance_information(
        &self,
        call: &Call,
        input: DescribeInstanceInformationInput,
    ) -> Result<Recorded<DescribeInstanceInformationOutput>, DescribeInstanceInformationError> {
        const RULE: OperationRule = authorize::DESCRIBE_INSTANCE_INFORMATION;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        if !input.filters.is_empty() && !input.filter_list.is_empty() {
            let why =
                "Filters and InstanceInformationFilterList cannot be given together".to_owned();
            return Err(DescribeInstanceInformationError::InvalidFilterKey { why });
        }
        let filters = [input.filters, input.filter_list].concat();
        let limit = input
            .max_results
            .unwrap_or(INFORMATION_PAGE)
            .clamp(1, INFORMATION_PAGE);
        let token = input.next_token.as_deref();
        let page = self
            .list(call, &RULE, (Listing::Information, &filters), limit, token)
            .await?;
        let next_token = self.page_token(&RULE, page.last.as_ref())?;
        let nodes = page.nodes;
        let done = Done::with(DescribeInstanceInformationOutput { nodes, next_token });
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `DescribeInstanceProperties`.
    ///
    /// # Errors
    /// As [`DescribeInstancePropertiesError`] says.
    pub async fn describe_instance_properties(
        &self,
        call: &Call,
        input: DescribeInstancePropertiesInput,
    ) -> Result<Recorded<DescribeInstancePropertiesOutput>, DescribeInstancePropertiesError> {
        const RULE: OperationRule = authorize::DESCRIBE_INSTANCE_PROPERTIES;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        let limit = input
            .max_results
            .unwrap_or(INFORMATION_PAGE)
            .clamp(1, LARGEST_PROPERTIES_PAGE);
        let token = input.next_token.as_deref();
        let page = self
            .list(
                call,
                &RULE,
                (Listing::Properties, &input.filters),
                limit,
                token,
            )
            .await?;
        let next_token = self.page_token(&RULE, page.last.as_ref())?;
        let nodes = page.nodes;
        let done = Done::with(DescribeInstancePropertiesOutput { nodes, next_token });
        Ok(self.record(call, &RULE, done).await?)
    }

    /// An active node by what a caller names it.
    pub(crate) async fn node_named(&self, target: &str) -> Result<Option<Node>, StoreError> {
        match target.parse() {
            Ok(id) => self.active_node(&id).await,
            Err(_) => Ok(None),
        }
    }

    async fn authorize_node(
        &self,
        call: &Call,
        rule: &OperationRule,
        instance_id: &str,
    ) -> Result<Authorized<Option<NodeId>>, AuthorizeError> {
        let node = self.node_named(instance_id).await?;
        let asked = asked_node(&self.inner.names, instance_id, node.as_ref());
        let ask = Ask::about(vec![asked]);
        self.authorize(call, rule, ask, None, instance_id.parse().ok())
            .await
    }

    /// `DeregisterManagedInstance`: the node is refused from now on, and its sessions are told to
    /// end, in one step.
    ///
    /// # Errors
    /// As [`DeregisterManagedInstanceError`] says.
    pub async fn deregister_managed_instance(
        &self,
        call: &Call,
        input: DeregisterManagedInstanceInput,
    ) -> Result<Recorded<()>, DeregisterManagedInstanceError> {
        const RULE: OperationRule = authorize::DEREGISTER_MANAGED_INSTANCE;
        let invalid = || DeregisterManagedInstanceError::InvalidInstanceId {
            id: input.instance_id.clone(),
        };
        let proof = self.authorize_node(call, &RULE, &input.instance_id).await?;
        let node_id = proof.resource().as_ref().ok_or_else(invalid)?;
        let by = authorize::principal(&self.inner.names, &call.caller);
        let reason = format!("The node was deregistered by {by}.");
        for _ in 0..ATTEMPTS {
            let sessions = self.live_sessions_on(node_id).await?;
            let living = sessions
                .iter()
                .filter(|session| crate::session_life::LIVING.contains(&session.state));
            let mut changes: Vec<Change> = living
                .map(|session| told_to_end(&session.id, reason.clone()))
                .collect();
            changes.push(Change::DeregisterNode(node_id.clone()));
            let done = Done::with(())
                .about([self.inner.names.node_resource(node_id)])
                .changing(changes);
            match self.record(call, &RULE, done).await {
                Err(InternalError::Store(StoreError::Conflict(Conflict::SessionState(_)))) => {}
                Err(InternalError::Store(StoreError::Conflict(Conflict::NoNode))) => {
                    return Err(invalid());
                }
                outcome => {
                    let recorded = outcome?;
                    for session in sessions {
                        self.inner.signals.publish(Signal::Session(session.id));
                    }
                    self.inner.signals.publish(Signal::Node(node_id.clone()));
                    return Ok(recorded);
                }
            }
        }
        Err(StoreError::Conflict(Conflict::SessionState(
            sortie_ports::SessionState::Terminating,
        ))
        .into())
    }

    /// `UpdateManagedInstanceRole`: the credentials that the node gets next are of this role.
    ///
    /// # Errors
    /// As [`UpdateManagedInstanceRoleError`] says.
    pub async fn update_managed_instance_role(
        &self,
        call: &Call,
        input: UpdateManagedInstanceRoleInput,
    ) -> Result<Recorded<()>, UpdateManagedInstanceRoleError> {
        for _ in 0..ATTEMPTS {
            match self.try_update_role(call, &input).await {
                // Decided by what is no longer so: decided anew.
                Err(UpdateManagedInstanceRoleError::Internal(InternalError::Store(
                    StoreError::Conflict(Conflict::Revision),
                ))) => {}
                outcome => return outcome,
            }
        }
        Err(StoreError::Conflict(Conflict::Revision).into())
    }

    async fn try_update_role(
        &self,
        call: &Call,
        input: &UpdateManagedInstanceRoleInput,
    ) -> Result<Recorded<()>, UpdateManagedInstanceRoleError> {
        const RULE: OperationRule = authorize::UPDATE_MANAGED_INSTANCE_ROLE;
        let invalid = || UpdateManagedInstanceRoleError::InvalidInstanceId {
            id: input.instance_id.clone(),
        };
        let node = self.node_named(&input.instance_id).await?;
        let asked = asked_node(&self.inner.names, &input.instance_id, node.as_ref());
        let directory = self.directory().await?;
        let ask = self.passing_role(&directory, Ask::about(vec![asked]), &input.iam_role);
        let named: Option<NodeId> = input.instance_id.parse().ok();
        let proof = self.authorize_in(&directory, call, &RULE, &ask, None, named)?;
        let node_id = proof.resource().clone().ok_or_else(invalid)?;
        let iam_role = self.usable_role(&directory, &input.iam_role, Some(&node_id))?;
        let done = Done::with(())
            .about([self.inner.names.node_resource(&node_id)])
            .changing(vec![
                Change::RequireIdentities {
                    revision: directory.revision(),
                },
                Change::SetNodeRole {
                    node_id: node_id.clone(),
                    iam_role,
                },
            ]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::NoNode))) => Err(invalid()),
            outcome => {
                let recorded = outcome?;
                self.inner.signals.publish(Signal::Node(node_id));
                Ok(recorded)
            }
        }
    }
}

/// A node as actions on it are checked, whether it exists or not.
pub(crate) fn asked_node(names: &Names, target: &str, node: Option<&Node>) -> AskedResource {
    let tags = node.map_or(&[][..], |node| node.tags.as_slice());
    AskedResource::new(names.target(target)).tags(&["ssm:resourceTag", "aws:ResourceTag"], tags)
}

impl From<PageError> for DescribeInstanceInformationError {
    fn from(error: PageError) -> Self {
        let value = |why: String| Self::InvalidFilterValue {
            why: format!("{why} is not a value of this filter"),
        };
        match error {
            PageError::Filter(FilterError::ActivationId(id)) => value(id),
            PageError::Filter(FilterError::Document(name)) => value(name),
            PageError::Filter(FilterError::InstanceId(id)) => Self::InvalidInstanceId { id },
            PageError::Filter(FilterError::Key(why)) => Self::InvalidFilterKey { why },
            PageError::Filter(FilterError::Value(given)) => value(given),
            PageError::NextToken => Self::InvalidNextToken,
            PageError::Store(error) => Self::Internal(error),
        }
    }
}

impl From<PageError> for DescribeInstancePropertiesError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Filter(FilterError::ActivationId(id)) => Self::InvalidActivationId { id },
            PageError::Filter(FilterError::Document(name)) => Self::InvalidDocument { name },
            PageError::Filter(FilterError::InstanceId(id)) => Self::InvalidInstanceId { id },
            PageError::Filter(FilterError::Key(why)) => Self::InvalidFilterKey { why },
            PageError::Filter(FilterError::Value(given)) => Self::InvalidFilterValue {
                why: format!("{given} is not a value of this filter"),
            },
            PageError::NextToken => Self::InvalidNextToken,
            PageError::Store(error) => Self::Internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_status_follows_channel_and_heartbeats() {
        let now = Timestamp::from_millis(10_000_000_000_000);
        let ago = |by: Duration| now.minus(by);
        let second = Duration::from_secs(1);
        let long_ago = ago(INACTIVE_AFTER * 3);
        let ping_status =
            |connected, last_ping, now| super::ping_status(connected, long_ago, last_ping, now);
        assert_eq!(
            super::ping_status(false, ago(second), ago(second), now),
            PingStatus::ConnectionLost,
            "enrolled a moment ago and never heard"
        );
        assert_eq!(
            ping_status(true, ago(INACTIVE_AFTER * 2), now),
            PingStatus::Online
        );
        assert_eq!(
            ping_status(false, ago(HEARD_LATELY), now),
            PingStatus::Online
        );
        assert_eq!(
            ping_status(false, ago(HEARD_LATELY + second), now),
            PingStatus::ConnectionLost
        );
        assert_eq!(
            ping_status(false, ago(INACTIVE_AFTER), now),
            PingStatus::ConnectionLost
        );
        assert_eq!(
            ping_status(false, ago(INACTIVE_AFTER + second), now),
            PingStatus::Inactive
        );
    }
}
