//! Activations: leave for machines to enrol themselves. The code is shown once and kept as a
//! digest.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use sortie_evidence::HIDDEN;
use sortie_ports::{Activation, Change, Conflict, StoreError};
use sortie_types::{ActivationId, Secret, Tag, Timestamp};

use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, AskedResource, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    context::Keys,
    mint,
    pass_role::UnusableRole,
    tags::{TAG_LIMIT, parse_tags},
    token,
    trail::Done,
};

/// How long an activation is good, unless asked otherwise.
const LIFETIME: Duration = Duration::from_hours(24);
/// How far ahead its expiry may lie.
const LONGEST_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How many nodes may enrol with one, at most.
const LARGEST_LIMIT: i64 = 1000;
/// How often a role is judged again because identities changed meanwhile.
const ATTEMPTS: usize = 8;
/// Activations on a page, at most and unless asked otherwise.
const PAGE: usize = 50;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateActivationInput {
    /// Free text.
    pub description: Option<String>,
    /// The name that nodes get.
    pub default_instance_name: Option<String>,
    /// The role that nodes act with.
    pub iam_role: String,
    /// 1 to 1000; 1 when absent.
    pub registration_limit: Option<i64>,
    /// At most 30 days ahead; 24 hours when absent.
    pub expiration: Option<Timestamp>,
    /// Keys and values, given to the nodes that enrol.
    pub tags: Vec<(String, String)>,
}

/// A new activation.
#[derive(Clone, Debug)]
pub struct CreateActivationOutput {
    /// The public half.
    pub activation_id: ActivationId,
    /// The secret half; cannot be seen again.
    pub activation_code: Secret,
}

/// Why none was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateActivationError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// A member has a value it cannot have.
    #[error("{0}")]
    InvalidParameters(String),
    /// No role that nodes may act with.
    #[error(transparent)]
    InvalidRole(#[from] UnusableRole),
}

/// One condition of a listing: any of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationFilter {
    /// `ActivationIds`, `DefaultInstanceName` or `IamRole`.
    pub key: String,
    /// Any of them.
    pub values: Vec<String>,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct DescribeActivationsInput {
    /// All must hold.
    pub filters: Vec<ActivationFilter>,
    /// Up to 50.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// An activation as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationView {
    /// The row.
    pub activation: Activation,
    /// Whether its time is over.
    pub expired: bool,
}

/// A page of activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeActivationsOutput {
    /// Newest first.
    pub activations: Vec<ActivationView>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// Why nothing was listed.
#[derive(Debug, thiserror::Error)]
pub enum DescribeActivationsError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// There is no such filter.
    #[error("there is no filter {key}")]
    InvalidFilter {
        /// As it was given.
        key: String,
    },
    /// Not of the page before.
    #[error("next token is not valid")]
    InvalidNextToken,
}

/// What to delete.
#[derive(Clone, Debug)]
pub struct DeleteActivationInput {
    /// Its id.
    pub activation_id: String,
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteActivationError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// There is none.
    #[error("the activation does not exist")]
    InvalidActivation,
    /// Not the form of an activation's id.
    #[error("the activation id is not valid")]
    InvalidActivationId,
}

internal!(
    CreateActivationError,
    DescribeActivationsError,
    DeleteActivationError,
);
refusable!(
    CreateActivationError,
    DescribeActivationsError,
    DeleteActivationError,
);

/// What is kept of a code.
pub(crate) fn code_digest(code: &Secret) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digest = digest(&SHA256, code.expose().as_bytes());
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

/// A role's name, with a path before it or not, within IAM's characters and SSM's 64.
pub(crate) fn is_role_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('/')
        && !text.ends_with('/')
        && !text.contains("//")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b))
}

impl Control {
    /// `CreateActivation`.
    ///
    /// # Errors
    /// As [`CreateActivationError`] says.
    pub async fn create_activation(
        &self,
        call: &Call,
        input: CreateActivationInput,
    ) -> Result<Recorded<CreateActivationOutput>, CreateActivationError> {
        for _ in 0..ATTEMPTS {
            match self.try_create_activation(call, &input).await {
                // Decided by what is no longer so: decided anew.
                Err(CreateActivationError::Internal(InternalError::Store(
                    StoreError::Conflict(Conflict::Revision),
                ))) => {}
                outcome => return outcome,
            }
        }
        Err(StoreError::Conflict(Conflict::Revision).into())
    }

    async fn try_create_activation(
        &self,
        call: &Call,
        input: &CreateActivationInput,
    ) -> Result<Recorded<CreateActivationOutput>, CreateActivationError> {
        const RULE: OperationRule = authorize::CREATE_ACTIVATION;
        let names = &self.inner.names;
        let directory = self.directory().await?;
        let ask = self.passing_role(
            &directory,
            creation_ask(names, &input.tags),
            &input.iam_role,
        );
        self.authorize_in(&directory, call, &RULE, &ask, None, ())?;
        let activation_code = mint::activation_code()?;
        let mut activation = new_activation(input.clone(), &activation_code, call.now)?;
        activation.iam_role = self.usable_role(&directory, &activation.iam_role, None)?;
        let activation_id = activation.id;
        let done = Done::with(CreateActivationOutput {
            activation_id,
            activation_code,
        })
        .showing(json!({"activationId": activation_id, "activationCode": HIDDEN}))
        .about([names.activation_resource(&activation_id)])
        .changing(vec![
            Change::RequireIdentities {
                revision: directory.revision(),
            },
            Change::InsertActivation(activation),
        ]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `DescribeActivations`.
    ///
    /// # Errors
    /// As [`DescribeActivationsError`] says.
    pub async fn describe_activations(
        &self,
        call: &Call,
        input: DescribeActivationsInput,
    ) -> Result<Recorded<DescribeActivationsOutput>, DescribeActivationsError> {
        const RULE: OperationRule = authorize::DESCRIBE_ACTIVATIONS;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        if let Some(filter) = input.filters.iter().find(|filter| !is_known(filter)) {
            let key = filter.key.clone();
            return Err(DescribeActivationsError::InvalidFilter { key });
        }
        let limit = input.max_results.unwrap_or(PAGE).clamp(1, PAGE);
        let after = token::cursor(
            &self.inner.page_sealer,
            RULE.name,
            input.next_token.as_deref(),
        )
        .map_err(|_| DescribeActivationsError::InvalidNextToken)?;
        let mut found = self
            .matching_activations(after, limit + 1, &input.filters)
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next_token = match found.last() {
            Some(last) if more => {
                let cursor = (last.created, last.id);
                Some(token::next_token(
                    &self.inner.page_sealer,
                    RULE.name,
                    &cursor,
                )?)
            }
            _ => None,
        };
        let view = |activation: Activation| ActivationView {
            expired: call.now >= activation.expires,
            activation,
        };
        let activations = found.into_iter().map(view).collect();
        let done = Done::with(DescribeActivationsOutput {
            activations,
            next_token,
        });
        Ok(self.record(call, &RULE, done).await?)
    }

    /// The next `wanted` activations that match, behind `after`.
    async fn matching_activations(
        &self,
        mut after: Option<(Timestamp, ActivationId)>,
        wanted: usize,
        filters: &[ActivationFilter],
    ) -> Result<Vec<Activation>, StoreError> {
        let mut found = Vec::new();
        loop {
            let page = self.inner.state.activations(after, wanted).await?;
            let last_page = page.len() < wanted;
            after = page.last().map(|last| (last.created, last.id)).or(after);
            let matching = page
                .into_iter()
                .filter(|activation| filters.iter().all(|filter| matches(filter, activation)));
            found.extend(matching.take(wanted - found.len()));
            if last_page || found.len() == wanted {
                return Ok(found);
            }
        }
    }

    /// `DeleteActivation`: nobody can enrol with it any more; nodes that did stay.
    ///
    /// # Errors
    /// As [`DeleteActivationError`] says.
    pub async fn delete_activation(
        &self,
        call: &Call,
        input: DeleteActivationInput,
    ) -> Result<Recorded<()>, DeleteActivationError> {
        const RULE: OperationRule = authorize::DELETE_ACTIVATION;
        let names = &self.inner.names;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        let id: ActivationId = input
            .activation_id
            .parse()
            .map_err(|_| DeleteActivationError::InvalidActivationId)?;
        let done = Done::with(())
            .about([names.activation_resource(&id)])
            .changing(vec![Change::DeleteActivation(id)]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::NoActivation))) => {
                Err(DeleteActivationError::InvalidActivation)
            }
            outcome => Ok(outcome?),
        }
    }
}

/// What creating an activation asks, besides leave to pass the role. With tags it is tagging as well.
fn creation_ask(names: &Names, tags: &[(String, String)]) -> Ask {
    let ask = Ask::any().with(Keys::default().request_tag_texts(tags));
    if tags.is_empty() {
        return ask;
    }
    let created = AskedResource::new(names.any_activation());
    ask.also("ssm:AddTagsToResource", vec![created])
}

fn new_activation(
    input: CreateActivationInput,
    code: &Secret,
    now: Timestamp,
) -> Result<Activation, CreateActivationError> {
    let refuse = |why: &str| Err(CreateActivationError::InvalidParameters(why.to_owned()));
    if !is_role_name(&input.iam_role) {
        return refuse("IamRole is not the name of a role.");
    }
    let registration_limit = input.registration_limit.unwrap_or(1);
    if !(1..=LARGEST_LIMIT).contains(&registration_limit) {
        return refuse("RegistrationLimit must be from 1 to 1000.");
    }
    let expires = input.expiration.unwrap_or_else(|| now.plus(LIFETIME));
    if expires <= now {
        return refuse("ExpirationDate must be in the future.");
    }
    if expires > now.plus(LONGEST_LIFETIME) {
        return refuse("ExpirationDate must be at most 30 days ahead.");
    }
    Ok(Activation {
        id: ActivationId::new(mint::uuid()?),
        code_digest: code_digest(code),
        iam_role: input.iam_role,
        description: input.description,
        // Terraform sends an empty name for none.
        default_instance_name: input.default_instance_name.filter(|name| !name.is_empty()),
        registration_limit,
        registrations_count: 0,
        expires,
        created: now,
        tags: activation_tags(&input.tags)?,
    })
}

fn activation_tags(given: &[(String, String)]) -> Result<Vec<Tag>, CreateActivationError> {
    let invalid = |error: sortie_types::InvalidTag| {
        CreateActivationError::InvalidParameters(error.to_string())
    };
    let tags = parse_tags(given).map_err(invalid)?;
    let mut keys: Vec<&str> = tags.iter().map(|tag| tag.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() != tags.len() || tags.len() > TAG_LIMIT {
        let why = format!("Tags must have different keys and be at most {TAG_LIMIT}.");
        return Err(CreateActivationError::InvalidParameters(why));
    }
    Ok(tags)
}

fn is_known(filter: &ActivationFilter) -> bool {
    ["ActivationIds", "DefaultInstanceName", "IamRole"].contains(&filter.key.as_str())
}

fn matches(filter: &ActivationFilter, activation: &Activation) -> bool {
    let id;
    let actual = match filter.key.as_str() {
        "ActivationIds" => {
            id = activation.id.to_string();
            Some(id.as_str())
        }
        "DefaultInstanceName" => activation.default_instance_name.as_deref(),
        _ => Some(activation.iam_role.as_str()),
    };
    actual.is_some_and(|actual| filter.values.iter().any(|value| value == actual))
}
