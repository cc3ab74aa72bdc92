//! `Explain`: why a principal may or may not do something, in sentences. Asked are the policies by
//! the same code that every call is judged by, about the same resources with the same keys, so an
//! explanation and the call that follows it agree.
//!
//! Everyone may ask about themselves. Asking about others takes `iam:SimulatePrincipalPolicy` on them,
//! and so does seeing more of oneself than one's own policies say: the tags of resources and the
//! conditions of a role's trust policy are other people's.

use sortie_iam::{Decision, Explanation, Miss, Outcome, PolicyType};
use sortie_types::{Arn, NodeId, SessionId};

use crate::{
    Control,
    arns::Names,
    authorize::{self, Admitted, Ask, AskedResource, Denied, OperationRule},
    call::{
        Call, Caller, InternalError, Recorded, RoleCaller, TemporarySession, UserCaller, internal,
        refusable,
    },
    context::Keys,
    directory::Directory,
    documents::DEFAULT_DOCUMENT,
    iam::{
        ask,
        entity::{Held, Holder},
    },
    mint,
    nodes::asked_node,
    sessions::{asked_document, asked_session, start_ask},
    trail::Done,
};

/// The families of keys that hold tags of resources.
const RESOURCE_TAGS: [&str; 3] = ["aws:resourcetag/", "iam:resourcetag/", "ssm:resourcetag/"];
/// Keys that hold lists, also with one value.
const LISTS: [&str; 2] = ["aws:tagkeys", "sts:transitivetagkeys"];
/// The longest action name that is looked at.
const LONGEST_ACTION: usize = 128;

/// What to explain.
#[derive(Clone, Debug, Default)]
pub struct ExplainInput {
    /// `service:Name`.
    pub action: String,
    /// An ARN, the id of a node or session, or `*`, which is also meant when it is absent.
    pub resource: Option<String>,
    /// For whom; the caller when it is absent.
    pub principal: Option<ExplainedPrincipal>,
    /// Condition keys to suppose, with their values.
    pub context: Vec<(String, Vec<String>)>,
}

/// For whom to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainedPrincipal {
    /// A user, role or role session by ARN.
    Arn(String),
    /// A user by name.
    User(String),
}

/// The explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainOutput {
    /// What would be decided.
    pub outcome: Outcome,
    /// About whom.
    pub principal: String,
    /// As refusals write it.
    pub action: String,
    /// What the action is checked on, in order.
    pub resources: Vec<String>,
    /// Why.
    pub sentences: Vec<String>,
    /// The refusal that a call would get.
    pub message: Option<String>,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Not about others.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Not `service:Name`.
    #[error("{0} is not an action: actions are written like ssm:StartSession, without wildcards")]
    InvalidAction(String),
    /// Neither an ARN nor an id.
    #[error("{0} is not a resource: give an ARN, the id of a node or session, or *")]
    InvalidResource(String),
    /// There is no such user or role.
    #[error("{0} is neither a user nor a role here")]
    NoSuchPrincipal(String),
}

internal!(ExplainError);
refusable!(ExplainError);

/// Who is explained.
struct Subject {
    call: Call,
    /// Whether nothing has to be hidden from the one who asks.
    sees_all: bool,
    /// Said when what is explained is not the call that was made.
    supposition: Option<String>,
}

/// What the action is asked about.
struct Asked {
    ask: Ask,
    /// A role that is to be assumed and does not exist: refused whatever policies say.
    is_missing_role: bool,
}

impl Control {
    /// `Explain`.
    ///
    /// # Errors
    /// As [`ExplainError`] says.
    pub async fn explain(
        &self,
        call: &Call,
        input: &ExplainInput,
    ) -> Result<Recorded<ExplainOutput>, ExplainError> {
        const RULE: OperationRule = authorize::EXPLAIN;
        let (service, name) = valid_action(&input.action)?;
        let directory = self.directory().await?;
        self.authorize_in(&directory, call, &RULE, &Ask::any(), None, ())?;
        let subject = self.subject(&directory, call, input.principal.as_ref())?;
        let rule = authorize::operation_rule_ignoring_case(service, name);
        let asked = self.asked(&directory, input).await?;
        let asked = Asked {
            ask: asked.ask.supposing(&keys(&input.context)),
            ..asked
        };
        let answer = self.explanation(&directory, &subject, (service, rule), &asked, input);
        Ok(self.record(call, &RULE, Done::with(answer)).await?)
    }

    /// The caller, or another principal as it would call with nothing special about the call.
    fn subject(
        &self,
        directory: &Directory,
        call: &Call,
        principal: Option<&ExplainedPrincipal>,
    ) -> Result<Subject, ExplainError> {
        let names = &self.inner.names;
        let may_simulate = |holder: &Holder| {
            let rule = &authorize::SIMULATE_PRINCIPAL_POLICY;
            let ask = ask::holder(directory, names, holder);
            self.authorize_in(directory, call, rule, &ask, None, ())
        };
        let own = own_holder(&call.caller);
        let Some(principal) = principal else {
            return Ok(Subject {
                call: call.clone(),
                sees_all: own.is_some_and(|own| may_simulate(&own).is_ok()),
                supposition: None,
            });
        };
        let unknown = |text: &str| ExplainError::NoSuchPrincipal(text.to_owned());
        let (holder, session_name) = match principal {
            ExplainedPrincipal::User(name) => (Holder::User(name.clone()), None),
            ExplainedPrincipal::Arn(arn) => holder_of(arn).ok_or_else(|| unknown(arn))?,
        };
        may_simulate(&holder)?;
        let text = match principal {
            ExplainedPrincipal::Arn(text) | ExplainedPrincipal::User(text) => text.as_str(),
        };
        let held = holder.find(directory).map_err(|_| unknown(text))?;
        let is_exact = match principal {
            ExplainedPrincipal::User(_) => true,
            ExplainedPrincipal::Arn(arn) => {
                session_name.is_some() || held.arn(names).as_str() == arn
            }
        };
        let caller = hypothetical(held, session_name, call)?.filter(|_| is_exact);
        let caller = caller.ok_or_else(|| unknown(text))?;
        let how = match &caller {
            Caller::Role(_) => "a session of the role without MFA and without session policies",
            _ => "a long-lived access key, so without MFA",
        };
        Ok(Subject {
            supposition: Some(format!(
                "Supposed are {how}, no particular address, and the time {}; other values are given \
                 as context.",
                call.now.iso_seconds()
            )),
            call: Call {
                caller,
                source_ip: String::new(),
                user_agent: None,
                referer: None,
                secure_transport: true,
                ..call.clone()
            },
            sees_all: true,
        })
    }

    /// What a call of the action would ask about this resource.
    async fn asked(
        &self,
        directory: &Directory,
        input: &ExplainInput,
    ) -> Result<Asked, ExplainError> {
        let names = &self.inner.names;
        let plain = |ask: Ask| Asked {
            ask,
            is_missing_role: false,
        };
        let is_action = |action: &str| input.action.eq_ignore_ascii_case(action);
        let arn = match input.resource.as_deref() {
            None | Some("*") => return Ok(plain(Ask::any())),
            Some(text) => resource_arn(names, text)
                .ok_or_else(|| ExplainError::InvalidResource(text.to_owned()))?,
        };
        if let Some(asked) = self.asked_node_of(&arn).await? {
            let ask = if is_action(authorize::START_SESSION.action) {
                let tags = self.document_tags(DEFAULT_DOCUMENT).await?;
                start_ask(asked, asked_document(names, DEFAULT_DOCUMENT, &tags), &[])
            } else {
                Ask::about(vec![asked])
            };
            return Ok(plain(ask));
        }
        if let Some(asked) = self.asked_session_of(&arn).await? {
            return Ok(plain(Ask::about(vec![asked])));
        }
        if arn.service() == "iam" {
            return Ok(iam_ask(
                directory,
                names,
                &arn,
                is_action(authorize::ASSUME_ROLE.action),
            ));
        }
        let document = arn.resource().strip_prefix("document/");
        let document = document.filter(|name| names.document(name) == arn);
        let ask = match document {
            Some(name) => {
                let tags = self.document_tags(name).await?;
                Ask::about(vec![asked_document(names, name, &tags)])
            }
            None => Ask::on(arn),
        };
        Ok(plain(if is_action(authorize::START_SESSION.action) {
            ask.key("ssm:SessionDocumentAccessCheck", "true")
        } else {
            ask
        }))
    }

    async fn asked_node_of(&self, arn: &Arn) -> Result<Option<AskedResource>, InternalError> {
        let names = &self.inner.names;
        let id = arn.resource().strip_prefix("managed-instance/");
        let Some(id) = id.and_then(|id| id.parse::<NodeId>().ok()) else {
            return Ok(None);
        };
        if names.node(&id) != *arn {
            return Ok(None);
        }
        let node = self.active_node(&id).await?;
        Ok(Some(asked_node(names, id.as_str(), node.as_ref())))
    }

    async fn asked_session_of(&self, arn: &Arn) -> Result<Option<AskedResource>, InternalError> {
        let names = &self.inner.names;
        let id = arn.resource().strip_prefix("session/");
        let Some(id) = id.and_then(|id| id.parse::<SessionId>().ok()) else {
            return Ok(None);
        };
        if names.session(id.as_str()) != *arn {
            return Ok(None);
        }
        let session = self.inner.state.session(&id).await?;
        Ok(session.map(|session| asked_session(names, &session)))
    }

    /// Asks, and says what came of it.
    fn explanation(
        &self,
        directory: &Directory,
        subject: &Subject,
        (service, rule): (&str, Option<&OperationRule>),
        asked: &Asked,
        input: &ExplainInput,
    ) -> ExplainOutput {
        let names = &self.inner.names;
        let principal = authorize::principal(names, &subject.call.caller);
        // As refusals write it.
        let action = rule.map_or(input.action.as_str(), |rule| rule.action);
        let mut judged = Judged::default();
        let barred = self.barred(&subject.call.caller, rule);
        let standing = authorize::standing(names, directory, &subject.call.caller);
        match (barred, standing) {
            (Some(why), _) => judged.bar(&principal, action, &why),
            (None, None) => judged.bar(&principal, action, "its role does not exist"),
            (None, Some(standing)) => {
                let asking = (service, action);
                self.each_question(&standing, &subject.call, asking, &asked.ask, |question| {
                    let mut decision = question.explained(names);
                    if !subject.sees_all {
                        hide(&mut decision.explanation);
                    }
                    judged.add(&principal, decision);
                });
                if asked.is_missing_role {
                    let why = "there is no such role, or it does not trust this principal";
                    judged.bar(&principal, action, why);
                }
            }
        }
        let verb = if judged.outcome() == Outcome::Allowed {
            "may"
        } else {
            "may not"
        };
        let mut sentences = vec![format!("{principal} {verb} perform {action}.")];
        sentences.extend(subject.supposition.clone());
        sentences.extend(judged.sentences.iter().cloned());
        ExplainOutput {
            outcome: judged.outcome(),
            principal,
            action: action.to_owned(),
            message: judged.message(),
            resources: judged.resources,
            sentences,
        }
    }

    /// What stands in the way whatever policies say: the operation is for others, or not for these
    /// credentials.
    fn barred(&self, caller: &Caller, rule: Option<&OperationRule>) -> Option<String> {
        let own_node = match caller {
            Caller::Node(node) => Some(&node.node_id),
            _ => None,
        };
        match authorize::admitted(caller, rule?, own_node) {
            Admitted::Yes | Admitted::IfPoliciesAllow => None,
            Admitted::No => Some("the operation is for nodes that act as themselves".to_owned()),
            Admitted::NotWithThisToken(why) => Some(why.to_owned()),
        }
    }
}

/// The answers to all questions of a call. An explicit denial is told before what is merely not
/// allowed, as in the call.
#[derive(Default)]
struct Judged {
    sentences: Vec<String>,
    resources: Vec<String>,
    explicit: Option<String>,
    implicit: Option<String>,
}

impl Judged {
    fn add(&mut self, principal: &str, decision: Decision) {
        let Decision {
            outcome,
            explanation,
        } = decision;
        let resource = explanation.resource.as_str();
        let named = (resource != "*").then_some(resource);
        let refusal = || explanation.access_denied_message(principal, named);
        match outcome {
            Outcome::Allowed => {}
            Outcome::ExplicitlyDenied => {
                self.explicit.get_or_insert_with(refusal);
            }
            Outcome::ImplicitlyDenied => {
                self.implicit.get_or_insert_with(refusal);
            }
        }
        if !self.resources.iter().any(|known| known == resource) {
            self.resources.push(resource.to_owned());
        }
        self.sentences.extend(explanation.sentences());
    }

    fn bar(&mut self, principal: &str, action: &str, why: &str) {
        self.sentences
            .push(format!("{action} is denied because {why}."));
        self.implicit.get_or_insert_with(|| {
            format!("User: {principal} is not authorized to perform: {action} because {why}")
        });
    }

    fn outcome(&self) -> Outcome {
        match (&self.explicit, &self.implicit) {
            (Some(_), _) => Outcome::ExplicitlyDenied,
            (None, Some(_)) => Outcome::ImplicitlyDenied,
            (None, None) => Outcome::Allowed,
        }
    }

    fn message(&self) -> Option<String> {
        self.explicit.clone().or_else(|| self.implicit.clone())
    }
}

fn valid_action(action: &str) -> Result<(&str, &str), ExplainError> {
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    action
        .split_once(':')
        .filter(|(service, name)| is_word(service) && is_word(name))
        .filter(|_| action.len() <= LONGEST_ACTION)
        .ok_or_else(|| ExplainError::InvalidAction(action.to_owned()))
}

fn resource_arn(names: &Names, text: &str) -> Option<Arn> {
    if text.starts_with("arn:") {
        return text.parse().ok();
    }
    let node = text.parse::<NodeId>().ok().map(|id| names.node(&id));
    node.or_else(|| {
        let session = text.parse::<SessionId>().ok();
        session.map(|id| names.session(id.as_str()))
    })
}

/// A user, group, role or policy, with its tags; a role that is to be assumed with its trust policy.
fn iam_ask(directory: &Directory, names: &Names, arn: &Arn, is_assumed: bool) -> Asked {
    let held = held_at(directory, names, arn);
    let ask = match (held, is_assumed) {
        (Some((_, Held::Role(role))), true) => {
            let asked = AskedResource::new(arn.clone())
                .tags(&["aws:ResourceTag", "iam:ResourceTag"], &role.tags)
                .governed_by(directory.trust_policy(role));
            Ask::about(vec![asked])
        }
        (Some((holder, _)), _) => ask::holder(directory, names, &holder),
        (None, _) => ask::policy(directory, arn),
    };
    Asked {
        ask,
        is_missing_role: is_assumed
            && !matches!(held_at(directory, names, arn), Some((_, Held::Role(_)))),
    }
}

fn held_at<'a>(directory: &'a Directory, names: &Names, arn: &Arn) -> Option<(Holder, Held<'a>)> {
    let (kind, rest) = arn.resource().split_once('/')?;
    let name = rest.rsplit('/').next()?.to_owned();
    let holder = match kind {
        "group" => Holder::Group(name),
        "role" => Holder::Role(name),
        "user" => Holder::User(name),
        _ => return None,
    };
    let held = holder.find(directory).ok()?;
    (held.arn(names) == *arn).then_some((holder, held))
}

/// The user or role of a principal's ARN, and the name of a role session.
fn holder_of(arn: &str) -> Option<(Holder, Option<String>)> {
    let arn: Arn = arn.parse().ok()?;
    let (kind, rest) = arn.resource().split_once('/')?;
    let last = rest.rsplit('/').next()?.to_owned();
    match (arn.service(), kind) {
        ("iam", "user") => Some((Holder::User(last), None)),
        ("iam", "role") => Some((Holder::Role(last), None)),
        ("sts", "assumed-role") => {
            let (role, session) = rest.split_once('/')?;
            Some((Holder::Role(role.to_owned()), Some(session.to_owned())))
        }
        _ => None,
    }
}

fn own_holder(caller: &Caller) -> Option<Holder> {
    match caller {
        Caller::Anonymous { .. } | Caller::Node(_) => None,
        Caller::Role(role) => Some(Holder::Role(role.role.name.clone())),
        Caller::User(user) => Some(Holder::User(user.user.name.to_string())),
    }
}

/// The principal as a caller. Its key is one that nobody has: no policy asks for it.
fn hypothetical(
    held: Held<'_>,
    session_name: Option<String>,
    call: &Call,
) -> Result<Option<Caller>, mint::RandomError> {
    let access_key_id = mint::temporary_key()?;
    Ok(match held {
        Held::Group(_) => None,
        Held::User(user) => Some(Caller::User(Box::new(UserCaller {
            user: user.clone(),
            access_key_id,
            session: None,
        }))),
        Held::Role(role) => Some(Caller::Role(Box::new(RoleCaller {
            role: role.clone(),
            session_name: session_name.unwrap_or_else(|| "session".to_owned()),
            access_key_id,
            session: TemporarySession::new(call.now, call.now),
        }))),
    })
}

fn keys(context: &[(String, Vec<String>)]) -> Keys {
    context.iter().fold(Keys::default(), |keys, (key, values)| {
        let is_list = LISTS.iter().any(|list| key.eq_ignore_ascii_case(list));
        match values.as_slice() {
            [value] if !is_list => keys.one(key.as_str(), value.as_str()),
            values => keys.many(key.as_str(), values.to_vec()),
        }
    })
}

/// Takes out what is not the caller's to see: values of resources' tags, and what trust policies want.
fn hide(explanation: &mut Explanation) {
    let near_misses = &mut explanation.near_misses;
    near_misses.retain(|near| near.statement.policy_type != PolicyType::Trust);
    for miss in near_misses.iter_mut().flat_map(|near| &mut near.misses) {
        if let Miss::Condition(condition) = miss {
            let key = condition.key.to_ascii_lowercase();
            let is_tag = RESOURCE_TAGS.iter().any(|family| key.starts_with(family));
            if let (true, Some(found)) = (is_tag, &mut condition.found) {
                *found = vec!["another value".to_owned()];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_whole_names() {
        for action in ["ssm:StartSession", "sts:AssumeRole", "kms-x:A1"] {
            assert!(valid_action(action).is_ok(), "{action}");
        }
        let long = format!("ssm:{}", "A".repeat(LONGEST_ACTION));
        for action in [
            "",
            "*",
            "ssm",
            "ssm:",
            ":X",
            "ssm:*",
            "ssm:Start?",
            "a:b:c",
            "é:X",
            &long,
        ] {
            assert!(valid_action(action).is_err(), "{action}");
        }
    }

    #[test]
    fn principals_are_read_off_their_arns() {
        let user = holder_of("arn:aws:iam::111122223333:user/a/b/alice");
        assert_eq!(user, Some((Holder::User("alice".into()), None)));
        let session = holder_of("arn:aws:sts::111122223333:assumed-role/R/S");
        assert_eq!(session, Some((Holder::Role("R".into()), Some("S".into()))));
        for text in [
            "",
            "alice",
            "arn:aws:iam::111122223333:group/g",
            "arn:aws:iam::1:root",
        ] {
            assert_eq!(holder_of(text), None, "{text}");
        }
    }
}
