//! `sortie whoami`: the principal that the server sees behind the keys in use.

use sortie_client::Api;
use sortie_wire::{
    Service, Shape,
    shapes::sts::{GetCallerIdentity, GetCallerIdentityRequest},
};

use crate::{arguments::Whoami, error::CommandError, output};

pub(crate) async fn run(api: &Api, arguments: &Whoami) -> Result<(), CommandError> {
    let identity = api
        .call::<GetCallerIdentity>(&GetCallerIdentityRequest {})
        .await?;
    if arguments.json {
        return output::print_json(&identity.to_json());
    }
    let text = |text: Option<String>| text.unwrap_or_default();
    output::print(&format!(
        "{}\naccount {}, id {}, region {}, server {}\n",
        text(identity.arn),
        text(identity.account),
        text(identity.user_id),
        api.config().region(),
        api.config().endpoint(Service::Ssm)?,
    ))
}
