//! From a document's JSON to a policy: which elements each kind of policy may have, and what they may
//! hold. Everything a decision could stumble over is refused here, so that deciding cannot fail.

use crate::{
    PolicyError, Problem, Quota,
    arn::{ArnPattern, NotAPattern},
    condition::{BadCondition, Condition},
    document_size,
    error::not_json,
    json::Json,
    pattern::Pattern,
    policy::{
        ActionPattern, Actions, Effect, Places, Policy, PolicyKind, Resources, Statement, Version,
    },
    principal::{Named, Principals},
    word::Word,
};

type Members = Vec<(String, Json)>;

/// Where in the document something is wrong, for people.
#[derive(Clone, Copy)]
struct Place {
    kind: PolicyKind,
    version: Version,
    /// Counted from 1.
    statement: usize,
}

impl Place {
    fn at(self, problem: Problem, what: impl std::fmt::Display) -> PolicyError {
        problem.at(format!("statement {}: {what}", self.statement))
    }

    fn has_principals(self) -> bool {
        matches!(self.kind, PolicyKind::Resource | PolicyKind::Trust)
    }

    fn variables(self) -> bool {
        self.version == Version::V2012
    }
}

pub(crate) fn policy(text: &str, kind: PolicyKind) -> Result<Policy, PolicyError> {
    Quota::Document.check(document_size(text))?;
    let strange = |character: &char| !matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}');
    if let Some(character) = text.chars().find(strange) {
        let detail = format!("U+{:04X} cannot occur in a policy", u32::from(character));
        return Err(not_json(kind, detail));
    }
    let members = match Json::parse(text) {
        Ok(Json::Object(members)) => members,
        Ok(_) => return Err(Problem::Syntax.at("the document is not a JSON object")),
        Err(detail) => return Err(not_json(kind, detail)),
    };
    document(members, kind)
}

fn document(members: Members, kind: PolicyKind) -> Result<Policy, PolicyError> {
    let mut version = Version::V2008;
    let mut statements = None;
    for (name, value) in members {
        match (&*name, value) {
            ("Version", Json::String(text)) => version = parse_version(&text)?,
            ("Id", Json::String(_)) if matches!(kind, PolicyKind::Resource | PolicyKind::Trust) => {
            }
            ("Statement", Json::Object(members)) => statements = Some(vec![Json::Object(members)]),
            ("Statement", Json::Array(items)) => statements = Some(items),
            ("Version" | "Id" | "Statement", _) => {
                return Err(Problem::Syntax.at(format!("`{name}` cannot hold this here")));
            }
            _ => return Err(Problem::Syntax.at(format!("there is no element `{name}`"))),
        }
    }
    let items = statements.unwrap_or_default();
    if items.is_empty() {
        return Err(Problem::Syntax.at("the document has no statement"));
    }
    let mut parsed = Vec::with_capacity(items.len());
    for (item, statement) in items.into_iter().zip(1..) {
        let place = Place {
            kind,
            version,
            statement,
        };
        match item {
            Json::Object(members) => parsed.push(parse_statement(members, place)?),
            _ => return Err(place.at(Problem::Syntax, "not an object")),
        }
    }
    check_sids(&parsed)?;
    Ok(assemble(kind, version, parsed))
}

fn assemble(kind: PolicyKind, version: Version, statements: Vec<Statement>) -> Policy {
    Policy {
        kind,
        version,
        allows: Places::new(&statements, Effect::Allow),
        denies: Places::new(&statements, Effect::Deny),
        statements,
    }
}

fn parse_version(text: &str) -> Result<Version, PolicyError> {
    match text {
        "2008-10-17" => Ok(Version::V2008),
        "2012-10-17" => Ok(Version::V2012),
        _ => Err(Problem::Syntax.at(format!("there is no version `{text}`"))),
    }
}

fn check_sids(statements: &[Statement]) -> Result<(), PolicyError> {
    let mut seen = std::collections::HashSet::new();
    let sids = statements
        .iter()
        .filter_map(|statement| statement.sid.as_ref());
    for sid in sids.filter(|sid| !sid.is_empty()) {
        if !seen.insert(sid) {
            return Err(Problem::DuplicateSid.at(format!("two statements are named `{sid}`")));
        }
    }
    Ok(())
}

/// The elements of a statement before they are understood.
#[derive(Default)]
struct Elements {
    sid: Option<String>,
    effect: Option<Effect>,
    principals: Option<(bool, Json)>,
    actions: Option<(bool, Json)>,
    resources: Option<(bool, Json)>,
    condition: Option<Json>,
}

fn parse_statement(members: Members, place: Place) -> Result<Statement, PolicyError> {
    let elements = sort_elements(members, place)?;
    let effect = elements
        .effect
        .ok_or_else(|| place.at(Problem::Syntax, "`Effect` is missing"))?;
    let principals = parse_principals(elements.principals, effect, place)?;
    let actions = parse_actions(elements.actions, place)?;
    let resources = parse_resources(elements.resources, place)?;
    let conditions = match elements.condition {
        Some(condition) => parse_conditions(condition, place)?,
        None => Vec::new(),
    };
    Ok(Statement {
        sid: elements.sid,
        effect,
        principals,
        actions,
        resources,
        conditions,
    })
}

fn sort_elements(members: Members, place: Place) -> Result<Elements, PolicyError> {
    let mut elements = Elements::default();
    for (name, value) in members {
        let slot = match (&*name, value) {
            ("Sid", Json::String(sid)) => {
                elements.sid = Some(parse_sid(sid, place)?);
                continue;
            }
            ("Effect", Json::String(effect)) => {
                elements.effect = Some(parse_effect(&effect, place)?);
                continue;
            }
            ("Condition", value) => {
                elements.condition = Some(value);
                continue;
            }
            ("Principal", value) => (&mut elements.principals, false, value),
            ("NotPrincipal", value) => (&mut elements.principals, true, value),
            ("Action", value) => (&mut elements.actions, false, value),
            ("NotAction", value) => (&mut elements.actions, true, value),
            ("Resource", value) => (&mut elements.resources, false, value),
            ("NotResource", value) => (&mut elements.resources, true, value),
            ("Sid" | "Effect", _) => {
                return Err(place.at(Problem::Syntax, format!("`{name}` is not a string")));
            }
            _ => return Err(place.at(Problem::Syntax, format!("there is no element `{name}`"))),
        };
        let (element, not, value) = slot;
        if element.replace((not, value)).is_some() {
            let what = format!("`{name}` and its opposite exclude each other");
            return Err(place.at(Problem::Syntax, what));
        }
    }
    Ok(elements)
}

fn parse_sid(sid: String, place: Place) -> Result<String, PolicyError> {
    // Services allow more characters in the policies of their resources.
    if place.kind != PolicyKind::Resource && !sid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(place.at(Problem::Sid, format!("`{sid}` has other characters")));
    }
    Ok(sid)
}

fn parse_effect(effect: &str, place: Place) -> Result<Effect, PolicyError> {
    match effect {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        _ => Err(place.at(Problem::Syntax, format!("there is no effect `{effect}`"))),
    }
}

/// A string, or an array of strings.
fn strings(value: Json, name: &str, place: Place) -> Result<Vec<String>, PolicyError> {
    let items = match value {
        Json::Array(items) => items,
        item => vec![item],
    };
    let texts = items.into_iter().map(|item| match item {
        Json::String(text) => Ok(text),
        _ => Err(place.at(
            Problem::Syntax,
            format!("`{name}` holds something that is not a string"),
        )),
    });
    texts.collect()
}

fn parse_principals(
    element: Option<(bool, Json)>,
    effect: Effect,
    place: Place,
) -> Result<Option<Principals>, PolicyError> {
    let Some((not, value)) = element else {
        if place.has_principals() {
            return Err(place.at(Problem::MissingPrincipal, "says nobody it is about"));
        }
        return Ok(None);
    };
    if !place.has_principals() {
        let what = "principals belong to the policies of resources";
        return Err(place.at(Problem::PrincipalInIdentity, what));
    }
    if not && (place.kind == PolicyKind::Trust || effect == Effect::Allow) {
        let what = "`NotPrincipal` can only deny, and not in a trust policy";
        return Err(place.at(Problem::ProhibitedField("NotPrincipal"), what));
    }
    let named = match value {
        Json::String(text) if text == "*" => vec![Named::Everyone],
        Json::Object(members) => parse_principal_map(members, place)?,
        _ => {
            let what = "`Principal` is neither `*` nor a map";
            return Err(place.at(Problem::Syntax, what));
        }
    };
    if named.is_empty() {
        return Err(place.at(Problem::MissingPrincipal, "`Principal` names nobody"));
    }
    Ok(Some(Principals { not, named }))
}

fn parse_principal_map(members: Members, place: Place) -> Result<Vec<Named>, PolicyError> {
    let mut named = Vec::new();
    for (key, value) in members {
        if !matches!(&*key, "AWS" | "CanonicalUser" | "Federated" | "Service") {
            let what = format!("`{key}` is no kind of principal");
            return Err(place.at(Problem::Syntax, what));
        }
        for text in strings(value, &key, place)? {
            let principal = Named::parse(&key, &text).ok_or_else(|| {
                let quoted = format!("\"{key}\":\"{text}\"");
                place.at(
                    Problem::Principal(quoted),
                    format!("`{text}` is no principal"),
                )
            })?;
            named.push(principal);
        }
    }
    Ok(named)
}

fn parse_actions(element: Option<(bool, Json)>, place: Place) -> Result<Actions, PolicyError> {
    let Some((not, value)) = element else {
        return Err(place.at(Problem::MissingActions, "`Action` is missing"));
    };
    let texts = strings(value, "Action", place)?;
    if texts.is_empty() {
        return Err(place.at(Problem::MissingActions, "`Action` is empty"));
    }
    let patterns = texts.iter().map(|text| parse_action(text, place));
    Ok(Actions {
        not,
        patterns: patterns.collect::<Result<_, _>>()?,
    })
}

fn parse_action(text: &str, place: Place) -> Result<ActionPattern, PolicyError> {
    let lower = text.to_ascii_lowercase();
    if place.kind == PolicyKind::Trust && !lower.starts_with("sts:") {
        let what = format!("`{text}` has nothing to do with assuming a role");
        return Err(place.at(Problem::TrustActions, what));
    }
    if lower == "*" || lower == "*:*" {
        return Ok(ActionPattern::Everything);
    }
    let Some((service, name)) = lower.split_once(':') else {
        let what = format!("`{text}` names no service");
        return Err(place.at(Problem::ActionVendor, what));
    };
    if name.contains(':') {
        let what = format!("`{text}` has more than one colon");
        return Err(place.at(Problem::ActionColons, what));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if service.is_empty() || !service.bytes().all(plain) {
        let written = text.split(':').next().unwrap_or_default();
        let what = format!("`{written}` is no service");
        return Err(place.at(Problem::Vendor(written.to_owned()), what));
    }
    let service = Word::new(service);
    if name.contains(['*', '?']) {
        let name = Box::new(Pattern::parse(name));
        return Ok(ActionPattern::Of { service, name });
    }
    let name = Word::new(name);
    Ok(ActionPattern::Exact { service, name })
}

fn parse_resources(
    element: Option<(bool, Json)>,
    place: Place,
) -> Result<Option<Resources>, PolicyError> {
    let Some((not, value)) = element else {
        if place.kind == PolicyKind::Trust {
            return Ok(None);
        }
        return Err(place.at(Problem::MissingResources, "`Resource` is missing"));
    };
    if place.kind == PolicyKind::Trust {
        let field = if not { "NotResource" } else { "Resource" };
        let what = "the resource of a trust policy is its role";
        return Err(place.at(Problem::ProhibitedField(field), what));
    }
    let texts = strings(value, "Resource", place)?;
    if texts.is_empty() {
        return Err(place.at(Problem::MissingResources, "`Resource` is empty"));
    }
    let patterns = texts.iter().map(|text| parse_resource(text, place));
    Ok(Some(Resources {
        not,
        patterns: patterns.collect::<Result<_, _>>()?,
    }))
}

fn parse_resource(text: &str, place: Place) -> Result<ArnPattern, PolicyError> {
    let short = place.kind != PolicyKind::Resource;
    ArnPattern::resource(text, place.variables(), short).map_err(|problem| match problem {
        NotAPattern::NotAnArn => {
            let what = format!("`{text}` is no ARN");
            place.at(Problem::Resource(text.to_owned()), what)
        }
        NotAPattern::Partition => {
            let what = format!("`{text}` has no partition");
            place.at(Problem::Partition(text.to_owned()), what)
        }
        NotAPattern::Service => {
            let service = text.split(':').nth(2).unwrap_or_default();
            let what = format!("`{service}` in `{text}` is no service");
            place.at(Problem::Vendor(service.to_owned()), what)
        }
        NotAPattern::Variable => {
            let what = format!("`{text}` has a variable before its fifth colon");
            place.at(Problem::Syntax, what)
        }
    })
}

fn parse_conditions(value: Json, place: Place) -> Result<Vec<Condition>, PolicyError> {
    let Json::Object(operators) = value else {
        return Err(place.at(Problem::Syntax, "`Condition` is not a map"));
    };
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let Json::Object(keys) = keys else {
            let what = format!("`{operator}` does not hold a map of condition keys");
            return Err(place.at(Problem::Syntax, what));
        };
        // Also an operator without keys has to exist.
        check_operator(&operator, place)?;
        for (key, values) in keys {
            conditions.push(parse_condition(&operator, &key, values, place)?);
        }
    }
    Ok(conditions)
}

fn no_operator(operator: &str, place: Place) -> PolicyError {
    let what = format!("there is no condition operator `{operator}`");
    place.at(Problem::Operator(operator.to_owned()), what)
}

fn check_operator(operator: &str, place: Place) -> Result<(), PolicyError> {
    Condition::parse(operator, "", Vec::new(), false)
        .map(|_| ())
        .map_err(|_| no_operator(operator, place))
}

fn parse_condition(
    operator: &str,
    key: &str,
    values: Json,
    place: Place,
) -> Result<Condition, PolicyError> {
    if key.is_empty() {
        return Err(place.at(Problem::Syntax, format!("`{operator}` asks for no key")));
    }
    let items = match values {
        Json::Array(items) => items,
        item => vec![item],
    };
    let wanted: Vec<String> = items
        .into_iter()
        .map(|item| match item {
            Json::String(text) | Json::Number(text) => Ok(text),
            Json::Bool(value) => Ok(value.to_string()),
            Json::Null | Json::Array(_) | Json::Object(_) => {
                let what = format!("`{operator}` of `{key}` has a value that is no scalar");
                Err(place.at(Problem::Syntax, what))
            }
        })
        .collect::<Result<_, _>>()?;
    let shown = wanted.clone();
    Condition::parse(operator, key, wanted, place.variables()).map_err(|problem| match problem {
        BadCondition::Operator => no_operator(operator, place),
        BadCondition::Value(at) => {
            let value = shown.get(at).map_or("", String::as_str);
            let what = format!("`{value}` is no value for `{operator}`");
            place.at(Problem::Syntax, what)
        }
    })
}
