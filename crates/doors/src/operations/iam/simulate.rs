//! iam: the policy simulator.

use sortie_control::{
    ContextEntry, MatchedStatement, Outcome, Page, PolicyOrigin, Recorded, SimulateInput,
    Simulated, TextPosition,
};
use sortie_wire::shapes::iam::{
    self, EvaluationResult, GetContextKeysForCustomPolicy, GetContextKeysForCustomPolicyRequest,
    GetContextKeysForPolicyResponse, GetContextKeysForPrincipalPolicy,
    GetContextKeysForPrincipalPolicyRequest, PermissionsBoundaryDecisionDetail,
    PolicyEvaluationDecisionType, PolicySourceType, Position, ResourceSpecificResult,
    SimulateCustomPolicy, SimulateCustomPolicyRequest, SimulatePolicyResponse,
    SimulatePrincipalPolicy, SimulatePrincipalPolicyRequest, Statement,
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

impl Handler for SimulatePrincipalPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: SimulatePrincipalPolicyRequest,
    ) -> Result<Recorded<SimulatePolicyResponse>, Failure> {
        let input = SimulateInput {
            principal: Some(input.policy_source_arn),
            policies: input.policy_input_list.unwrap_or_default(),
            boundaries: input
                .permissions_boundary_policy_input_list
                .unwrap_or_default(),
            actions: input.action_names,
            resources: input.resource_arns.unwrap_or_default(),
            resource_policy: input.resource_policy,
            resource_owner: input.resource_owner,
            caller: input.caller_arn,
            context: context(input.context_entries),
            page: convert::page(input.marker, input.max_items),
        };
        simulate(scene, input).await
    }
}

impl Handler for SimulateCustomPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: SimulateCustomPolicyRequest,
    ) -> Result<Recorded<SimulatePolicyResponse>, Failure> {
        let input = SimulateInput {
            principal: None,
            policies: input.policy_input_list,
            boundaries: input
                .permissions_boundary_policy_input_list
                .unwrap_or_default(),
            actions: input.action_names,
            resources: input.resource_arns.unwrap_or_default(),
            resource_policy: input.resource_policy,
            resource_owner: input.resource_owner,
            caller: input.caller_arn,
            context: context(input.context_entries),
            page: convert::page(input.marker, input.max_items),
        };
        simulate(scene, input).await
    }
}

impl Handler for GetContextKeysForPrincipalPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: GetContextKeysForPrincipalPolicyRequest,
    ) -> Result<Recorded<GetContextKeysForPolicyResponse>, Failure> {
        let policies = input.policy_input_list.unwrap_or_default();
        let control = &scene.house.control;
        let keys = control
            .get_context_keys_for_principal_policy(scene.call, &input.policy_source_arn, &policies)
            .await?;
        Ok(keys.map(context_keys))
    }
}

impl Handler for GetContextKeysForCustomPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: GetContextKeysForCustomPolicyRequest,
    ) -> Result<Recorded<GetContextKeysForPolicyResponse>, Failure> {
        let control = &scene.house.control;
        let keys = control
            .get_context_keys_for_custom_policy(scene.call, &input.policy_input_list)
            .await?;
        Ok(keys.map(context_keys))
    }
}

fn context_keys(keys: Vec<String>) -> GetContextKeysForPolicyResponse {
    GetContextKeysForPolicyResponse {
        context_key_names: Some(keys),
    }
}

async fn simulate(
    scene: Scene<'_>,
    input: SimulateInput,
) -> Result<Recorded<SimulatePolicyResponse>, Failure> {
    let on_resources = !input.resources.is_empty();
    let control = &scene.house.control;
    let simulated = control.simulate_policy(scene.call, input).await?;
    Ok(simulated.map(|page: Page<Simulated>| {
        let result = |simulated| evaluation(simulated, on_resources);
        SimulatePolicyResponse {
            evaluation_results: Some(page.items.into_iter().map(result).collect()),
            is_truncated: Some(page.marker.is_some()),
            marker: page.marker,
        }
    }))
}

fn context(entries: Option<Vec<iam::ContextEntry>>) -> Vec<ContextEntry> {
    let entries = entries.unwrap_or_default().into_iter();
    let entry = |entry: iam::ContextEntry| {
        Some(ContextEntry {
            key: entry.context_key_name?,
            values: entry.context_key_values.unwrap_or_default(),
            is_list: entry
                .context_key_type
                .is_some_and(|kind| kind.as_str().ends_with("List")),
        })
    };
    entries.filter_map(entry).collect()
}

fn evaluation(simulated: Simulated, on_resources: bool) -> EvaluationResult {
    let specific = ResourceSpecificResult {
        eval_resource_name: simulated.resource.clone(),
        eval_resource_decision: decision(simulated.outcome),
        matched_statements: Some(simulated.matched.iter().map(statement).collect()),
        missing_context_values: Some(simulated.missing_keys.to_vec()),
        eval_decision_details: None,
        permissions_boundary_decision_detail: boundary(simulated.boundary_allows),
    };
    EvaluationResult {
        eval_action_name: simulated.action,
        eval_resource_name: Some(simulated.resource),
        eval_decision: decision(simulated.outcome),
        matched_statements: specific.matched_statements.clone(),
        missing_context_values: Some(simulated.missing_keys.to_vec()),
        organizations_decision_detail: None,
        permissions_boundary_decision_detail: boundary(simulated.boundary_allows),
        eval_decision_details: None,
        resource_specific_results: on_resources.then(|| vec![specific]),
    }
}

fn decision(outcome: Outcome) -> PolicyEvaluationDecisionType {
    match outcome {
        Outcome::Allowed => PolicyEvaluationDecisionType::ALLOWED,
        Outcome::ExplicitlyDenied => PolicyEvaluationDecisionType::EXPLICIT_DENY,
        Outcome::ImplicitlyDenied => PolicyEvaluationDecisionType::IMPLICIT_DENY,
    }
}

fn boundary(allows: Option<bool>) -> Option<PermissionsBoundaryDecisionDetail> {
    allows.map(|allows| PermissionsBoundaryDecisionDetail {
        allowed_by_permissions_boundary: Some(allows),
    })
}

fn statement(matched: &MatchedStatement) -> Statement {
    let (start, end) = matched
        .span
        .map_or((None, None), |(start, end)| (Some(start), Some(end)));
    Statement {
        source_policy_id: Some(matched.policy.clone()),
        source_policy_type: Some(match matched.origin {
            PolicyOrigin::AwsManaged => PolicySourceType::AWS_MANAGED,
            PolicyOrigin::Given => PolicySourceType::NONE,
            PolicyOrigin::Group => PolicySourceType::GROUP,
            PolicyOrigin::Resource => PolicySourceType::RESOURCE,
            PolicyOrigin::Role => PolicySourceType::ROLE,
            PolicyOrigin::User => PolicySourceType::USER,
            PolicyOrigin::UserManaged => PolicySourceType::USER_MANAGED,
        }),
        start_position: start.map(position),
        end_position: end.map(position),
    }
}

fn position(position: TextPosition) -> Position {
    Position {
        line: Some(convert::count(position.line)),
        column: Some(convert::count(position.column)),
    }
}
