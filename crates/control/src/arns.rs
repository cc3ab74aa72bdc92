//! The ARNs of this installation's things and callers.

use aws_lc_rs::digest::{SHA256, digest};
use sortie_evidence::Resource;
use sortie_ports::{Role, User};
use sortie_types::{
    AccountId, ActivationId, Arn, NodeId, Region, SessionId, UniqueId, UniqueIdKind,
};

use crate::{call::Caller, documents};

/// Account and region, of which every ARN here is made.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) account: AccountId,
    pub(crate) region: Region,
}

impl Names {
    fn ssm(&self, resource: &str) -> Arn {
        Arn::new("ssm", self.region.as_str(), self.account.as_str(), resource)
    }

    /// What listing actions are checked on.
    pub(crate) fn any_ssm(&self) -> Arn {
        self.ssm("*")
    }

    pub(crate) fn any_of(&self, service: &str) -> Arn {
        Arn::new(service, self.region.as_str(), self.account.as_str(), "*")
    }

    pub(crate) fn activation(&self, id: &ActivationId) -> Arn {
        self.ssm(&format!("activation/{id}"))
    }

    /// An activation that has no id yet.
    pub(crate) fn any_activation(&self) -> Arn {
        self.ssm("activation/*")
    }

    pub(crate) fn session(&self, id: &str) -> Arn {
        self.ssm(&format!("session/{id}"))
    }

    /// The node that a caller names, whether there is one or not.
    pub(crate) fn target(&self, target: &str) -> Arn {
        if target.starts_with("i-") {
            let (region, account) = (self.region.as_str(), self.account.as_str());
            return Arn::new("ec2", region, account, &format!("instance/{target}"));
        }
        self.ssm(&format!("managed-instance/{target}"))
    }

    pub(crate) fn node(&self, id: &NodeId) -> Arn {
        self.target(id.as_str())
    }

    /// A document by name. Those that every installation has have no account in their ARN.
    pub(crate) fn document(&self, name: &str) -> Arn {
        if name.starts_with("arn:")
            && let Ok(arn) = name.parse()
        {
            return arn;
        }
        let account = match documents::owner(name) {
            Some(_) => "",
            None => self.account.as_str(),
        };
        Arn::new(
            "ssm",
            self.region.as_str(),
            account,
            &format!("document/{name}"),
        )
    }

    /// A service setting, whose id begins with a slash.
    pub(crate) fn service_setting(&self, id: &str) -> Arn {
        self.ssm(&format!("servicesetting{id}"))
    }

    fn channel(&self, kind: &str, id: &str) -> Arn {
        let (region, account) = (self.region.as_str(), self.account.as_str());
        Arn::new("ssmmessages", region, account, &format!("{kind}/{id}"))
    }

    pub(crate) fn control_channel(&self, node_id: &str) -> Arn {
        self.channel("control-channel", node_id)
    }

    pub(crate) fn data_channel(&self, session_id: &str) -> Arn {
        self.channel("data-channel", session_id)
    }

    pub(crate) fn user(&self, user: &User) -> Arn {
        let resource = format!("user{}{}", user.path, user.name);
        Arn::new("iam", "", self.account.as_str(), &resource)
    }

    /// A role that is there.
    pub(crate) fn role_arn(&self, role: &Role) -> Arn {
        let resource = format!("role{}{}", role.path, role.name);
        Arn::new("iam", "", self.account.as_str(), &resource)
    }

    /// A session of a role that is there.
    pub(crate) fn role_session(&self, role: &Role, session_name: &str) -> Arn {
        let resource = format!("assumed-role/{}/{session_name}", role.name);
        Arn::new("sts", "", self.account.as_str(), &resource)
    }

    /// Who calls, as refusals and owners are named; `None` for nobody that we know.
    pub(crate) fn caller(&self, caller: &Caller) -> Option<Arn> {
        match caller {
            Caller::Anonymous { .. } => None,
            Caller::Node(node) => Some(self.node_session(&node.iam_role, &node.node_id)),
            Caller::Role(role) => Some(self.role_session(&role.role, &role.session_name)),
            Caller::User(user) => Some(self.user(&user.user)),
        }
    }

    /// A role by the name that an activation gives it, which may carry a path.
    pub(crate) fn role(&self, iam_role: &str) -> Arn {
        let resource = format!("role/{iam_role}");
        Arn::new("iam", "", self.account.as_str(), &resource)
    }

    /// The role session that a node acts as.
    pub(crate) fn node_session(&self, iam_role: &str, node_id: &NodeId) -> Arn {
        let resource = format!("assumed-role/{}/{node_id}", role_name(iam_role));
        Arn::new("sts", "", self.account.as_str(), &resource)
    }

    /// The unique id of a role that exists by name only: the same for the same name, always.
    pub(crate) fn role_unique_id(&self, iam_role: &str) -> UniqueId {
        let text = format!("{}/{}", self.account, role_name(iam_role));
        let mut bytes = [0; 17];
        for (to, from) in bytes
            .iter_mut()
            .zip(digest(&SHA256, text.as_bytes()).as_ref())
        {
            *to = *from;
        }
        UniqueId::from_random(UniqueIdKind::Role, bytes)
    }

    pub(crate) fn node_resource(&self, id: &NodeId) -> Resource {
        Resource {
            kind: "AWS::SSM::ManagedNode",
            arn: self.node(id),
        }
    }

    pub(crate) fn session_resource(&self, id: &SessionId) -> Resource {
        Resource {
            kind: "AWS::SSM::Session",
            arn: self.session(id.as_str()),
        }
    }

    pub(crate) fn document_resource(&self, name: &str) -> Resource {
        Resource {
            kind: "AWS::SSM::Document",
            arn: self.document(name),
        }
    }

    pub(crate) fn activation_resource(&self, id: &ActivationId) -> Resource {
        Resource {
            kind: "AWS::SSM::Activation",
            arn: self.activation(id),
        }
    }

    pub(crate) fn control_channel_resource(&self, node_id: &NodeId) -> Resource {
        Resource {
            kind: "AWS::SSMMessages::ControlChannel",
            arn: self.control_channel(node_id.as_str()),
        }
    }

    pub(crate) fn data_channel_resource(&self, session_id: &SessionId) -> Resource {
        Resource {
            kind: "AWS::SSMMessages::DataChannel",
            arn: self.data_channel(session_id.as_str()),
        }
    }
}

/// A role's name without the path that may stand before it.
pub(crate) fn role_name(iam_role: &str) -> &str {
    iam_role.rsplit('/').next().unwrap_or(iam_role)
}
