"""Walks every operation as nobody, with a wrong signature, and as the administrator; judges the code
of each refusal, and finds the record of each call in the trail.

The list of operations comes from our own code (argv 2, JSON), the cases from the table below: an
operation without a case fails. argv 1 is the server's data folder, whose database is read for the
records, because data events cannot be looked up. Endpoint, certificates and keys come from the
environment.
"""

import http.client
import json
import os
import sqlite3
import ssl
import re
import sys
import time
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import botocore.model
import botocore.serialize

DATABASE = os.path.join(sys.argv[1], sys.argv[3])
OPERATIONS = json.loads(sys.argv[2])
ENDPOINT = urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL"])
REGION = os.environ["AWS_REGION"]
KEY = os.environ["AWS_ACCESS_KEY_ID"]
SECRET = os.environ["AWS_SECRET_ACCESS_KEY"]

NODE = "mi-0123456789abcdef0"
SESSION = "nobody-0123456789abcdef0"
TAGGED = {"ResourceType": "ManagedInstance", "ResourceId": NODE}
UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
PUBLIC_KEY = "A" * 392
NAMED = {"Name": "nothing"}
DOCUMENT = NAMED | {
    "Content": json.dumps(
        {"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": {}}
    )
}
SETTING = {"SettingId": "/ssm/managed-instance/activation-tier"}

# Input of a call, and what the administrator's call answers: None for success, else the code. Node
# operations refuse a user.
REFUSED = "AccessDeniedException"
CASES = {
    "ssm.StartSession": ({"Target": NODE}, "TargetNotConnected"),
    "ssm.ResumeSession": ({"SessionId": SESSION}, "DoesNotExistException"),
    "ssm.TerminateSession": ({"SessionId": SESSION}, "DoesNotExistException"),
    "ssm.DescribeSessions": ({"State": "Active"}, None),
    "ssm.GetConnectionStatus": ({"Target": NODE}, None),
    "ssm.CreateActivation": ({"IamRole": "SortieNode"}, None),
    "ssm.DescribeActivations": ({}, None),
    "ssm.DeleteActivation": ({"ActivationId": UUID}, "InvalidActivation"),
    "ssm.DescribeInstanceInformation": ({}, None),
    "ssm.DescribeInstanceProperties": ({}, None),
    "ssm.DeregisterManagedInstance": ({"InstanceId": NODE}, "InvalidInstanceId"),
    "ssm.UpdateManagedInstanceRole": (
        {"InstanceId": NODE, "IamRole": "SortieNode"},
        "InvalidInstanceId",
    ),
    "ssm.AddTagsToResource": (TAGGED | {"Tags": [{"Key": "a", "Value": "b"}]}, "InvalidResourceId"),
    "ssm.RemoveTagsFromResource": (TAGGED | {"TagKeys": ["a"]}, "InvalidResourceId"),
    "ssm.ListTagsForResource": (TAGGED, "InvalidResourceId"),
    "ssm.CreateDocument": (DOCUMENT | {"Name": "made", "DocumentType": "Session"}, None),
    "ssm.UpdateDocument": (DOCUMENT, "InvalidDocument"),
    "ssm.UpdateDocumentDefaultVersion": (NAMED | {"DocumentVersion": "1"}, "InvalidDocument"),
    "ssm.DeleteDocument": (NAMED, "InvalidDocument"),
    "ssm.GetDocument": (NAMED, "InvalidDocument"),
    "ssm.DescribeDocument": (NAMED, "InvalidDocument"),
    "ssm.ListDocuments": ({}, None),
    "ssm.ListDocumentVersions": (NAMED, "InvalidDocument"),
    "ssm.DescribeDocumentPermission": (NAMED | {"PermissionType": "Share"}, "InvalidDocument"),
    "ssm.ModifyDocumentPermission": (NAMED | {"PermissionType": "Share"}, "InvalidDocument"),
    "ssm.GetServiceSetting": (SETTING, None),
    "ssm.UpdateServiceSetting": (SETTING | {"SettingValue": "advanced"}, None),
    "ssm.ResetServiceSetting": (SETTING, None),
    "sts.GetCallerIdentity": ({}, None),
    "cloudtrail.LookupEvents": ({}, None),
    "ssm.RegisterManagedInstance": (
        {
            "ActivationId": UUID,
            "ActivationCode": "0123456789abcdefghij",
            "PublicKey": PUBLIC_KEY,
            "PublicKeyType": "Rsa",
            "Fingerprint": UUID,
        },
        "InvalidActivation",
    ),
    "ssm.RequestManagedInstanceRoleToken": ({"Fingerprint": UUID}, REFUSED),
    "ssm.UpdateManagedInstancePublicKey": (
        {"NewPublicKey": PUBLIC_KEY, "NewPublicKeyType": "Rsa"},
        REFUSED,
    ),
    "ssm.UpdateInstanceInformation": ({"InstanceId": NODE}, REFUSED),
    "ssm.ListInstanceAssociations": ({"InstanceId": NODE}, REFUSED),
    "ssm.ListAssociations": ({}, REFUSED),
    "ec2messages.GetMessages": (
        {"Destination": NODE, "MessagesRequestId": UUID, "VisibilityTimeoutInSeconds": 10},
        REFUSED,
    ),
    "ec2messages.AcknowledgeMessage": ({"MessageId": UUID}, REFUSED),
    "ec2messages.DeleteMessage": ({"MessageId": UUID}, REFUSED),
    "ec2messages.FailMessage": ({"MessageId": UUID, "FailureType": "Failed"}, REFUSED),
    "ec2messages.GetEndpoint": ({"Destination": NODE}, REFUSED),
    "ec2messages.SendReply": ({"MessageId": UUID, "ReplyId": UUID, "Payload": "{}"}, REFUSED),
    "ssmmessages.CreateControlChannel": ({"MessageSchemaVersion": "1.0", "RequestId": UUID}, REFUSED),
    "ssmmessages.CreateDataChannel": (
        {"MessageSchemaVersion": "1.0", "RequestId": UUID, "ClientId": ""},
        REFUSED,
    ),
    "sortie.Explain": ({"Action": "ssm:StartSession", "Resource": NODE}, None),
    "sortie.GetCaller": ({}, None),
    "sortie.SignIn": ({"UserName": "nobody", "Password": "Some-Words-9"}, "SignInFailedException"),
}
# Records that have another name than their operation.
RECORDED = {"sortie.SignIn": "ConsoleLogin"}
# Nobody may call these; they are refused for what they ask and not for who asks.
ANONYMOUS = {"ssm.RegisterManagedInstance", "sortie.SignIn"}

POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
)
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "ssm.amazonaws.com"},
            "Action": "sts:AssumeRole",
        },
    }
)
NO_POLICY = "arn:aws:iam::111122223333:policy/nobody"
NO_DEVICE = "arn:aws:iam::111122223333:mfa/nobody"
# What the members that an operation of iam or sts demands are given: the names of nobody and nothing.
MEMBERS = {
    "AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
    "ActionNames": ["ssm:StartSession"],
    "AssumeRolePolicyDocument": TRUST,
    "AuthenticationCode1": "123456",
    "AuthenticationCode2": "654321",
    "Description": "nothing",
    "GroupName": "nobody",
    "NewPassword": "Some-Words-9",
    "OldPassword": "Other-Words-9",
    "Password": "Some-Words-9",
    "PermissionsBoundary": "arn:aws:iam::aws:policy/ReadOnlyAccess",
    "PolicyArn": NO_POLICY,
    "PolicyDocument": POLICY,
    "PolicyInputList": [POLICY],
    "PolicyName": "nothing",
    "PolicySourceArn": "arn:aws:iam::111122223333:user/nobody",
    "RoleArn": "arn:aws:iam::111122223333:role/nobody",
    "RoleName": "nobody",
    "RoleSessionName": "nobody",
    "SerialNumber": NO_DEVICE,
    "Status": "Inactive",
    "TagKeys": ["a"],
    "Tags": [{"Key": "a", "Value": "b"}],
    "UserName": "nobody",
    "VersionId": "v1",
    "VirtualMFADeviceName": "nobody",
}
# What the administrator is answered, where it is neither success nor that there is no such thing. The
# key names a group of operations by how they begin.
FOUND = (
    "Create(AccessKey|Group|Policy|Role|User|VirtualMFADevice)$",
    "Get(AccountAuthorizationDetails|AccountSummary|ContextKeysForCustomPolicy)$",
    "GetUser$",
    "List(Groups|Policies|Roles|Users|VirtualMFADevices|MFADevices|AccessKeys)$",
    "List(SSHPublicKeys|SigningCertificates|ServiceSpecificCredentials)$",
    "SimulateCustomPolicy$",
    "GetSessionToken$",
)
OTHERS = {"sts.AssumeRole": "AccessDenied"}
# Input that the model does not demand, or not in this form.
FURTHER = {
    "iam.CreateLoginProfile": {"UserName": "nobody", "Password": "Some-Words-9"},
    "iam.UpdateAssumeRolePolicy": {"PolicyDocument": TRUST},
}
# What is made must not be found by the others.
MADE = ("GroupName", "PolicyName", "RoleName", "UserName", "VirtualMFADeviceName")


def model_of(service):
    loaded = botocore.loaders.Loader().load_service_model(service, "service-2")
    return botocore.model.ServiceModel(loaded)


MODELS = {service: model_of(service) for service in ("iam", "sts")}


def add_query_cases():
    """The cases of iam and sts: what the model demands, and what it must answer."""
    for operation in OPERATIONS:
        service, name = operation.split(".")
        if service not in MODELS or operation in CASES:
            continue
        shape = MODELS[service].operation_model(name).input_shape
        needed = shape.required_members if shape else []
        body = {member: MEMBERS[member] for member in needed} | FURTHER.get(operation, {})
        found = any(re.match(pattern, name) for pattern in FOUND)
        if found:
            body |= {member: "made" for member in MADE if member in body}
        CASES[operation] = (body, OTHERS.get(operation, None if found else "NoSuchEntity"))

TARGETS = {
    "ssm": "AmazonSSM",
    "ec2messages": "EC2WindowsMessageDeliveryService",
    "cloudtrail": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101",
    "sortie": "Sortie_20261101",
}
PATHS = {
    "CreateControlChannel": f"/v1/control-channel/{NODE}",
    "CreateDataChannel": f"/v1/data-channel/{SESSION}",
}

wrong = []


def request(service, name, body):
    """The bare request, as botocore would have made it."""
    if service in MODELS:
        operation = MODELS[service].operation_model(name)
        serializer = botocore.serialize.create_serializer("query")
        form = serializer.serialize_to_request(body, operation)["body"]
        data = urllib.parse.urlencode(form)
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    elif service == "ssmmessages":
        data, headers = json.dumps(body), {"Content-Type": "application/json"}
    else:
        data = json.dumps(body)
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"{TARGETS[service]}.{name}",
        }
    url = ENDPOINT.geturl().rstrip("/") + PATHS.get(name, "/")
    return botocore.awsrequest.AWSRequest("POST", url, headers=headers, data=data)


def send(made, source):
    """Sends a request and gives back status, error code or None, and request id."""
    prepared = made.prepare()
    if ENDPOINT.scheme == "https":
        trust = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
        connection = http.client.HTTPSConnection(
            ENDPOINT.netloc, context=trust, timeout=30, source_address=source
        )
    else:
        connection = http.client.HTTPConnection(ENDPOINT.netloc, timeout=30, source_address=source)
    path = urllib.parse.urlparse(prepared.url).path
    connection.request("POST", path, body=prepared.body, headers=dict(prepared.headers))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, code_of(answer.status, text), answer.headers.get("x-amzn-RequestId")


def code_of(status, text):
    if status < 300:
        return None
    if text.startswith("{"):
        return json.loads(text)["__type"].split("#")[-1]
    code = re.search("<Code>([A-Za-z]+)</Code>", text)
    if code:
        return code.group(1)
    for code in (
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "InvalidSignature",
        "AccessDenied",
    ):
        if code in text:
            return code
    return text


def record_of(request_id):
    """The trail's record of a call. It is there when the answer is; some are written in batches."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        connection = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)
        query = "SELECT record FROM trail WHERE record LIKE ?"
        rows = connection.execute(query, (f"%{request_id}%",)).fetchall()
        connection.close()
        if rows:
            if len(rows) > 1:
                wrong.append(f"{len(rows)} records of request {request_id}")
            return json.loads(rows[0][0])
        time.sleep(0.05)
    return None


def check(who, operation, made, codes):
    name = operation.split(".")[1]
    # Strangers' records are limited per address, so each operation is called from one of its own.
    source = (f"127.0.1.{1 + OPERATIONS.index(operation)}", 0)
    status, code, request_id = send(made, source)
    print(f"{operation} as {who}: {status} {code}")
    if code not in codes:
        wrong.append(f"{operation} as {who}: {code}, wanted {codes}")
    if request_id is None:
        wrong.append(f"{operation} as {who}: no request id")
        return
    record = record_of(request_id)
    if record is None:
        wrong.append(f"{operation} as {who}: no record in the trail")
        return
    if operation in RECORDED and record["eventName"] == RECORDED[operation]:
        # An attempt to sign in is recorded by whom it was for and how it ended, whoever made it.
        if record["responseElements"] != {RECORDED[operation]: "Failure"}:
            wrong.append(f"{operation} as {who}: the record says {record['responseElements']}")
        return
    if record["eventName"] != name:
        wrong.append(f"{operation} as {who}: the record says {record['eventName']}")
    if (code is None) != ("errorCode" not in record):
        wrong.append(f"{operation} as {who}: {code}, but the record says {record.get('errorCode')}")
    arn = record["userIdentity"].get("arn", "")
    if (who == "administrator") != (":user/" in arn):
        wrong.append(f"{operation} as {who}: the record says {record['userIdentity']}")


def sign(made, service, secret):
    credentials = botocore.credentials.Credentials(KEY, secret)
    botocore.auth.SigV4Auth(credentials, service, REGION).add_auth(made)
    return made


def main():
    nobody = {"MissingAuthenticationTokenException", "MissingAuthenticationToken"}
    forged = {"InvalidSignatureException", "SignatureDoesNotMatch", "InvalidSignature"}
    add_query_cases()
    for operation in OPERATIONS:
        if operation not in CASES:
            wrong.append(f"{operation}: no case in the table")
            continue
        service, name = operation.split(".")
        body, answer = CASES[operation]
        allowed = {answer} if operation in ANONYMOUS else nobody
        check("nobody", operation, request(service, name, body), allowed)
        made = sign(request(service, name, body), service, "not the secret")
        check("forger", operation, made, forged)
        made = sign(request(service, name, body), service, SECRET)
        codes = {answer, "AccessDenied"} if answer == REFUSED else {answer}
        check("administrator", operation, made, codes)
    for operation in CASES.keys() - set(OPERATIONS):
        wrong.append(f"{operation}: in the table, but there is no such operation")
    for line in wrong:
        print(f"WRONG {line}")
    sys.exit(1 if wrong else 0)


main()
