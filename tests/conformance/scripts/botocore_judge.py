"""Calls every operation of ssm, sts and cloudtrail that a user has through boto3 and judges each raw
answer by botocore's models.

Prints one line a call; exits 1 at the end when anything was wrong. Endpoint and keys come from the
environment; the node to talk about is argv 1.
"""

import datetime
import sys
import time

from judging import client, complain, expect, finish

NODE_ID = sys.argv[1]

def activations(ssm):
    made = ssm.create_activation(
        IamRole="SortieNode",
        Description="for the judge",
        DefaultInstanceName="judged",
        RegistrationLimit=3,
        ExpirationDate=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2),
        Tags=[{"Key": "Env", "Value": "test"}],
    )
    found = ssm.describe_activations(
        Filters=[{"FilterKey": "ActivationIds", "FilterValues": [made["ActivationId"]]}]
    )["ActivationList"]
    if len(found) != 1 or found[0]["RegistrationLimit"] != 3 or found[0]["Expired"]:
        complain("DescribeActivations", f"not what was made: {found}")
    if found and found[0].get("Tags") != [{"Key": "Env", "Value": "test"}]:
        complain("DescribeActivations", f"the tags are gone: {found}")
    for page in ssm.get_paginator("describe_activations").paginate(PaginationConfig={"PageSize": 1}):
        if len(page["ActivationList"]) > 1:
            complain("DescribeActivations", "a page is longer than asked")
    ssm.delete_activation(ActivationId=made["ActivationId"])
    expect("InvalidActivation", ssm.delete_activation, ActivationId=made["ActivationId"])
    expect("InvalidNextToken", ssm.describe_activations, NextToken="no token of ours")


def tags(ssm):
    node = {"ResourceType": "ManagedInstance", "ResourceId": NODE_ID}
    ssm.add_tags_to_resource(**node, Tags=[{"Key": "Env", "Value": "prod"}, {"Key": "Team", "Value": ""}])
    listed = ssm.list_tags_for_resource(**node)["TagList"]
    if {"Key": "Env", "Value": "prod"} not in listed:
        complain("ListTagsForResource", f"the tag is not there: {listed}")
    by_tag = ssm.describe_instance_information(Filters=[{"Key": "tag:Env", "Values": ["prod"]}])
    if [node["InstanceId"] for node in by_tag["InstanceInformationList"]] != [NODE_ID]:
        complain("DescribeInstanceInformation", f"not found by tag: {by_tag}")
    ssm.remove_tags_from_resource(**node, TagKeys=["Env", "Team"])
    if ssm.list_tags_for_resource(**node)["TagList"]:
        complain("RemoveTagsFromResource", "tags are left")
    stranger = {"ResourceType": "ManagedInstance", "ResourceId": "mi-00000000000000000"}
    expect("InvalidResourceId", ssm.list_tags_for_resource, **stranger)


def nodes(ssm):
    for filters in (
        [{"Key": "InstanceIds", "Values": [NODE_ID]}],
        [{"Key": "PingStatus", "Values": ["Online"]}],
        [{"Key": "PlatformTypes", "Values": ["Linux"]}],
        [{"Key": "ResourceType", "Values": ["ManagedInstance"]}],
    ):
        found = ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
        if [node["InstanceId"] for node in found] != [NODE_ID]:
            complain("DescribeInstanceInformation", f"{filters} found {found}")
    properties = ssm.describe_instance_properties()["InstanceProperties"]
    if [node["InstanceId"] for node in properties] != [NODE_ID]:
        complain("DescribeInstanceProperties", f"found {properties}")
    unknown = [{"Key": "InstanceIds", "Values": ["mi-00000000000000000"]}]
    expect("InvalidInstanceId", ssm.describe_instance_information, Filters=unknown)
    expect("InvalidNextToken", ssm.describe_instance_information, NextToken="no token of ours")
    ssm.update_managed_instance_role(InstanceId=NODE_ID, IamRole="SortieNode")
    stranger = "mi-00000000000000000"
    expect("InvalidInstanceId", ssm.update_managed_instance_role, InstanceId=stranger, IamRole="SortieNode")
    expect("InvalidInstanceId", ssm.deregister_managed_instance, InstanceId=stranger)


def until_in_history(ssm, session_id):
    """A session that was told to end is there once its node has said so, or has not for too long."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if session_id in [session["SessionId"] for session in ssm.describe_sessions(State="History")["Sessions"]]:
            return
        time.sleep(0.05)
    complain("DescribeSessions", f"{session_id} is not in the history")


def sessions(ssm):
    if ssm.get_connection_status(Target=NODE_ID)["Status"] != "connected":
        complain("GetConnectionStatus", "the node is not connected")
    if ssm.get_connection_status(Target="mi-00000000000000000")["Status"] != "notconnected":
        complain("GetConnectionStatus", "a node that does not exist is connected")
    expect("TargetNotConnected", ssm.start_session, Target="mi-00000000000000000")
    expect("InvalidDocument", ssm.start_session, Target=NODE_ID, DocumentName="No-Such-Document")
    started = ssm.start_session(Target=NODE_ID, Reason="judging")
    session_id = started["SessionId"]
    active = ssm.describe_sessions(State="Active", Filters=[{"key": "SessionId", "value": session_id}])
    if [session["Status"] for session in active["Sessions"]] != ["Connecting"]:
        complain("DescribeSessions", f"a session just started: {active['Sessions']}")
    resumed = ssm.resume_session(SessionId=session_id)
    if not resumed.get("TokenValue") or resumed["TokenValue"] == started["TokenValue"]:
        complain("ResumeSession", "no new token")
    ssm.terminate_session(SessionId=session_id)
    ssm.terminate_session(SessionId=session_id)
    if "TokenValue" in ssm.resume_session(SessionId=session_id):
        complain("ResumeSession", "a session that was ended got a token")
    expect("DoesNotExistException", ssm.resume_session, SessionId="nobody-00000000000000000")
    expect("DoesNotExistException", ssm.terminate_session, SessionId="nobody-00000000000000000")
    until_in_history(ssm, session_id)
    for key, value in (
        ("InvokedAfter", "2026-01-01T00:00:00Z"),
        ("InvokedBefore", "2100-01-01T00:00:00Z"),
        ("Target", NODE_ID),
        ("SessionId", session_id),
    ):
        found = ssm.describe_sessions(State="History", Filters=[{"key": key, "value": value}])
        if session_id not in [session["SessionId"] for session in found["Sessions"]]:
            complain("DescribeSessions", f"not found by {key}")
    expect(
        "ValidationException",
        ssm.describe_sessions,
        State="History",
        Filters=[{"key": "Shoe size", "value": "43"}],
    )
    expect("InvalidNextToken", ssm.describe_sessions, State="History", NextToken="no token of ours")


def trail(cloudtrail):
    events = cloudtrail.lookup_events(MaxResults=3)["Events"]
    if len(events) != 3:
        complain("LookupEvents", f"{len(events)} events")
    for key, value in (
        ("EventName", "StartSession"),
        ("EventSource", "ssm.amazonaws.com"),
        ("ReadOnly", "false"),
        ("ResourceName", NODE_ID),
        ("EventId", events[0]["EventId"]),
    ):
        attribute = [{"AttributeKey": key, "AttributeValue": value}]
        if not cloudtrail.lookup_events(LookupAttributes=attribute)["Events"]:
            complain("LookupEvents", f"nothing by {key} {value}")
    seen = set()
    for page in cloudtrail.get_paginator("lookup_events").paginate(PaginationConfig={"PageSize": 7}):
        for event in page["Events"]:
            if event["EventId"] in seen:
                complain("LookupEvents", "an event was given twice")
            seen.add(event["EventId"])


def main():
    ssm = client("ssm")
    caller = client("sts").get_caller_identity()
    if not caller["Arn"].startswith(f"arn:aws:iam::{caller['Account']}:user/"):
        complain("GetCallerIdentity", f"{caller}")
    nodes(ssm)
    activations(ssm)
    tags(ssm)
    sessions(ssm)
    trail(client("cloudtrail"))
    ssm.deregister_managed_instance(InstanceId=NODE_ID)
    if ssm.get_connection_status(Target=NODE_ID)["Status"] != "notconnected":
        complain("DeregisterManagedInstance", "the node is still connected")
    finish()


main()
