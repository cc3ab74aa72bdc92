//! The condition keys of a call: when, from where and how it is made, and by whom. What the call is
//! about brings keys of its own, which operations add.
//!
//! A key that is not known is absent, never empty: what an absent key means is part of the policy
//! language. All functions are pure; the time is that of the call.

use std::net::IpAddr;

use sortie_iam::Context;
use sortie_types::{Tag, Timestamp};

use crate::{
    arns::Names,
    call::{Call, Caller, NodeCaller, RoleCaller, TemporarySession, UserCaller},
};

/// The region of services that have none.
pub(crate) const GLOBAL_REGION: &str = "us-east-1";

/// Keys that an operation adds to those of the call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys(Vec<(String, Held)>);

/// What a key holds. A list of one is not the same as one: only the latter can be a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    One(String),
    Many(Vec<String>),
}

impl Keys {
    /// With one value.
    pub(crate) fn one(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((key.into(), Held::One(value.into())));
        self
    }

    /// With a list.
    pub(crate) fn many<V: Into<String>>(
        mut self,
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.0.push((key.into(), Held::Many(values)));
        self
    }

    /// With the tags that a request carries: `aws:RequestTag/K` and `aws:TagKeys`.
    pub(crate) fn request_tags(self, tags: &[Tag]) -> Self {
        self.put_request_tags(
            tags.iter()
                .map(|tag| (tag.key.as_str(), tag.value.as_str())),
        )
    }

    /// The same for tags as they were given, which may break the rules of tags.
    pub(crate) fn request_tag_texts(self, tags: &[(String, String)]) -> Self {
        self.put_request_tags(
            tags.iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        )
    }

    fn put_request_tags<'a>(
        mut self,
        tags: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Self {
        for (key, value) in tags.clone() {
            self = self.one(format!("aws:RequestTag/{key}"), value);
        }
        let keys: Vec<&str> = tags.map(|(key, _)| key).collect();
        if keys.is_empty() {
            return self;
        }
        self.many("aws:TagKeys", keys)
    }

    /// With all of these as well.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Puts them into a context, in place of what was there.
    pub(crate) fn apply(&self, context: &mut Context) {
        for (key, held) in &self.0 {
            match held {
                Held::One(value) => context.set(key, value.as_str()),
                Held::Many(values) => context.set_many(key, values.iter().map(String::as_str)),
            }
        }
    }
}

/// The keys of a call to `service`.
pub(crate) fn of_call(names: &Names, call: &Call, service: &str) -> Context {
    let mut context = Context::new();
    context.set("aws:CurrentTime", call.now.iso_seconds());
    context.set("aws:EpochTime", epoch_seconds(call.now));
    if let Ok(address) = call.source_ip.parse::<IpAddr>() {
        context.set("aws:SourceIp", address.to_canonical().to_string());
    }
    context.set("aws:SecureTransport", call.secure_transport.to_string());
    if let Some(agent) = &call.user_agent {
        context.set("aws:UserAgent", agent.as_str());
    }
    if let Some(referer) = &call.referer {
        context.set("aws:Referer", referer.as_str());
    }
    let region = if service == "iam" {
        GLOBAL_REGION
    } else {
        names.region.as_str()
    };
    context.set("aws:RequestedRegion", region);
    // Nothing here calls on a user's behalf yet.
    context.set("aws:ViaAWSService", "false");
    context.set("aws:PrincipalIsAWSService", "false");
    put_caller(names, &call.caller, call.now, &mut context);
    context
}

fn put_caller(names: &Names, caller: &Caller, now: Timestamp, context: &mut Context) {
    match caller {
        Caller::Anonymous { .. } => {
            context.set("aws:PrincipalType", "Anonymous");
            context.set("aws:PrincipalAccount", "anonymous");
            context.set("aws:userid", "anonymous");
            return;
        }
        Caller::Node(node) => put_node(names, node, context),
        Caller::Role(role) => put_role(names, role, context),
        Caller::User(user) => put_user(names, user, context),
    }
    context.set("aws:PrincipalAccount", names.account.as_str());
    if let Some(session) = temporary_session(caller) {
        put_session(session, now, context);
    }
}

/// What came with temporary credentials, except those of nodes.
pub(crate) fn temporary_session(caller: &Caller) -> Option<&TemporarySession> {
    match caller {
        Caller::Anonymous { .. } | Caller::Node(_) => None,
        Caller::Role(role) => Some(&role.session),
        Caller::User(user) => user.session.as_ref(),
    }
}

fn put_user(names: &Names, caller: &UserCaller, context: &mut Context) {
    context.set("aws:PrincipalType", "User");
    context.set("aws:PrincipalArn", names.user(&caller.user).as_str());
    context.set("aws:userid", caller.user.unique_id.as_str());
    context.set("aws:username", caller.user.name.as_str());
    put_principal_tags(&caller.user.tags, context);
}

fn put_role(names: &Names, caller: &RoleCaller, context: &mut Context) {
    context.set("aws:PrincipalType", "AssumedRole");
    context.set("aws:PrincipalArn", names.role_arn(&caller.role).as_str());
    let userid = format!("{}:{}", caller.role.unique_id, caller.session_name);
    context.set("aws:userid", userid);
    put_principal_tags(
        &effective_tags(&caller.role.tags, &caller.session.tags),
        context,
    );
}

fn put_node(names: &Names, caller: &NodeCaller, context: &mut Context) {
    context.set("aws:PrincipalType", "AssumedRole");
    if let Some(role) = &caller.role {
        context.set("aws:PrincipalArn", names.role_arn(role).as_str());
        context.set(
            "aws:userid",
            format!("{}:{}", role.unique_id, caller.node_id),
        );
        put_principal_tags(&role.tags, context);
    }
    context.set(
        "ssm:SourceInstanceARN",
        names.node(&caller.node_id).as_str(),
    );
    context.set("aws:MultiFactorAuthPresent", "false");
    if let Some(issued) = caller.issued {
        context.set("aws:TokenIssueTime", issued.iso_seconds());
    }
}

fn put_session(session: &TemporarySession, now: Timestamp, context: &mut Context) {
    context.set("aws:TokenIssueTime", session.issued.iso_seconds());
    put_mfa(session.mfa, now, context);
    if let Some(source_identity) = &session.source_identity {
        context.set("aws:SourceIdentity", source_identity.as_str());
    }
}

/// Whether, and how long ago, a code of an MFA device was checked.
pub(crate) fn put_mfa(mfa: Option<Timestamp>, now: Timestamp, context: &mut Context) {
    context.set("aws:MultiFactorAuthPresent", mfa.is_some().to_string());
    match mfa {
        Some(checked) => {
            let age = now.since(checked).as_secs();
            context.set("aws:MultiFactorAuthAge", age.to_string());
        }
        None => context.remove("aws:MultiFactorAuthAge"),
    }
}

fn put_principal_tags(tags: &[Tag], context: &mut Context) {
    for tag in tags {
        context.set(&format!("aws:PrincipalTag/{}", tag.key), tag.value.as_str());
    }
}

/// A role's tags with those of the session over them. Keys are compared as IAM does, without regard
/// to case.
fn effective_tags(role: &[Tag], session: &[Tag]) -> Vec<Tag> {
    let hidden = |tag: &&Tag| {
        session
            .iter()
            .any(|over| over.key.eq_ignore_ascii_case(&tag.key))
    };
    let below = role.iter().filter(|tag| !hidden(tag)).cloned();
    session.iter().cloned().chain(below).collect()
}

/// What a tag of the caller says: of the user, or of the session, else of the role. Keys are compared as
/// IAM does, without regard to case.
pub(crate) fn principal_tag(caller: &Caller, key: &str) -> Option<String> {
    let tags = match caller {
        Caller::Anonymous { .. } => return None,
        Caller::Node(node) => node.role.as_ref()?.tags.clone(),
        Caller::Role(role) => effective_tags(&role.role.tags, &role.session.tags),
        Caller::User(user) => user.user.tags.clone(),
    };
    let tag = tags
        .into_iter()
        .find(|tag| tag.key.eq_ignore_ascii_case(key));
    tag.map(|tag| tag.value)
}

fn epoch_seconds(at: Timestamp) -> String {
    // Whole seconds; the fraction is cut.
    format!("{:.0}", at.epoch_seconds().floor())
}
