//! The settings of the service that Session Manager goes by: the tier of managed nodes, and whether
//! documents may be shared with everybody.

use serde_json::{Value, json};
use sortie_evidence::Resource;
use sortie_ports::{Change, ServiceSetting, StoreError};
use sortie_types::{Arn, Timestamp};

use crate::{
    Control,
    authorize::{self, Ask, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    trail::Done,
};

/// Which tier managed nodes are on. Sessions need the advanced one.
pub(crate) const ACTIVATION_TIER: &str = "/ssm/managed-instance/activation-tier";
/// Whether documents may be shared with everybody.
pub(crate) const PUBLIC_SHARING: &str = "/ssm/documents/console/public-sharing-permission";

const ADVANCED: &str = "advanced";
const ENABLE: &str = "Enable";

/// A setting that there is.
struct Known {
    id: &'static str,
    values: [&'static str; 2],
    default: &'static str,
}

/// All of them. Every node of an installation is one that was registered, so the tier that lets
/// sessions onto them is the default.
const SETTINGS: [Known; 2] = [
    Known {
        id: ACTIVATION_TIER,
        values: ["standard", ADVANCED],
        default: ADVANCED,
    },
    Known {
        id: PUBLIC_SHARING,
        values: [ENABLE, "Disable"],
        default: "Disable",
    },
];

/// Which setting, by id or ARN.
#[derive(Clone, Debug)]
pub struct ServiceSettingInput {
    /// As it was given.
    pub setting_id: String,
}

/// What to set.
#[derive(Clone, Debug)]
pub struct UpdateServiceSettingInput {
    /// By id or ARN.
    pub setting_id: String,
    /// The value.
    pub setting_value: String,
}

/// A setting as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettingView {
    /// Its id.
    pub id: String,
    /// Its ARN.
    pub arn: Arn,
    /// Its value.
    pub value: String,
    /// When and by whom it was set; `None` while it is the default.
    pub modified: Option<(Timestamp, String)>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceSettingError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// It cannot have this value.
    #[error("The setting {id} takes the values {values}.")]
    InvalidValue {
        /// Which.
        id: &'static str,
        /// What it can have.
        values: String,
    },
    /// There is no such setting.
    #[error("The specified service setting {0} was not found.")]
    NotFound(String),
}

internal!(ServiceSettingError);
refusable!(ServiceSettingError);

impl Control {
    /// The setting that was named, if there is one, after asking leave. Whoever may not ask does not
    /// learn which settings there are.
    async fn authorize_setting(
        &self,
        call: &Call,
        rule: &OperationRule,
        given: &str,
    ) -> Result<&'static Known, ServiceSettingError> {
        let names = &self.inner.names;
        let id = match given.parse::<Arn>() {
            Ok(arn) => match arn.resource().strip_prefix("servicesetting") {
                Some(id) if names.service_setting(id) == arn => id.to_owned(),
                _ => given.to_owned(),
            },
            Err(_) => given.to_owned(),
        };
        let slash = if id.starts_with('/') { "" } else { "/" };
        let arn = names.service_setting(&format!("{slash}{id}"));
        self.authorize(call, rule, Ask::on(arn), None, ()).await?;
        SETTINGS
            .iter()
            .find(|known| known.id == id)
            .ok_or_else(|| ServiceSettingError::NotFound(given.to_owned()))
    }

    fn setting_resource(&self, known: &Known) -> Resource {
        Resource {
            kind: "AWS::SSM::ServiceSetting",
            arn: self.inner.names.service_setting(known.id),
        }
    }

    fn setting_view(&self, known: &Known, set: Option<ServiceSetting>) -> ServiceSettingView {
        let (value, modified) = match set {
            Some(set) => (set.value, Some((set.modified, set.modified_by))),
            None => (known.default.to_owned(), None),
        };
        ServiceSettingView {
            id: known.id.to_owned(),
            arn: self.inner.names.service_setting(known.id),
            value,
            modified,
        }
    }

    /// The value of a setting.
    async fn setting(&self, id: &str) -> Result<String, StoreError> {
        if let Some(set) = self.inner.state.service_setting(id).await? {
            return Ok(set.value);
        }
        let known = SETTINGS.iter().find(|known| known.id == id);
        Ok(known.map_or("", |known| known.default).to_owned())
    }

    /// Whether sessions may go to nodes that were registered.
    pub(crate) async fn has_advanced_tier(&self) -> Result<bool, StoreError> {
        Ok(self.setting(ACTIVATION_TIER).await? == ADVANCED)
    }

    /// Whether documents may be shared with everybody.
    pub(crate) async fn may_share_publicly(&self) -> Result<bool, StoreError> {
        Ok(self.setting(PUBLIC_SHARING).await? == ENABLE)
    }

    /// `GetServiceSetting`.
    ///
    /// # Errors
    /// As [`ServiceSettingError`] says.
    pub async fn get_service_setting(
        &self,
        call: &Call,
        input: ServiceSettingInput,
    ) -> Result<Recorded<ServiceSettingView>, ServiceSettingError> {
        const RULE: OperationRule = authorize::GET_SERVICE_SETTING;
        let known = self
            .authorize_setting(call, &RULE, &input.setting_id)
            .await?;
        let set = self.inner.state.service_setting(known.id).await?;
        let done = Done::with(self.setting_view(known, set)).about([self.setting_resource(known)]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `UpdateServiceSetting`.
    ///
    /// # Errors
    /// As [`ServiceSettingError`] says.
    pub async fn update_service_setting(
        &self,
        call: &Call,
        input: UpdateServiceSettingInput,
    ) -> Result<Recorded<()>, ServiceSettingError> {
        const RULE: OperationRule = authorize::UPDATE_SERVICE_SETTING;
        let known = self
            .authorize_setting(call, &RULE, &input.setting_id)
            .await?;
        if !known.values.contains(&input.setting_value.as_str()) {
            return Err(ServiceSettingError::InvalidValue {
                id: known.id,
                values: known.values.join(", "),
            });
        }
        let caller = self.inner.names.caller(&call.caller);
        let change = Change::PutServiceSetting(ServiceSetting {
            id: known.id.to_owned(),
            value: input.setting_value,
            modified: call.now,
            modified_by: caller.map(String::from).unwrap_or_default(),
        });
        let done = Done::with(())
            .showing(Value::Null)
            .about([self.setting_resource(known)])
            .changing(vec![change]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `ResetServiceSetting`: answers the setting as it is then.
    ///
    /// # Errors
    /// As [`ServiceSettingError`] says.
    pub async fn reset_service_setting(
        &self,
        call: &Call,
        input: ServiceSettingInput,
    ) -> Result<Recorded<ServiceSettingView>, ServiceSettingError> {
        const RULE: OperationRule = authorize::RESET_SERVICE_SETTING;
        let known = self
            .authorize_setting(call, &RULE, &input.setting_id)
            .await?;
        let change = Change::RemoveServiceSetting {
            id: known.id.to_owned(),
        };
        let done = Done::with(self.setting_view(known, None))
            .showing(
                json!({"serviceSetting": {"settingId": known.id, "settingValue": known.default}}),
            )
            .about([self.setting_resource(known)])
            .changing(vec![change]);
        Ok(self.record(call, &RULE, done).await?)
    }
}
