"""Calls every operation of people through botocore and judges each answer by botocore's models.

The signature, the parsing and the shapes are botocore's own. Prints one JSON object a call:
{"operation", "error": code or null, "problem": text or null}.
"""

import json
import os

import botocore.config
import botocore.exceptions
import botocore.session
import botocore.validate

NODE = os.environ["NODE"]
ACTIVATION = "0b2a6f0e-3f0e-4c57-9d7c-0123456789ab"
SESSION = "admin-0123456789abcdef0"
TAGGED = {"ResourceType": "ManagedInstance", "ResourceId": NODE}

TAIL = json.dumps(
    {
        "schemaVersion": "1.0",
        "sessionType": "InteractiveCommands",
        "parameters": {"file": {"type": "String", "allowedPattern": "^/var/log/[a-z]+$"}},
        "properties": {"linux": {"commands": "tail -f {{ file }}"}},
    }
)
TIER = "/ssm/managed-instance/activation-tier"

CALLS = [
    ("sts", "GetCallerIdentity", {}),
    ("ssm", "DescribeInstanceInformation", {}),
    ("ssm", "DescribeInstanceInformation", {"Filters": [{"Key": "PingStatus", "Values": ["Online"]}]}),
    ("ssm", "DescribeInstanceInformation", {"Filters": [{"Key": "NoSuchKey", "Values": ["x"]}]}),
    ("ssm", "DescribeInstanceProperties", {}),
    ("ssm", "CreateActivation", {"IamRole": "SortieNode", "Tags": [{"Key": "Env", "Value": "x"}], "RegistrationLimit": 3}),
    ("ssm", "DescribeActivations", {}),
    ("ssm", "DescribeActivations", {"Filters": [{"FilterKey": "ActivationIds", "FilterValues": [ACTIVATION]}]}),
    ("ssm", "DeleteActivation", {"ActivationId": ACTIVATION}),
    ("ssm", "AddTagsToResource", dict(TAGGED, Tags=[{"Key": "Owner", "Value": "me"}])),
    ("ssm", "ListTagsForResource", TAGGED),
    ("ssm", "RemoveTagsFromResource", dict(TAGGED, TagKeys=["Owner"])),
    ("ssm", "GetConnectionStatus", {"Target": NODE}),
    ("ssm", "StartSession", {"Target": NODE}),
    ("ssm", "StartSession", {"Target": "mi-0123456789abcdef0"}),
    ("ssm", "StartSession", {"Target": NODE, "DocumentName": "No-Such-Document"}),
    ("ssm", "DescribeSessions", {"State": "Active"}),
    ("ssm", "DescribeSessions", {"State": "History", "Filters": [{"key": "Target", "value": NODE}]}),
    ("ssm", "ResumeSession", {"SessionId": SESSION}),
    ("ssm", "TerminateSession", {"SessionId": SESSION}),
    ("ssm", "CreateDocument", {"Name": "Tail", "DocumentType": "Session", "Content": TAIL, "Tags": [{"Key": "a", "Value": "b"}], "VersionName": "first", "TargetType": "/any"}),
    ("ssm", "CreateDocument", {"Name": "Tail", "DocumentType": "Session", "Content": TAIL}),
    ("ssm", "CreateDocument", {"Name": "AWS-Tail", "DocumentType": "Session", "Content": TAIL}),
    ("ssm", "CreateDocument", {"Name": "Other", "DocumentType": "Session", "Content": "{}"}),
    ("ssm", "UpdateDocument", {"Name": "Tail", "Content": TAIL, "DocumentVersion": "$LATEST"}),
    ("ssm", "UpdateDocument", {"Name": "Tail", "Content": TAIL + " ", "DocumentVersion": "$LATEST"}),
    ("ssm", "UpdateDocument", {"Name": "AWS-StartSSHSession", "Content": TAIL}),
    ("ssm", "UpdateDocumentDefaultVersion", {"Name": "Tail", "DocumentVersion": "2"}),
    ("ssm", "UpdateDocumentDefaultVersion", {"Name": "Tail", "DocumentVersion": "9"}),
    ("ssm", "GetDocument", {"Name": "Tail", "VersionName": "first", "DocumentFormat": "YAML"}),
    ("ssm", "GetDocument", {"Name": "AWS-StartSSHSession"}),
    ("ssm", "GetDocument", {"Name": "Nothing"}),
    ("ssm", "DescribeDocument", {"Name": "Tail", "DocumentVersion": "1"}),
    ("ssm", "DescribeDocument", {"Name": "AWS-StartPortForwardingSession"}),
    ("ssm", "DescribeDocument", {"Name": "SSM-SessionManagerRunShell"}),
    ("ssm", "ListDocuments", {}),
    ("ssm", "ListDocuments", {"Filters": [{"Key": "Owner", "Values": ["Self"]}]}),
    ("ssm", "ListDocuments", {"Filters": [{"Key": "NoSuchKey", "Values": ["x"]}]}),
    ("ssm", "ListDocumentVersions", {"Name": "Tail"}),
    ("ssm", "ListTagsForResource", {"ResourceType": "Document", "ResourceId": "Tail"}),
    ("ssm", "ModifyDocumentPermission", {"Name": "Tail", "PermissionType": "Share", "AccountIdsToAdd": ["111122223333"]}),
    ("ssm", "DescribeDocumentPermission", {"Name": "Tail", "PermissionType": "Share"}),
    ("ssm", "DeleteDocument", {"Name": "Tail"}),
    ("ssm", "ModifyDocumentPermission", {"Name": "Tail", "PermissionType": "Share", "AccountIdsToRemove": ["111122223333"]}),
    ("ssm", "StartSession", {"Target": NODE, "DocumentName": "Tail", "Parameters": {"file": ["/var/log/syslog"]}}),
    ("ssm", "StartSession", {"Target": NODE, "DocumentName": "Tail", "Parameters": {"file": ["/etc/shadow"]}}),
    ("ssm", "DeleteDocument", {"Name": "Tail", "DocumentVersion": "1"}),
    ("ssm", "DeleteDocument", {"Name": "Tail"}),
    ("ssm", "GetServiceSetting", {"SettingId": TIER}),
    ("ssm", "UpdateServiceSetting", {"SettingId": TIER, "SettingValue": "advanced"}),
    ("ssm", "ResetServiceSetting", {"SettingId": TIER}),
    ("ssm", "GetServiceSetting", {"SettingId": "/ssm/no-such-setting"}),
    ("ssm", "UpdateManagedInstanceRole", {"InstanceId": NODE, "IamRole": "SortieNode"}),
    ("ssm", "DeregisterManagedInstance", {"InstanceId": NODE}),
    ("cloudtrail", "LookupEvents", {"MaxResults": 50}),
]

# Codes that AWS gives without naming them in the operation's model.
UNMODELLED = {"DoesNotExistException", "InvalidParameters", "ValidationException"}


def main():
    session = botocore.session.get_session()
    config = botocore.config.Config(retries={"total_max_attempts": 1})
    for service, operation, arguments in CALLS:
        client = session.create_client(service, config=config)
        model = client.meta.service_model.operation_model(operation)
        method = botocore.xform_name(operation)
        error, problem = None, None
        try:
            answer = getattr(client, method)(**arguments)
            answer.pop("ResponseMetadata")
            if model.output_shape is not None:
                report = botocore.validate.ParamValidator().validate(answer, model.output_shape)
                problem = report.generate_report() or None
        except botocore.exceptions.ClientError as refused:
            error = refused.response["Error"]["Code"]
            known = {shape.name for shape in model.error_shapes} | UNMODELLED
            if error not in known:
                problem = str(refused)
        print(json.dumps({"operation": operation, "error": error, "problem": problem}))


main()
