//! A refusal by policy, read from the service's sentence and said so that a person sees who, what, on
//! what and why. The sentence has one form in all of AWS's services, and in ours.

use std::fmt;

use crate::output::plain;

/// A refusal, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    principal: String,
    action: String,
    resource: Option<String>,
    why: String,
}

impl Denial {
    /// Reads `User: … is not authorized to perform: … on resource: … because …`.
    pub(crate) fn parse(message: &str) -> Option<Self> {
        let rest = message.strip_prefix("User: ")?;
        let (principal, rest) = rest.split_once(" is not authorized to perform: ")?;
        let (action, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (resource, why) = match rest.strip_prefix("on resource: ") {
            Some(rest) => {
                let (resource, why) = cut_why(rest);
                (Some(plain(resource)), why)
            }
            None => (None, rest),
        };
        Some(Self {
            principal: plain(principal),
            action: plain(action),
            resource,
            why: plain(why),
        })
    }

    /// The reason in words about the person, where the form is known.
    fn reason(&self) -> String {
        let is_role = self.principal.contains(":assumed-role/");
        let holder = if is_role {
            "the role"
        } else {
            "the user, or of a group it is in,"
        };
        let no = |what: &str| format!("because no {what} allows the {} action", self.action);
        let deny = |what: &str| format!("with an explicit deny in {what}");
        let known = [
            (
                no("identity-based policy"),
                format!("no policy of {holder} allows it"),
            ),
            (
                deny("an identity-based policy"),
                format!("a policy of {holder} denies it"),
            ),
            (
                no("permissions boundary"),
                "the permissions boundary does not allow it".to_owned(),
            ),
            (
                deny("a permissions boundary"),
                "the permissions boundary denies it".to_owned(),
            ),
            (
                no("session policy"),
                "the policy given when the credentials were made does not allow it".to_owned(),
            ),
            (
                deny("a session policy"),
                "the policy given when the credentials were made denies it".to_owned(),
            ),
            (
                no("role trust policy"),
                "the role's trust policy does not let this principal assume it".to_owned(),
            ),
            (
                deny("the role trust policy"),
                "the role's trust policy denies it".to_owned(),
            ),
        ];
        known
            .into_iter()
            .find_map(|(text, words)| (text == self.why).then_some(words))
            .unwrap_or_else(|| match self.why.as_str() {
                "" => "the server gives no reason".to_owned(),
                why => why.to_owned(),
            })
    }
}

/// Cuts the reason off what stands behind a resource, whose name may hold any words.
fn cut_why(text: &str) -> (&str, &str) {
    let at = [" because no ", " with an explicit deny in "]
        .iter()
        .filter_map(|start| text.rfind(start))
        .max();
    match at.and_then(|at| text.split_at_checked(at)) {
        Some((resource, why)) => (resource, why.trim_start()),
        None => (text, ""),
    }
}

/// The name that people know: `node mi-…` of an ARN.
fn short(arn: &str) -> Option<String> {
    let rest = arn.splitn(6, ':').nth(5)?;
    let (kind, name) = rest.split_once('/')?;
    let kind = match kind {
        "managed-instance" | "instance" => "node",
        "assumed-role" => "session of role",
        other => other,
    };
    Some(format!("{kind} {name}"))
}

fn with_short(arn: &str) -> String {
    match short(arn) {
        Some(short) => format!("{short} ({arn})"),
        None => arn.to_owned(),
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "access denied")?;
        writeln!(f, "  who   {}", with_short(&self.principal))?;
        writeln!(f, "  what  {}", self.action)?;
        if let Some(resource) = &self.resource {
            writeln!(f, "  on    {}", with_short(resource))?;
        }
        writeln!(f, "  why   {}", self.reason())?;
        let resource = self.resource.as_deref().unwrap_or_default();
        let quote = if resource.contains(['*', ' ', '\'', '$']) {
            format!("'{}'", resource.replace('\'', "'\\''"))
        } else {
            resource.to_owned()
        };
        let more = format!("sortie explain {} {quote}", self.action);
        write!(f, "  `{}` says more", more.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "arn:aws:iam::111122223333:user/ops/alice";
    const NODE: &str = "arn:aws:ssm:local-1:111122223333:managed-instance/mi-0123456789abcdef0";

    fn shown(message: &str) -> String {
        Denial::parse(message).unwrap().to_string()
    }

    #[test]
    fn who_what_on_what_and_why_are_said_apart() {
        let text = shown(&format!(
            "User: {USER} is not authorized to perform: ssm:StartSession on resource: {NODE} \
             because no identity-based policy allows the ssm:StartSession action"
        ));
        let expected = format!(
            "access denied\n  who   user ops/alice ({USER})\n  what  ssm:StartSession\n  \
             on    node mi-0123456789abcdef0 ({NODE})\n  \
             why   no policy of the user, or of a group it is in, allows it\n  \
             `sortie explain ssm:StartSession {NODE}` says more"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn every_reason_of_the_service_has_its_words() {
        let role = "arn:aws:sts::111122223333:assumed-role/R/S";
        for (principal, why, words) in [
            (
                role,
                "because no identity-based policy allows the a:B action",
                "policy of the role allows",
            ),
            (
                USER,
                "with an explicit deny in an identity-based policy",
                "denies it",
            ),
            (
                USER,
                "because no permissions boundary allows the a:B action",
                "boundary does not",
            ),
            (
                USER,
                "with an explicit deny in a permissions boundary",
                "boundary denies",
            ),
            (
                USER,
                "because no session policy allows the a:B action",
                "were made does not",
            ),
            (
                USER,
                "with an explicit deny in a session policy",
                "were made denies",
            ),
            (
                USER,
                "because no role trust policy allows the a:B action",
                "trust policy does not",
            ),
            (
                USER,
                "with an explicit deny in a service control policy",
                "in a service control policy",
            ),
        ] {
            let text = shown(&format!(
                "User: {principal} is not authorized to perform: a:B on resource: * {why}"
            ));
            assert!(text.contains(words), "{why}: {text}");
            assert!(text.contains("`sortie explain a:B '*'`"), "{text}");
        }
    }

    #[test]
    fn a_refusal_without_resource_or_reason_is_read_too() {
        let text = shown(&format!(
            "User: {USER} is not authorized to perform: a:B because no identity-based policy \
             allows the a:B action"
        ));
        assert!(!text.contains("  on "), "{text}");
        assert!(text.ends_with("`sortie explain a:B` says more"), "{text}");
        let text = shown("User: anonymous is not authorized to perform: a:B");
        assert!(text.contains("gives no reason"), "{text}");
        assert_eq!(Denial::parse("You shall not pass"), None);
    }

    #[test]
    fn what_names_hold_moves_no_terminal_and_is_no_reason() {
        let text = shown(&format!(
            "User: {USER} is not authorized to perform: a:B on resource: \
             arn:aws:x:::y/\x1b[2J because no reason because no identity-based policy allows \
             the a:B action"
        ));
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.contains("because no reason ("), "{text}");
    }
}
