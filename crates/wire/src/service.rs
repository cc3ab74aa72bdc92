//! The services we speak for, and what an operation is. Names only: no operation is carried out
//! here.

use crate::{InvalidInput, call, schema::Structure, shape::Shape};

/// How a service's requests and answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The message gateway: paths name the resource, JSON in, XML out; error codes as JSON
    /// services have them.
    Channel,
    /// `POST /` with `X-Amz-Target` and a JSON body.
    Json11,
    /// `Action` and `Version` in a form, XML answers.
    Query,
    /// Paths and headers, XML bodies (S3).
    Rest,
}

/// A service of AWS, or ours: signing in and explaining, which no service of AWS has an operation for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the services' own names")]
pub enum Service {
    CloudTrail,
    Ec2Messages,
    Events,
    Iam,
    Kms,
    Logs,
    S3,
    Sns,
    Sortie,
    Ssm,
    SsmMessages,
    Sts,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 12] = [
        Self::CloudTrail,
        Self::Ec2Messages,
        Self::Events,
        Self::Iam,
        Self::Kms,
        Self::Logs,
        Self::S3,
        Self::Sns,
        Self::Sortie,
        Self::Ssm,
        Self::SsmMessages,
        Self::Sts,
    ];

    /// The name in a signature's scope, also the first label of the service's host name and the
    /// prefix of its IAM actions.
    #[must_use]
    pub const fn signing_name(self) -> &'static str {
        match self {
            Self::CloudTrail => "cloudtrail",
            Self::Ec2Messages => "ec2messages",
            Self::Events => "events",
            Self::Iam => "iam",
            Self::Kms => "kms",
            Self::Logs => "logs",
            Self::S3 => "s3",
            Self::Sns => "sns",
            Self::Sortie => "sortie",
            Self::Ssm => "ssm",
            Self::SsmMessages => "ssmmessages",
            Self::Sts => "sts",
        }
    }

    /// CloudTrail's name of the service.
    #[must_use]
    pub fn event_source(self) -> String {
        format!("{}.amazonaws.com", self.signing_name())
    }

    /// What stands before the dot in `X-Amz-Target`; `None` for services without that header.
    #[must_use]
    pub const fn target_prefix(self) -> Option<&'static str> {
        match self {
            Self::CloudTrail => Some("com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101"),
            Self::Ec2Messages => Some("EC2WindowsMessageDeliveryService"),
            Self::Events => Some("AWSEvents"),
            Self::Kms => Some("TrentService"),
            Self::Logs => Some("Logs_20140328"),
            Self::Sortie => Some("Sortie_20261101"),
            Self::Ssm => Some("AmazonSSM"),
            Self::Iam | Self::S3 | Self::Sns | Self::SsmMessages | Self::Sts => None,
        }
    }

    /// How its requests are written.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::CloudTrail
            | Self::Ec2Messages
            | Self::Events
            | Self::Kms
            | Self::Logs
            | Self::Sortie
            | Self::Ssm => Protocol::Json11,
            Self::Iam | Self::Sns | Self::Sts => Protocol::Query,
            Self::S3 => Protocol::Rest,
            Self::SsmMessages => Protocol::Channel,
        }
    }

    /// The `Version` of a query service's requests.
    #[must_use]
    pub const fn api_version(self) -> Option<&'static str> {
        match self {
            Self::Iam => Some("2010-05-08"),
            Self::Sns => Some("2010-03-31"),
            Self::Sts => Some("2011-06-15"),
            _ => None,
        }
    }

    /// The namespace of XML answers; empty for services without one.
    #[must_use]
    pub const fn xmlns(self) -> &'static str {
        match self {
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Self::S3 => "http://s3.amazonaws.com/doc/2006-03-01/",
            Self::Sns => "http://sns.amazonaws.com/doc/2010-03-31/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
            _ => "",
        }
    }

    /// The service of a signature's scope.
    #[must_use]
    pub fn from_signing_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|service| service.signing_name() == name)
    }

    /// The service and operation that an `X-Amz-Target` header names. The operation need not
    /// exist.
    #[must_use]
    pub fn from_target(target: &str) -> Option<(Self, &str)> {
        let (prefix, operation) = target.rsplit_once('.')?;
        let service = Self::ALL
            .into_iter()
            .find(|service| service.target_prefix() == Some(prefix))?;
        Some((service, operation))
    }

    /// The query service that a `Version` parameter names.
    #[must_use]
    pub fn from_api_version(version: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|service| service.api_version() == Some(version))
    }
}

/// One operation of a service, as a type.
pub trait Operation {
    /// What a caller sends.
    type Input: Shape;
    /// What is answered.
    type Output: Shape;
    /// Whose operation it is.
    const SERVICE: Service;
    /// AWS's name, which is also the IAM action's and the trail's.
    const NAME: &'static str;
    /// Whether it changes nothing, as CloudTrail's `readOnly` says it.
    const READ_ONLY: bool;
    /// The codes of the errors that the model lists for it, without the common ones.
    const ERRORS: &'static [&'static str];
}

/// One operation as data, for those who walk all of them.
#[derive(Clone, Copy, Debug)]
pub struct OperationInfo {
    /// Whose operation it is.
    pub service: Service,
    /// AWS's name.
    pub name: &'static str,
    /// Whether it changes nothing.
    pub read_only: bool,
    /// The codes of the errors that the model lists for it.
    pub errors: &'static [&'static str],
    /// The input's schema.
    pub input: fn() -> &'static Structure,
    /// The output's schema.
    pub output: fn() -> &'static Structure,
    /// Reads a request's body as the operation's input, and gives its JSON form.
    pub read_request: ReadJson,
    /// Reads an answer's body as the operation's output, and gives its JSON form.
    pub read_response: ReadJson,
}

/// A reader of bodies.
pub type ReadJson = fn(&[u8]) -> Result<serde_json::Value, InvalidInput>;

impl OperationInfo {
    /// The data of an operation type.
    #[must_use]
    pub const fn of<O: Operation>() -> Self {
        Self {
            service: O::SERVICE,
            name: O::NAME,
            read_only: O::READ_ONLY,
            errors: O::ERRORS,
            input: O::Input::schema,
            output: O::Output::schema,
            read_request: |body| call::decode_request::<O>(body).map(|input| input.to_json()),
            read_response: |body| call::decode_response::<O>(body).map(|output| output.to_json()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_name_service_and_operation() {
        let cloudtrail = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
        assert_eq!(
            Service::from_target(cloudtrail),
            Some((Service::CloudTrail, "LookupEvents"))
        );
        assert_eq!(
            Service::from_target("AmazonSSM.StartSession"),
            Some((Service::Ssm, "StartSession"))
        );
        for target in [
            "",
            ".",
            "StartSession",
            "amazonssm.StartSession",
            "AmazonSSM",
        ] {
            assert_eq!(Service::from_target(target), None, "{target}");
        }
    }

    #[test]
    fn every_service_is_found_by_its_signing_name() {
        for service in Service::ALL {
            assert_eq!(
                Service::from_signing_name(service.signing_name()),
                Some(service)
            );
        }
    }
}
