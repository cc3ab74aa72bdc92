//! cloudtrail: looking up the trail.

use sortie_control::{LookupEventsInput, Recorded, TrailEntry};
use sortie_wire::shapes::cloudtrail::{
    Event, LookupAttribute, LookupEvents, LookupEventsRequest, LookupEventsResponse, Resource,
};

use super::{Handler, Scene};
use crate::errors::Failure;

impl Handler for LookupEvents {
    async fn handle(
        scene: Scene<'_>,
        input: LookupEventsRequest,
    ) -> Result<Recorded<LookupEventsResponse>, Failure> {
        let attribute =
            |given: LookupAttribute| (given.attribute_key.to_string(), given.attribute_value);
        let attributes = input.lookup_attributes.unwrap_or_default();
        let input = LookupEventsInput {
            attributes: attributes.into_iter().map(attribute).collect(),
            start_time: input.start_time,
            end_time: input.end_time,
            event_category: input.event_category.map(|category| category.to_string()),
            max_results: super::ssm::page_size(input.max_results),
            next_token: input.next_token,
        };
        let output = scene.house.control.lookup_events(scene.call, input).await?;
        Ok(output.map(|output| LookupEventsResponse {
            events: Some(output.events.into_iter().map(event).collect()),
            next_token: output.next_token,
        }))
    }
}

fn event(entry: TrailEntry) -> Event {
    let resource = |(kind, name): (String, String)| Resource {
        resource_type: Some(kind),
        resource_name: Some(name),
    };
    Event {
        event_id: Some(entry.event_id),
        event_name: Some(entry.event_name),
        read_only: Some(entry.read_only.to_string()),
        access_key_id: entry.access_key_id,
        event_time: Some(entry.event_time),
        event_source: Some(entry.event_source),
        username: entry.username,
        resources: Some(entry.resources.into_iter().map(resource).collect()),
        cloud_trail_event: Some(entry.record),
    }
}
