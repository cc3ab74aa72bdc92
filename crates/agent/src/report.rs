//! Tells the server every few minutes that this node is there and what it is.

use std::{net::SocketAddr, time::Duration};

use sortie_channel::handshake::AGENT_VERSION;
use sortie_types::NodeId;
use sortie_wire::shapes::node::{UpdateInstanceInformation, UpdateInstanceInformationRequest};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, CallError, Signer},
    endpoint::Endpoint,
    identity::RoleCredentials,
    log::chain,
    os,
};

const INTERVAL: Duration = Duration::from_secs(300);
/// After a failure the next try comes sooner.
const RETRY: Duration = Duration::from_secs(30);

/// The reporter of one node.
pub(crate) struct Reporter {
    pub(crate) api: Api,
    pub(crate) endpoint: Endpoint,
    pub(crate) node_id: NodeId,
    pub(crate) credentials: RoleCredentials,
}

impl Reporter {
    /// Reports until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let wait = tokio::select! {
                reported = self.report() => match reported {
                    Ok(()) => INTERVAL,
                    Err(error) => {
                        if error.is_refusal() {
                            self.credentials.renew();
                        }
                        tracing::warn!(error = chain(&error), "cannot report this node's facts");
                        RETRY
                    }
                },
                () = stop.cancelled() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn report(&self) -> Result<(), CallError> {
        let Some(credentials) = self.credentials.current().await else {
            return Ok(());
        };
        let facts = os::host_facts();
        let address = self.server_address().await.and_then(os::local_address);
        let request = UpdateInstanceInformationRequest {
            agent_name: Some("sortie-agent".to_owned()),
            agent_status: Some("Active".to_owned()),
            agent_version: Some(AGENT_VERSION.to_owned()),
            computer_name: Some(facts.computer_name),
            instance_id: self.node_id.to_string(),
            ip_address: address.map(|address| address.to_string()),
            platform_name: Some(facts.platform_name),
            platform_type: Some(facts.platform_type.to_owned()),
            platform_version: Some(facts.platform_version),
            ssm_connection_channel: Some("ssmmessages".to_owned()),
            ..UpdateInstanceInformationRequest::default()
        };
        self.api
            .call::<UpdateInstanceInformation>(Signer::Role(&credentials), &request)
            .await?;
        Ok(())
    }

    async fn server_address(&self) -> Option<SocketAddr> {
        let found = tokio::net::lookup_host((self.endpoint.host(), self.endpoint.port())).await;
        found.ok()?.next()
    }
}
