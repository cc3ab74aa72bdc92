//! Tags of nodes, activations and documents.

use serde_json::Value;
use sortie_evidence::Resource;
use sortie_ports::{Change, Conflict, Signal, StoreError, TaggedResource};
use sortie_types::{InvalidTag, Tag};

use crate::{
    Control,
    authorize::{self, Ask, AskedResource, Authorized, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    context::Keys,
    documents,
    trail::Done,
};

/// How many tags a resource may have.
pub(crate) const TAG_LIMIT: usize = 50;

/// Tags to set.
#[derive(Clone, Debug)]
pub struct AddTagsToResourceInput {
    /// `ManagedInstance`, `Document` or `Activation`.
    pub resource_type: String,
    /// The resource.
    pub resource_id: String,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// Tags to remove.
#[derive(Clone, Debug)]
pub struct RemoveTagsFromResourceInput {
    /// `ManagedInstance`, `Document` or `Activation`.
    pub resource_type: String,
    /// The resource.
    pub resource_id: String,
    /// Absent keys are fine.
    pub tag_keys: Vec<String>,
}

/// Whose tags.
#[derive(Clone, Debug)]
pub struct ListTagsForResourceInput {
    /// `ManagedInstance`, `Document` or `Activation`.
    pub resource_type: String,
    /// The resource.
    pub resource_id: String,
}

/// A resource's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTagsForResourceOutput {
    /// In order of keys.
    pub tags: Vec<Tag>,
}

/// Why tags were not changed or listed.
#[derive(Debug, thiserror::Error)]
pub enum TagsError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// No such resource.
    #[error("the resource does not exist")]
    InvalidResourceId,
    /// Resources of this type have no tags here.
    #[error("the resource type is not valid")]
    InvalidResourceType,
    /// A tag breaks the rules.
    #[error(transparent)]
    InvalidTag(#[from] InvalidTag),
    /// More than a resource may have.
    #[error("a resource can have at most {TAG_LIMIT} tags")]
    TooManyTags,
}

internal!(TagsError);
refusable!(TagsError);

/// Checks tags as they come from a caller.
pub(crate) fn parse_tags(given: &[(String, String)]) -> Result<Vec<Tag>, InvalidTag> {
    given
        .iter()
        .map(|(key, value)| Tag::new(key, value))
        .collect()
}

/// What a caller named, if it can exist.
type Named = Option<TaggedResource>;

impl Control {
    async fn authorize_tags(
        &self,
        call: &Call,
        rule: &OperationRule,
        (resource_type, resource_id): (&str, &str),
        keys: Keys,
    ) -> Result<Authorized<Named>, TagsError> {
        let names = &self.inner.names;
        let (arn, resource): (_, Named) = match resource_type {
            "Activation" => {
                let id = resource_id.parse().ok();
                let arn = id.map_or_else(|| names.any_ssm(), |id| names.activation(&id));
                (arn, id.map(TaggedResource::Activation))
            }
            "Document" => {
                let name = documents::name(names, resource_id);
                let resource = name.map(|name| TaggedResource::Document(name.to_owned()));
                (names.document(name.unwrap_or(resource_id)), resource)
            }
            "ManagedInstance" => {
                let id = resource_id.parse().ok();
                (names.target(resource_id), id.map(TaggedResource::Node))
            }
            _ => {
                // Whoever may not, does not learn which types there are.
                self.authorize(call, rule, Ask::any().with(keys), None, ())
                    .await?;
                return Err(TagsError::InvalidResourceType);
            }
        };
        let tags = match &resource {
            Some(resource) => self.tags_of(resource).await?.unwrap_or_default(),
            None => Vec::new(),
        };
        let asked = AskedResource::new(arn).tags(&["ssm:resourceTag", "aws:ResourceTag"], &tags);
        let ask = Ask::about(vec![asked]).with(keys);
        Ok(self.authorize(call, rule, ask, None, resource).await?)
    }

    fn tagged_resource(&self, resource: &TaggedResource) -> Resource {
        match resource {
            TaggedResource::Activation(id) => self.inner.names.activation_resource(id),
            TaggedResource::Document(name) => self.inner.names.document_resource(name),
            TaggedResource::Node(id) => self.inner.names.node_resource(id),
        }
    }

    /// `AddTagsToResource`: sets tags, replacing those of the same keys.
    ///
    /// # Errors
    /// As [`TagsError`] says.
    pub async fn add_tags_to_resource(
        &self,
        call: &Call,
        input: AddTagsToResourceInput,
    ) -> Result<Recorded<()>, TagsError> {
        const RULE: OperationRule = authorize::ADD_TAGS_TO_RESOURCE;
        let named = (input.resource_type.as_str(), input.resource_id.as_str());
        let keys = Keys::default().request_tag_texts(&input.tags);
        let named = self.authorize_tags(call, &RULE, named, keys).await?;
        let tags = parse_tags(&input.tags)?;
        let resource = self.existing(&named).await?;
        let change = Change::PutTags {
            resource: resource.clone(),
            tags,
            limit: TAG_LIMIT,
        };
        self.change_tags(call, &RULE, &resource, change).await
    }

    /// `RemoveTagsFromResource`: absent keys are fine.
    ///
    /// # Errors
    /// As [`TagsError`] says.
    pub async fn remove_tags_from_resource(
        &self,
        call: &Call,
        input: RemoveTagsFromResourceInput,
    ) -> Result<Recorded<()>, TagsError> {
        const RULE: OperationRule = authorize::REMOVE_TAGS_FROM_RESOURCE;
        let named = (input.resource_type.as_str(), input.resource_id.as_str());
        let keys = Keys::default().many("aws:TagKeys", input.tag_keys.clone());
        let named = self.authorize_tags(call, &RULE, named, keys).await?;
        let resource = self.existing(&named).await?;
        let change = Change::RemoveTags {
            resource: resource.clone(),
            keys: input.tag_keys,
        };
        self.change_tags(call, &RULE, &resource, change).await
    }

    async fn change_tags(
        &self,
        call: &Call,
        rule: &OperationRule,
        resource: &TaggedResource,
        change: Change,
    ) -> Result<Recorded<()>, TagsError> {
        let done = Done::with(())
            .showing(Value::Null)
            .about([self.tagged_resource(resource)])
            .changing(vec![change]);
        match self.record(call, rule, done).await {
            Err(InternalError::Store(StoreError::Conflict(conflict))) => match conflict {
                Conflict::TooManyTags => Err(TagsError::TooManyTags),
                Conflict::NoActivation | Conflict::NoDocument | Conflict::NoNode => {
                    Err(TagsError::InvalidResourceId)
                }
                other => Err(StoreError::Conflict(other).into()),
            },
            outcome => {
                let recorded = outcome?;
                // Tags decide who may be on a node, and by which document.
                match resource {
                    TaggedResource::Activation(_) => {}
                    TaggedResource::Document(_) => self.inner.signals.publish(Signal::Documents),
                    TaggedResource::Node(id) => {
                        self.inner.signals.publish(Signal::Node(id.clone()));
                    }
                }
                Ok(recorded)
            }
        }
    }

    /// `ListTagsForResource`.
    ///
    /// # Errors
    /// As [`TagsError`] says.
    pub async fn list_tags_for_resource(
        &self,
        call: &Call,
        input: ListTagsForResourceInput,
    ) -> Result<Recorded<ListTagsForResourceOutput>, TagsError> {
        const RULE: OperationRule = authorize::LIST_TAGS_FOR_RESOURCE;
        let named = (input.resource_type.as_str(), input.resource_id.as_str());
        let named = self
            .authorize_tags(call, &RULE, named, Keys::default())
            .await?;
        let resource = named
            .resource()
            .as_ref()
            .ok_or(TagsError::InvalidResourceId)?;
        let mut tags = self
            .tags_of(resource)
            .await?
            .ok_or(TagsError::InvalidResourceId)?;
        tags.sort();
        let done =
            Done::with(ListTagsForResourceOutput { tags }).about([self.tagged_resource(resource)]);
        Ok(self.record(call, &RULE, done).await?)
    }

    async fn existing(&self, named: &Authorized<Named>) -> Result<TaggedResource, TagsError> {
        let resource = named
            .resource()
            .clone()
            .ok_or(TagsError::InvalidResourceId)?;
        match self.tags_of(&resource).await? {
            Some(_) => Ok(resource),
            None => Err(TagsError::InvalidResourceId),
        }
    }

    async fn tags_of(&self, resource: &TaggedResource) -> Result<Option<Vec<Tag>>, StoreError> {
        Ok(match resource {
            TaggedResource::Activation(id) => {
                let activation = self.inner.state.activation(id).await?;
                activation.map(|activation| activation.tags)
            }
            TaggedResource::Document(name) => {
                let found = self.inner.state.document(name).await?;
                found.map(|(document, _)| document.tags)
            }
            TaggedResource::Node(id) => self.active_node(id).await?.map(|node| node.tags),
        })
    }
}
