//! Session documents of schema 1.0: every element checked, so that what is stored can be used. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    inputs::Inputs,
    parameters::{Parameter, is_name, placeholders, refers_to_parameter_store},
    properties,
};

/// The elements of a document.
const ELEMENTS: [&str; 6] = [
    "schemaVersion",
    "description",
    "sessionType",
    "inputs",
    "parameters",
    "properties",
];
/// How many parameters a document may have.
const MOST_PARAMETERS: usize = 200;

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionType {
    InteractiveCommands,
    NonInteractiveCommands,
    Port,
    StandardStream,
}

impl SessionType {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "InteractiveCommands" => Self::InteractiveCommands,
            "NonInteractiveCommands" => Self::NonInteractiveCommands,
            "Port" => Self::Port,
            "Standard_Stream" => Self::StandardStream,
            _ => return None,
        })
    }

    /// AWS's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InteractiveCommands => "InteractiveCommands",
            Self::NonInteractiveCommands => "NonInteractiveCommands",
            Self::Port => "Port",
            Self::StandardStream => "Standard_Stream",
        }
    }
}

/// A document that was checked. Inputs and properties are as they were written, with placeholders.
#[derive(Clone, Debug)]
pub(crate) struct SessionDocument {
    pub(crate) description: String,
    pub(crate) session_type: SessionType,
    pub(crate) inputs: Option<Value>,
    pub(crate) parameters: BTreeMap<String, Parameter>,
    pub(crate) properties: Value,
}

/// Why a document is none of schema 1.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidContent {
    #[error("The document is not valid: {0}.")]
    Element(String),
    #[error("The schema version of a session document must be 1.0.")]
    SchemaVersion,
}

impl From<String> for InvalidContent {
    fn from(why: String) -> Self {
        Self::Element(why)
    }
}

impl From<&str> for InvalidContent {
    fn from(why: &str) -> Self {
        Self::Element(why.to_owned())
    }
}

impl SessionDocument {
    /// Checks a new document.
    pub(crate) fn read(document: &Value) -> Result<Self, InvalidContent> {
        Self::read_with(document, Parameter::declared)
    }

    /// Reads a document that was checked when it was new.
    pub(crate) fn stored(document: &Value) -> Result<Self, InvalidContent> {
        Self::read_with(document, Parameter::stored)
    }

    fn read_with(
        document: &Value,
        declare: fn(&Value) -> Result<Parameter, String>,
    ) -> Result<Self, InvalidContent> {
        let members = document.as_object().ok_or("it is no object")?;
        match members.get("schemaVersion") {
            Some(Value::String(version)) if version == "1.0" => {}
            // As YAML reads it without quotes.
            Some(Value::Number(version)) if version.to_string() == "1.0" => {}
            _ => return Err(InvalidContent::SchemaVersion),
        }
        if let Some(unknown) = members.keys().find(|key| !ELEMENTS.contains(&key.as_str())) {
            return Err(format!("{unknown} is not an element of session documents").into());
        }
        let session_type = text(members, "sessionType")?.ok_or("sessionType is missing")?;
        let session_type = SessionType::named(session_type)
            .ok_or_else(|| format!("there is no sessionType {session_type}"))?;
        let read = Self {
            description: text(members, "description")?.unwrap_or_default().to_owned(),
            session_type,
            inputs: present(members, "inputs").cloned(),
            parameters: parameters(members, declare)?,
            properties: present(members, "properties").cloned().unwrap_or_default(),
        };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), InvalidContent> {
        match &self.inputs {
            Some(inputs) => {
                Inputs::read(inputs)?;
            }
            None if self.session_type == SessionType::StandardStream => {
                return Err("inputs is missing".into());
            }
            None => {}
        }
        properties::read(self.session_type, &self.properties)?;
        for part in self.inputs.iter().chain([&self.properties]) {
            self.check_texts(part)?;
        }
        Ok(())
    }

    /// What stands between braces must be declared, or nobody could ever fill it.
    fn check_texts(&self, value: &Value) -> Result<(), InvalidContent> {
        match value {
            Value::String(text) => {
                if refers_to_parameter_store(text) {
                    let why = "it refers to Parameter Store, which is not offered here";
                    return Err(why.into());
                }
                let open = placeholders(text).find(|name| !self.parameters.contains_key(*name));
                match open {
                    Some(name) => Err(format!("parameter {name} is not declared").into()),
                    None => Ok(()),
                }
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.check_texts(item)),
            Value::Object(members) => members
                .values()
                .try_for_each(|member| self.check_texts(member)),
            _ => Ok(()),
        }
    }

    /// The systems that the document is for, in AWS's words.
    pub(crate) fn platform_types(&self) -> Vec<&'static str> {
        let named = |name: &str| self.properties.get(name).is_some();
        let by_system = [
            ("windows", "Windows"),
            ("linux", "Linux"),
            ("macos", "MacOS"),
        ];
        let all = matches!(
            self.session_type,
            SessionType::Port | SessionType::StandardStream
        );
        let wanted = by_system.into_iter().filter(|(name, _)| all || named(name));
        wanted.map(|(_, platform)| platform).collect()
    }
}

/// A member that is there and not null, which is as good as absent.
fn present<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match present(members, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} must be text")),
    }
}

fn parameters(
    members: &Map<String, Value>,
    declare: fn(&Value) -> Result<Parameter, String>,
) -> Result<BTreeMap<String, Parameter>, String> {
    let declared = match present(members, "parameters") {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(declared)) => declared,
        Some(_) => return Err("parameters must be an object".to_owned()),
    };
    if declared.len() > MOST_PARAMETERS {
        return Err(format!(
            "a document has at most {MOST_PARAMETERS} parameters"
        ));
    }
    let named = |(name, declaration): (&String, &Value)| {
        if !is_name(name) {
            return Err(format!(
                "{name} cannot be the name of a parameter: letters, digits, - and _ can"
            ));
        }
        let parameter = declare(declaration).map_err(|why| format!("parameter {name}: {why}"))?;
        Ok((name.clone(), parameter))
    };
    declared.iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tail() -> Value {
        json!({
            "schemaVersion": "1.0",
            "description": "tail",
            "sessionType": "InteractiveCommands",
            "parameters": {"file": {"type": "String", "allowedPattern": "^/var/log/[a-z.]+$"}},
            "properties": {"linux": {"commands": "tail -f {{ file }}", "runAsElevated": false}},
        })
    }

    fn error(document: &Value) -> InvalidContent {
        SessionDocument::read(document).unwrap_err()
    }

    #[test]
    fn a_document_of_every_type_is_read() {
        let inputs = json!({"idleSessionTimeout": "5"});
        for (session_type, properties) in [
            ("Standard_Stream", json!(null)),
            ("InteractiveCommands", json!({"linux": {"commands": "id"}})),
            (
                "NonInteractiveCommands",
                json!({"linux": {"commands": "id"}}),
            ),
            ("Port", json!({"portNumber": "22"})),
        ] {
            let document = json!({
                "schemaVersion": "1.0", "sessionType": session_type, "inputs": inputs,
                "properties": properties,
            });
            let read = SessionDocument::read(&document).unwrap();
            assert_eq!(read.session_type.as_str(), session_type);
        }
        let read = SessionDocument::read(&tail()).unwrap();
        assert_eq!(read.platform_types(), ["Linux"]);
        let unquoted: Value = serde_json::from_str(&tail().to_string().replace("\"1.0\"", "1.0"))
            .expect("a document");
        assert!(SessionDocument::read(&unquoted).is_ok());
    }

    #[test]
    fn elements_that_are_missing_wrong_or_unknown_are_refused() {
        let with = |name: &str, value: Value| {
            let mut document = tail();
            document[name] = value;
            document
        };
        for (document, why) in [
            (with("sessionType", json!("Shell")), "sessionType"),
            (with("sessionType", json!(1)), "sessionType"),
            (with("sessionType", json!(null)), "sessionType"),
            (with("sessionType", json!("{{ file }}")), "sessionType"),
            (with("description", json!(1)), "description"),
            (with("mainSteps", json!([])), "mainSteps"),
            (with("inputs", json!("x")), "inputs"),
            (with("inputs", json!({"idle": "5"})), "idle"),
            (with("parameters", json!([])), "parameters"),
            (
                with("parameters", json!({"a b": {"type": "String"}})),
                "a b",
            ),
            (
                with("parameters", json!({"file": {"type": "Text"}})),
                "file",
            ),
            (with("parameters", json!({})), "file is not declared"),
            (with("properties", json!(null)), "properties"),
            (
                with("properties", json!({"linux": {"commands": "{{ssm:x}}"}})),
                "Parameter Store",
            ),
            (
                with("sessionType", json!("Standard_Stream")),
                "inputs is missing",
            ),
            (json!([]), "no object"),
        ] {
            let told = match error(&document) {
                InvalidContent::SchemaVersion if document.is_array() => continue,
                other => other.to_string(),
            };
            assert!(told.contains(why), "{document}: {told}");
        }
    }

    #[test]
    fn other_schema_versions_are_told_apart() {
        for version in [json!("2.2"), json!("1"), json!(1), json!(1.1), json!(null)] {
            let mut document = tail();
            document["schemaVersion"] = version;
            assert_eq!(error(&document), InvalidContent::SchemaVersion);
        }
    }
}
