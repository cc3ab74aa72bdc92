//! Which document a session is started with, and what comes of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sortie_ports::{Document, DocumentVersion, Node, StoreError};
use sortie_types::Tag;

use super::{
    DEFAULT_DOCUMENT, SessionType,
    builtin::{BuiltIn, built_in},
    inputs::Inputs,
    parse::{Format, read},
    resolve::{Resolved, Surroundings, Unresolved, resolve},
    schema::{InvalidContent, SessionDocument},
};
use crate::{Control, call::Caller, context::principal_tag};

/// The tag of a principal that says as whom its sessions run.
const RUN_AS_TAG: &str = "SSMSessionRunAs";

/// A document as sessions are started with it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    name: String,
    is_built_in: bool,
    document: Result<SessionDocument, String>,
    pub(crate) tags: Vec<Tag>,
}

/// What comes of a document, the values that were given for it, and who gave them.
pub(crate) type Resolution = Result<Resolved, Unresolved>;

/// Reads a version as it is stored.
pub(crate) fn stored(version: &DocumentVersion) -> Result<SessionDocument, String> {
    content_of(version).and_then(|content| {
        SessionDocument::stored(&content).map_err(|error: InvalidContent| error.to_string())
    })
}

/// What a version says, as data.
pub(crate) fn content_of(version: &DocumentVersion) -> Result<Value, String> {
    let format = Format::named(&version.format).ok_or("its format is not known")?;
    read(&version.content, format).map_err(|error| error.to_string())
}

impl Found {
    fn built_in(found: &BuiltIn) -> Self {
        Self {
            name: found.name.to_owned(),
            is_built_in: true,
            document: Ok(found.document.clone()),
            tags: Vec::new(),
        }
    }

    fn of_account((document, version): (Document, DocumentVersion)) -> Self {
        Self {
            document: stored(&version),
            name: document.name,
            is_built_in: false,
            tags: document.tags,
        }
    }

    /// The preferences as long as nobody has saved any.
    fn default_shell() -> Self {
        Self {
            name: DEFAULT_DOCUMENT.to_owned(),
            is_built_in: false,
            document: Ok(SessionDocument {
                description: "Document to hold regional settings for Session Manager".to_owned(),
                session_type: SessionType::StandardStream,
                inputs: Some(json!({})),
                parameters: BTreeMap::new(),
                properties: Value::Null,
            }),
            tags: Vec::new(),
        }
    }

    /// What the document says of sessions in general. Only of preferences, which have no parameters.
    fn preferences(&self) -> Inputs {
        let document = self.document.as_ref().ok();
        let inputs = document.and_then(|document| document.inputs.as_ref());
        inputs
            .and_then(|inputs| Inputs::read_filled(inputs).ok())
            .unwrap_or_default()
    }
}

impl Control {
    /// The document of this name, in the version in force.
    pub(crate) async fn session_document(&self, name: &str) -> Result<Option<Found>, StoreError> {
        if let Some(found) = built_in(name) {
            return Ok(Some(Found::built_in(found)));
        }
        let stored = self.inner.state.document(name).await?;
        Ok(match stored {
            Some(stored) => Some(Found::of_account(stored)),
            None if name == DEFAULT_DOCUMENT => Some(Found::default_shell()),
            None => None,
        })
    }

    /// The tags of a document; none where there is no such document.
    pub(crate) async fn document_tags(&self, name: &str) -> Result<Vec<Tag>, StoreError> {
        let found = self.inner.state.document(name).await?;
        Ok(found.map(|(document, _)| document.tags).unwrap_or_default())
    }

    /// What a session of this document would be.
    pub(crate) async fn resolve_session(
        &self,
        found: &Found,
        parameters: &BTreeMap<String, Vec<String>>,
        caller: &Caller,
        node: Option<&Node>,
    ) -> Result<Resolution, StoreError> {
        let document = match &found.document {
            Ok(document) => document,
            Err(why) => {
                let name = &found.name;
                let why = format!("Document {name} cannot be used: {why}");
                return Ok(Err(Unresolved::Refused(why)));
            }
        };
        let preferences = match self.session_document(DEFAULT_DOCUMENT).await? {
            Some(preferences) => preferences.preferences(),
            None => Inputs::default(),
        };
        let platform = node.and_then(|node| node.info.platform_type.as_deref());
        let settings = &self.inner.settings;
        let run_as_tag = principal_tag(caller, RUN_AS_TAG);
        let surroundings = Surroundings {
            name: &found.name,
            is_built_in: found.is_built_in,
            preferences: &preferences,
            run_as_tag: run_as_tag.as_deref(),
            is_windows: platform.is_some_and(|platform| platform.eq_ignore_ascii_case("windows")),
            default_idle: settings.default_idle,
            max_duration: settings.max_duration,
        };
        Ok(resolve(document, parameters, &surroundings))
    }
}
