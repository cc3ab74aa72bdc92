"""Does with session documents what consoles, the CLI and Terraform do, through boto3; every answer is
judged by botocore's models. Argument 1 is a node that is online. Endpoint and keys come from the
environment.
"""

import hashlib
import json
import sys

from judging import client, complain, expect, finish

NODE = sys.argv[1]
PREFERENCES = "SSM-SessionManagerRunShell"

ssm = client("ssm")
sts = client("sts")

IDENTITY = sts.get_caller_identity()
ACCOUNT = IDENTITY["Account"]
REGION = ssm.meta.region_name


def wanted(what, found, expected):
    if found != expected:
        complain(what, f"found {found!r} instead of {expected!r}")


def document(**members):
    return json.dumps({"schemaVersion": "1.0"} | members, indent=2)


def tail(command="tail -f {{ logpath }}"):
    return document(
        description="Follow a log",
        sessionType="InteractiveCommands",
        parameters={
            "logpath": {
                "type": "String",
                "description": "The log file",
                "default": "/var/log/syslog",
                "allowedPattern": r"^/var/log/[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*$",
            }
        },
        properties={"linux": {"commands": command, "runAsElevated": True}},
    )


def preferences(**inputs):
    """What the console writes: every field."""
    return document(
        description="Document to hold regional settings for Session Manager",
        sessionType="Standard_Stream",
        inputs={
            "s3BucketName": "",
            "s3KeyPrefix": "",
            "s3EncryptionEnabled": True,
            "cloudWatchLogGroupName": "",
            "cloudWatchEncryptionEnabled": True,
            "cloudWatchStreamingEnabled": True,
            "kmsKeyId": "",
            "runAsEnabled": False,
            "runAsDefaultUser": "",
            "idleSessionTimeout": "20",
            "maxSessionDuration": "",
            "shellProfile": {"windows": "", "linux": ""},
        }
        | inputs,
    )


def start(name=None, **parameters):
    arguments = {"Target": NODE}
    if name:
        arguments["DocumentName"] = name
    if parameters:
        arguments["Parameters"] = {key: [value] for key, value in parameters.items()}
    session = ssm.start_session(**arguments)["SessionId"]
    found = ssm.describe_sessions(
        State="Active", Filters=[{"key": "SessionId", "value": session}]
    )["Sessions"][0]
    ssm.terminate_session(SessionId=session)
    return found


def refuses(code, name=None, **parameters):
    arguments = {"Target": NODE, "Parameters": {k: [v] for k, v in parameters.items()}}
    if name:
        arguments["DocumentName"] = name
    expect(code, ssm.start_session, **arguments)


def terraform_resource():
    """Create, read, update in place, read, delete, as aws_ssm_document does."""
    content = tail()
    made = ssm.create_document(
        Name="tf-tail",
        Content=content,
        DocumentFormat="JSON",
        DocumentType="Session",
        TargetType="/AWS::EC2::Instance",
        VersionName="one",
        Tags=[{"Key": "Team", "Value": "blue"}],
    )["DocumentDescription"]
    wanted("CreateDocument", made["Status"], "Active")
    wanted("CreateDocument", made["Hash"], hashlib.sha256(content.encode()).hexdigest())
    read = ssm.describe_document(Name="tf-tail", DocumentVersion="$DEFAULT")["Document"]
    wanted("DescribeDocument", read["Owner"], ACCOUNT)
    wanted("DescribeDocument", read["SchemaVersion"], "1.0")
    wanted("DescribeDocument", read["PlatformTypes"], ["Linux"])
    wanted("DescribeDocument", read["Tags"], [{"Key": "Team", "Value": "blue"}])
    wanted("DescribeDocument", [p["Name"] for p in read["Parameters"]], ["logpath"])
    wanted("DescribeDocument", read["Parameters"][0]["DefaultValue"], "/var/log/syslog")
    got = ssm.get_document(
        Name="tf-tail", DocumentVersion=read["DocumentVersion"], DocumentFormat="JSON"
    )
    wanted("GetDocument", got["Content"], content)
    expect("DocumentAlreadyExists", ssm.create_document, Name="tf-tail", Content=content,
           DocumentType="Session")
    permissions = ssm.describe_document_permission(Name="tf-tail", PermissionType="Share")
    wanted("DescribeDocumentPermission", permissions["AccountIds"], [])

    # As the provider does: the new version on top of the default one, and then the default.
    expect("DuplicateDocumentContent", ssm.update_document, Name="tf-tail", Content=content,
           DocumentVersion="1")
    newer = tail("tail -n 20 {{ logpath }}")
    made = ssm.update_document(
        Name="tf-tail", Content=newer, DocumentFormat="JSON", DocumentVersion="1"
    )["DocumentDescription"]
    wanted("UpdateDocument", made["LatestVersion"], "2")
    wanted("UpdateDocument", made["DefaultVersion"], "1")
    chosen = ssm.update_document_default_version(Name="tf-tail", DocumentVersion="2")
    wanted("UpdateDocumentDefaultVersion", chosen["Description"]["DefaultVersion"], "2")
    expect("InvalidDocumentVersion", ssm.update_document, Name="tf-tail",
           Content=tail("tail {{ logpath }}"), DocumentVersion="1")
    ssm.add_tags_to_resource(
        ResourceType="Document", ResourceId="tf-tail", Tags=[{"Key": "Env", "Value": "x"}]
    )
    ssm.remove_tags_from_resource(
        ResourceType="Document", ResourceId="tf-tail", TagKeys=["Team"]
    )
    listed = ssm.list_tags_for_resource(ResourceType="Document", ResourceId="tf-tail")
    wanted("ListTagsForResource", listed["TagList"], [{"Key": "Env", "Value": "x"}])
    for version, content_of in (("1", content), ("$LATEST", newer), ("$DEFAULT", newer)):
        got = ssm.get_document(Name="tf-tail", DocumentVersion=version)
        wanted(f"GetDocument {version}", got["Content"], content_of)
    got = ssm.get_document(Name="tf-tail", VersionName="one")
    wanted("GetDocument by name", got["DocumentVersion"], "1")
    versions = ssm.list_document_versions(Name="tf-tail")["DocumentVersions"]
    wanted("ListDocumentVersions", [v["DocumentVersion"] for v in versions], ["2", "1"])
    wanted("ListDocumentVersions", [v["IsDefaultVersion"] for v in versions], [True, False])

    ssm.modify_document_permission(
        Name="tf-tail", PermissionType="Share", AccountIdsToAdd=["111122223333"]
    )
    shared = ssm.describe_document_permission(Name="tf-tail", PermissionType="Share")
    wanted("DescribeDocumentPermission", shared["AccountIds"], ["111122223333"])
    expect("InvalidDocumentOperation", ssm.delete_document, Name="tf-tail")
    ssm.modify_document_permission(
        Name="tf-tail", PermissionType="Share", AccountIdsToRemove=["111122223333"]
    )
    expect("InvalidDocumentOperation", ssm.delete_document, Name="tf-tail", DocumentVersion="2")
    ssm.delete_document(Name="tf-tail", DocumentVersion="1")
    expect("InvalidDocumentVersion", ssm.get_document, Name="tf-tail", DocumentVersion="1")


def listings():
    names = []
    for page in ssm.get_paginator("list_documents").paginate(
        Filters=[{"Key": "DocumentType", "Values": ["Session"]}], PaginationConfig={"PageSize": 3}
    ):
        names += [one["Name"] for one in page["DocumentIdentifiers"]]
    wanted("ListDocuments", names, sorted(names))
    for name in ("AWS-StartSSHSession", "AWS-StartPortForwardingSession", "Sortie-CopyFile"):
        if name not in names:
            complain("ListDocuments", f"{name} is not listed")
    own = ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])
    wanted("ListDocuments", [one["Name"] for one in own["DocumentIdentifiers"]], ["tf-tail"])
    old = ssm.list_documents(DocumentFilterList=[{"key": "Owner", "value": "Amazon"}])
    if not all(one["Owner"] == "Amazon" for one in old["DocumentIdentifiers"]):
        complain("ListDocuments", "the old filter by owner")
    expect("InvalidFilterKey", ssm.list_documents, Filters=[{"Key": "Colour", "Values": ["x"]}])


def yaml():
    content = """---
schemaVersion: '1.0'
description: A shell with a shorter patience   # with a comment
sessionType: Standard_Stream
inputs:
  idleSessionTimeout: '7'
  shellProfile:
    linux: |
      cd /tmp
      exec bash
"""
    ssm.create_document(
        Name="yaml-shell", Content=content, DocumentFormat="YAML", DocumentType="Session"
    )
    got = ssm.get_document(Name="yaml-shell", DocumentFormat="YAML")
    wanted("GetDocument YAML", got["Content"], content)
    got = ssm.get_document(Name="yaml-shell")
    profile = json.loads(got["Content"])["inputs"]["shellProfile"]["linux"]
    wanted("GetDocument YAML as JSON", profile, "cd /tmp\nexec bash\n")
    start("yaml-shell")
    got = ssm.get_document(Name="AWS-StartSSHSession", DocumentFormat="YAML")["Content"]
    ssm.create_document(
        Name="own-ssh", Content=got, DocumentFormat="YAML", DocumentType="Session"
    )
    start("own-ssh", portNumber="2222")
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    for wrong in (bomb, "a: [", content + content):
        expect("InvalidDocumentContent", ssm.create_document, Name="bomb", Content=wrong,
               DocumentFormat="YAML", DocumentType="Session")
    expect("MaxDocumentSizeExceeded", ssm.create_document, Name="large",
           Content=content + "#" * 70_000, DocumentFormat="YAML", DocumentType="Session")
    for name in ("yaml-shell", "own-ssh"):
        ssm.delete_document(Name=name)


def as_the_console_saves_preferences():
    expect("InvalidDocument", ssm.describe_document, Name=PREFERENCES)
    start()
    ssm.create_document(
        Name=PREFERENCES,
        Content=preferences(idleSessionTimeout="5", maxSessionDuration="60"),
        DocumentType="Session",
        DocumentFormat="JSON",
    )
    wanted("preferences", start()["MaxSessionDuration"], "60")
    made = ssm.update_document(
        Name=PREFERENCES, Content=preferences(maxSessionDuration="90"), DocumentVersion="$LATEST"
    )["DocumentDescription"]
    wanted("preferences not in force", start()["MaxSessionDuration"], "60")
    ssm.update_document_default_version(
        Name=PREFERENCES, DocumentVersion=made["DocumentVersion"]
    )
    wanted("preferences in force", start()["MaxSessionDuration"], "90")
    for wrong in (
        {"idleSessionTimeout": "0"},
        {"idleSessionTimeout": "61"},
        {"maxSessionDuration": "1441"},
        {"runAsDefaultUser": "root"},
        {"s3BucketName": "Not A Bucket"},
        {"somethingElse": "1"},
    ):
        expect("InvalidDocumentContent", ssm.update_document, Name=PREFERENCES,
               Content=preferences(**wrong), DocumentVersion="$LATEST")
    # What is not offered is kept, shown, and in the way of sessions.
    for asked in (
        {"kmsKeyId": "alias/sessions"},
        {"s3BucketName": "session-logs"},
        {"cloudWatchLogGroupName": "/sessions"},
    ):
        made = ssm.update_document(
            Name=PREFERENCES, Content=preferences(**asked), DocumentVersion="$LATEST"
        )["DocumentDescription"]
        ssm.update_document_default_version(
            Name=PREFERENCES, DocumentVersion=made["DocumentVersion"]
        )
        refuses("BadRequest")
    ssm.delete_document(Name=PREFERENCES)
    start()


def sessions_by_document():
    start("AWS-StartPortForwardingSession", portNumber="80", localPortNumber="8080")
    start("AWS-StartSSHSession", portNumber="22")
    start("AWS-StartSSHSession")
    start(f"arn:aws:ssm:{REGION}::document/AWS-StartSSHSession")
    start(
        "AWS-StartPortForwardingSessionToRemoteHost", host="mydb.example.com", portNumber="3306"
    )
    start("AWS-StartInteractiveCommand", command="docker ps --format '{{ .Names }}'")
    start("AWS-StartNonInteractiveCommand", command="true", separateOutputStream="true")
    start("tf-tail", logpath="/var/log/nginx.log")
    refuses("InvalidParameters", "tf-tail", logpath="/var/log/x; id")
    refuses("InvalidParameters", "tf-tail", file="/var/log/x")
    refuses("InvalidParameters", "AWS-StartSSHSession", portNumber="22 -v")
    refuses("InvalidParameters", "AWS-StartInteractiveCommand")
    refuses("InvalidParameters", None, command="id")
    refuses("InvalidDocument", "tf-none")
    refuses("InvalidDocument", f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/AWS-StartSSHSession")


def reserved():
    for name in ("AWS-Mine", "amazon-mine", "Sortie-Mine"):
        expect("ValidationException", ssm.create_document, Name=name, Content=tail(),
               DocumentType="Session")
    expect("ValidationException", ssm.create_document, Name="command", Content=tail())
    expect("InvalidDocumentSchemaVersion", ssm.create_document, Name="old",
           Content=tail().replace('"1.0"', '"2.2"'), DocumentType="Session")
    for change in (ssm.delete_document, ssm.describe_document_permission):
        more = {"PermissionType": "Share"} if change != ssm.delete_document else {}
        expect("InvalidDocumentOperation", change, Name="AWS-StartSSHSession", **more)


def settings():
    tier = "/ssm/managed-instance/activation-tier"
    arn = f"arn:aws:ssm:{REGION}:{ACCOUNT}:servicesetting{tier}"
    found = ssm.get_service_setting(SettingId=tier)["ServiceSetting"]
    wanted("GetServiceSetting", (found["Status"], found["ARN"]), ("Default", arn))
    ssm.update_service_setting(SettingId=arn, SettingValue="standard")
    found = ssm.get_service_setting(SettingId=arn)["ServiceSetting"]
    wanted("GetServiceSetting", (found["Status"], found["SettingValue"]), ("Customized", "standard"))
    wanted("GetServiceSetting", found["LastModifiedUser"], IDENTITY["Arn"])
    refuses("BadRequest")
    reset = ssm.reset_service_setting(SettingId=tier)["ServiceSetting"]
    wanted("ResetServiceSetting", reset["SettingValue"], "advanced")
    expect("ValidationException", ssm.update_service_setting, SettingId=tier, SettingValue="gold")
    expect("ServiceSettingNotFound", ssm.get_service_setting, SettingId="/ssm/none")


terraform_resource()
listings()
yaml()
as_the_console_saves_preferences()
sessions_by_document()
reserved()
settings()
ssm.delete_document(Name="tf-tail")
expect("InvalidDocument", ssm.get_document, Name="tf-tail")
finish()
