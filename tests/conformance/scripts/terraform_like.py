"""Does what Terraform does with iam: creates everything, reads it back until it is as it was wanted,
updates it, reads again, and deletes it in the order of its dependencies; every answer is judged by
botocore's models. Endpoint and keys come from the environment.
"""

import json

from judging import client, complain, expect, finish

iam = client("iam")
sts = client("sts")

ACCOUNT = sts.get_caller_identity()["Account"]


def wanted(what, found, expected):
    if found != expected:
        complain(what, f"found {found!r} instead of {expected!r}")


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | more


def trust(principal, **more):
    return policy({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} | more)


def tags(**given):
    return [{"Key": key, "Value": value} for key, value in given.items()]


def as_map(listed):
    return {tag["Key"]: tag["Value"] for tag in listed}


def paged(operation, member, size=2, **arguments):
    """Everything a listing gives, in small pages, which must not be longer than asked."""
    found = []
    pages = iam.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments)
    for page in pages:
        if len(page[member]) > size:
            complain(operation, f"a page has {len(page[member])} instead of {size}")
        found.extend(page[member])
    return found


def users_and_groups():
    made = iam.create_user(UserName="tf-alice", Path="/team/", Tags=tags(Team="blue"))["User"]
    wanted("CreateUser", made["Arn"], f"arn:aws:iam::{ACCOUNT}:user/team/tf-alice")
    read = iam.get_user(UserName="tf-alice")["User"]
    wanted("GetUser", as_map(read["Tags"]), {"Team": "blue"})
    wanted("GetUser", read["UserId"], made["UserId"])
    expect("EntityAlreadyExists", iam.create_user, UserName="TF-Alice")
    expect("NoSuchEntity", iam.get_user, UserName="tf-nobody")

    iam.update_user(UserName="tf-alice", NewUserName="tf-alicia", NewPath="/staff/")
    read = iam.get_user(UserName="tf-alicia")["User"]
    wanted("UpdateUser", read["Arn"], f"arn:aws:iam::{ACCOUNT}:user/staff/tf-alicia")
    wanted("UpdateUser", read["UserId"], made["UserId"])
    iam.tag_user(UserName="tf-alicia", Tags=tags(Team="green", Env="test"))
    iam.untag_user(UserName="tf-alicia", TagKeys=["Env"])
    listed = iam.list_user_tags(UserName="tf-alicia")["Tags"]
    wanted("ListUserTags", as_map(listed), {"Team": "green"})

    group = iam.create_group(GroupName="tf-ops", Path="/team/")["Group"]
    wanted("CreateGroup", group["Arn"], f"arn:aws:iam::{ACCOUNT}:group/team/tf-ops")
    iam.add_user_to_group(GroupName="tf-ops", UserName="tf-alicia")
    members = [user["UserName"] for user in iam.get_group(GroupName="tf-ops")["Users"]]
    wanted("GetGroup", members, ["tf-alicia"])
    groups = iam.list_groups_for_user(UserName="tf-alicia")["Groups"]
    wanted("ListGroupsForUser", [group["GroupName"] for group in groups], ["tf-ops"])
    iam.update_group(GroupName="tf-ops", NewGroupName="tf-operators")
    expect("NoSuchEntity", iam.get_group, GroupName="tf-ops")
    expect("DeleteConflict", iam.delete_group, GroupName="tf-operators")
    names = [user["UserName"] for user in paged("list_users", "Users", PathPrefix="/staff/")]
    wanted("ListUsers", names, ["tf-alicia"])
    groups = paged("list_groups", "Groups", PathPrefix="/team/")
    wanted("ListGroups", [group["GroupName"] for group in groups], ["tf-operators"])


def keys_of_a_user():
    key = iam.create_access_key(UserName="tf-alicia")["AccessKey"]
    iam.update_access_key(UserName="tf-alicia", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    listed = iam.list_access_keys(UserName="tf-alicia")["AccessKeyMetadata"]
    wanted("ListAccessKeys", [one["Status"] for one in listed], ["Inactive"])
    used = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])
    wanted("GetAccessKeyLastUsed", used["UserName"], "tf-alicia")
    iam.create_access_key(UserName="tf-alicia")
    expect("LimitExceeded", iam.create_access_key, UserName="tf-alicia")


def roles():
    document = trust({"Service": "ssm.amazonaws.com"})
    boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
    made = iam.create_role(
        RoleName="tf-nodes",
        Path="/service-role/",
        AssumeRolePolicyDocument=document,
        Description="nodes of a test",
        MaxSessionDuration=7200,
        PermissionsBoundary=boundary,
        Tags=tags(Team="blue"),
    )["Role"]
    wanted("CreateRole", made["Arn"], f"arn:aws:iam::{ACCOUNT}:role/service-role/tf-nodes")
    wanted("CreateRole", made["AssumeRolePolicyDocument"], json.loads(document))
    read = iam.get_role(RoleName="tf-nodes")["Role"]
    wanted("GetRole", read["AssumeRolePolicyDocument"], json.loads(document))
    wanted("GetRole", read["MaxSessionDuration"], 7200)
    wanted("GetRole", read["Description"], "nodes of a test")
    wanted("GetRole", read["PermissionsBoundary"]["PermissionsBoundaryArn"], boundary)
    wanted("GetRole", as_map(read["Tags"]), {"Team": "blue"})
    expect(
        "EntityAlreadyExists",
        iam.create_role,
        RoleName="TF-Nodes",
        AssumeRolePolicyDocument=document,
    )
    for bad in ("{", policy(allow("ssm:*")), trust({"Service": "ssm.amazonaws.com"}, Resource="*")):
        expect(
            "MalformedPolicyDocument",
            iam.create_role,
            RoleName="tf-bad",
            AssumeRolePolicyDocument=bad,
        )

    iam.update_role(RoleName="tf-nodes", Description="changed", MaxSessionDuration=3600)
    described = iam.update_role_description(RoleName="tf-nodes", Description="again")["Role"]
    wanted("UpdateRoleDescription", described["Description"], "again")
    wanted("UpdateRole", described["MaxSessionDuration"], 3600)
    iam.tag_role(RoleName="tf-nodes", Tags=tags(team="green", Env="test"))
    iam.untag_role(RoleName="tf-nodes", TagKeys=["Env", "absent"])
    listed = paged("list_role_tags", "Tags", RoleName="tf-nodes")
    wanted("ListRoleTags", as_map(listed), {"team": "green"})
    duplicate = tags(A="1", a="2")
    expect("InvalidInput", iam.tag_role, RoleName="tf-nodes", Tags=duplicate)
    profiles = iam.list_instance_profiles_for_role(RoleName="tf-nodes")["InstanceProfiles"]
    wanted("ListInstanceProfilesForRole", profiles, [])
    expect("NoSuchEntity", iam.list_instance_profiles_for_role, RoleName="tf-nobody")
    iam.delete_role_permissions_boundary(RoleName="tf-nodes")
    if "PermissionsBoundary" in iam.get_role(RoleName="tf-nodes")["Role"]:
        complain("DeleteRolePermissionsBoundary", "the boundary is still there")
    expect("NoSuchEntity", iam.delete_role_permissions_boundary, RoleName="tf-nodes")
    expect(
        "NoSuchEntity",
        iam.put_role_permissions_boundary,
        RoleName="tf-nodes",
        PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/tf-nothing",
    )
    for number in range(3):
        iam.create_role(RoleName=f"tf-many-{number}", Path="/many/", AssumeRolePolicyDocument=document)
    many = paged("list_roles", "Roles", PathPrefix="/many/")
    wanted("ListRoles", [role["RoleName"] for role in many], [f"tf-many-{n}" for n in range(3)])
    for number in range(3):
        iam.delete_role(RoleName=f"tf-many-{number}")
    expect("NoSuchEntity", iam.delete_role, RoleName="tf-many-0")
    expect("ValidationError", iam.list_roles, Marker="no marker of ours")


def trusted_principals():
    """A principal that goes leaves its id behind, and whoever takes its name inherits nothing."""
    nobody = trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/tf-nobody"})
    expect(
        "MalformedPolicyDocument",
        iam.update_assume_role_policy,
        RoleName="tf-nodes",
        PolicyDocument=nobody,
    )
    user = iam.create_user(UserName="tf-passing", Path="/a/")["User"]
    document = trust({"AWS": [user["Arn"], ACCOUNT], "Service": "ssm.amazonaws.com"})
    iam.update_assume_role_policy(RoleName="tf-nodes", PolicyDocument=document)

    def principals():
        read = iam.get_role(RoleName="tf-nodes")["Role"]["AssumeRolePolicyDocument"]
        return read["Statement"][0]["Principal"]["AWS"]

    wanted("UpdateAssumeRolePolicy", principals(), [user["Arn"], ACCOUNT])
    iam.update_user(UserName="tf-passing", NewUserName="tf-passed")
    moved = f"arn:aws:iam::{ACCOUNT}:user/a/tf-passed"
    wanted("trust after a rename", principals(), [moved, ACCOUNT])
    iam.delete_user(UserName="tf-passed")
    wanted("trust after a deletion", principals(), [user["UserId"], ACCOUNT])
    iam.create_user(UserName="tf-passed", Path="/a/")
    wanted("trust after a new user of the name", principals(), [user["UserId"], ACCOUNT])
    iam.delete_user(UserName="tf-passed")
    service = trust({"Service": "ssm.amazonaws.com"})
    iam.update_assume_role_policy(RoleName="tf-nodes", PolicyDocument=service)


def managed_policies():
    first = policy(allow("ssm:StartSession"))
    made = iam.create_policy(
        PolicyName="tf-start",
        Path="/team/",
        PolicyDocument=first,
        Description="start sessions",
        Tags=tags(Team="blue"),
    )["Policy"]
    arn = made["Arn"]
    wanted("CreatePolicy", arn, f"arn:aws:iam::{ACCOUNT}:policy/team/tf-start")
    read = iam.get_policy(PolicyArn=arn)["Policy"]
    wanted("GetPolicy", read["Description"], "start sessions")
    wanted("GetPolicy", read["DefaultVersionId"], "v1")
    wanted("GetPolicy", as_map(read["Tags"]), {"Team": "blue"})
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    wanted("GetPolicyVersion", version["Document"], json.loads(first))
    expect("EntityAlreadyExists", iam.create_policy, PolicyName="TF-start", PolicyDocument=first)
    for bad in ("{}", "[]", "nothing", policy(), trust({"AWS": "*"})):
        expect(
            "MalformedPolicyDocument", iam.create_policy, PolicyName="tf-bad", PolicyDocument=bad
        )
    large = policy(allow(["ssm:StartSession"] * 500))
    expect("LimitExceeded", iam.create_policy, PolicyName="tf-large", PolicyDocument=large)

    # What Terraform does when a document changes: make room, then a new default version.
    for number in range(2, 6):
        document = policy(allow(f"ssm:Number{number}"))
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)
    expect("LimitExceeded", iam.create_policy_version, PolicyArn=arn, PolicyDocument=first)
    expect("DeleteConflict", iam.delete_policy_version, PolicyArn=arn, VersionId="v5")
    expect("DeleteConflict", iam.delete_policy, PolicyArn=arn)
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=first)
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v6")
    expect("NoSuchEntity", iam.set_default_policy_version, PolicyArn=arn, VersionId="v1")
    versions = paged("list_policy_versions", "Versions", PolicyArn=arn)
    found = [(one["VersionId"], one["IsDefaultVersion"]) for one in versions]
    wanted("ListPolicyVersions", found[:2], [("v6", True), ("v5", False)])
    for version in ("v2", "v3", "v4", "v5"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version)

    iam.tag_policy(PolicyArn=arn, Tags=tags(Env="test"))
    iam.untag_policy(PolicyArn=arn, TagKeys=["Team"])
    listed = paged("list_policy_tags", "Tags", PolicyArn=arn)
    wanted("ListPolicyTags", as_map(listed), {"Env": "test"})
    local = paged("list_policies", "Policies", Scope="Local", PathPrefix="/team/")
    wanted("ListPolicies", [one["PolicyName"] for one in local], ["tf-start"])
    everything = paged("list_policies", "Policies", size=7)
    arns = [one["Arn"] for one in everything]
    if len(arns) != len(set(arns)) or arn not in arns:
        complain("ListPolicies", f"{arns}")
    return arn


def policies_of_aws():
    core = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    read = iam.get_policy(PolicyArn=core)["Policy"]
    version = iam.get_policy_version(PolicyArn=core, VersionId=read["DefaultVersionId"])
    if not version["PolicyVersion"]["Document"]["Statement"]:
        complain("GetPolicyVersion", "a policy of AWS's is empty")
    document = policy(allow("ssm:StartSession"))
    expect("AccessDenied", iam.create_policy_version, PolicyArn=core, PolicyDocument=document)
    expect("AccessDenied", iam.delete_policy, PolicyArn=core)
    expect("AccessDenied", iam.tag_policy, PolicyArn=core, Tags=tags(A="b"))
    wanted("ListPolicyTags", iam.list_policy_tags(PolicyArn=core)["Tags"], [])
    scope = paged("list_policies", "Policies", size=5, Scope="AWS")
    if core not in [one["Arn"] for one in scope]:
        complain("ListPolicies", "AmazonSSMManagedInstanceCore is not listed")
    expect("NoSuchEntity", iam.get_policy, PolicyArn="arn:aws:iam::aws:policy/NoSuchPolicy")
    expect("InvalidInput", iam.get_policy, PolicyArn="this-is-no-arn-of-anything")


def attachments(arn):
    core = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    kinds = {
        "user": ("UserName", "tf-alicia"),
        "group": ("GroupName", "tf-operators"),
        "role": ("RoleName", "tf-nodes"),
    }
    for kind, (member, name) in kinds.items():
        holder = {member: name}
        attach = getattr(iam, f"attach_{kind}_policy")
        detach = getattr(iam, f"detach_{kind}_policy")
        listing = f"list_attached_{kind}_policies"
        for attached in (arn, core, core):
            attach(PolicyArn=attached, **holder)
        listed = paged(listing, "AttachedPolicies", size=1, **holder)
        found = {one["PolicyName"]: one["PolicyArn"] for one in listed}
        expected = {"AmazonSSMManagedInstanceCore": core, "tf-start": arn}
        wanted(listing, found, expected)
        listed = paged(listing, "AttachedPolicies", PathPrefix="/team/", **holder)
        wanted(listing, [one["PolicyName"] for one in listed], ["tf-start"])
        missing = f"arn:aws:iam::{ACCOUNT}:policy/tf-nothing"
        expect("NoSuchEntity", attach, PolicyArn=missing, **holder)
        expect("NoSuchEntity", attach, PolicyArn=arn, **{member: "tf-nobody"})
        detach(PolicyArn=core, **holder)
        expect("NoSuchEntity", detach, PolicyArn=core, **holder)
        inline_policies(kind, holder)
    wanted("GetPolicy", iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"], 3)
    found = iam.list_entities_for_policy(PolicyArn=arn)
    names = [
        [one["GroupName"] for one in found["PolicyGroups"]],
        [one["RoleName"] for one in found["PolicyRoles"]],
        [one["UserName"] for one in found["PolicyUsers"]],
    ]
    wanted("ListEntitiesForPolicy", names, [["tf-operators"], ["tf-nodes"], ["tf-alicia"]])
    found = iam.list_entities_for_policy(PolicyArn=arn, EntityFilter="Role")
    wanted("ListEntitiesForPolicy", (len(found["PolicyRoles"]), found["PolicyUsers"]), (1, []))
    listed = iam.list_policies(OnlyAttached=True, Scope="Local")["Policies"]
    wanted("ListPolicies", [one["PolicyName"] for one in listed], ["tf-start"])
    expect("DeleteConflict", iam.delete_policy, PolicyArn=arn)
    expect("DeleteConflict", iam.delete_role, RoleName="tf-nodes")
    expect("DeleteConflict", iam.delete_user, UserName="tf-alicia")

    iam.put_user_permissions_boundary(UserName="tf-alicia", PermissionsBoundary=arn)
    bound = iam.get_user(UserName="tf-alicia")["User"]["PermissionsBoundary"]
    wanted("PutUserPermissionsBoundary", bound["PermissionsBoundaryArn"], arn)
    found = iam.list_entities_for_policy(PolicyArn=arn, PolicyUsageFilter="PermissionsBoundary")
    wanted("ListEntitiesForPolicy", [one["UserName"] for one in found["PolicyUsers"]], ["tf-alicia"])
    wanted("GetPolicy", iam.get_policy(PolicyArn=arn)["Policy"]["PermissionsBoundaryUsageCount"], 1)
    iam.delete_user_permissions_boundary(UserName="tf-alicia")
    iam.put_role_permissions_boundary(RoleName="tf-nodes", PermissionsBoundary=arn)
    iam.delete_role_permissions_boundary(RoleName="tf-nodes")


def inline_policies(kind, holder):
    put = getattr(iam, f"put_{kind}_policy")
    get = getattr(iam, f"get_{kind}_policy")
    delete = getattr(iam, f"delete_{kind}_policy")
    # All that a document may hold and a URL may not.
    odd = allow("ssm:Describe*", Condition={"StringLike": {"aws:UserAgent": "a+b %20 &=/?é*"}})
    documents = {f"inline-{number}": policy(odd, allow(f"ssm:Number{number}")) for number in range(3)}
    for name, document in documents.items():
        put(PolicyName=name, PolicyDocument=document, **holder)
    for name, document in documents.items():
        read = get(PolicyName=name, **holder)
        wanted(f"get_{kind}_policy", read["PolicyDocument"], json.loads(document))
    names = paged(f"list_{kind}_policies", "PolicyNames", **holder)
    wanted(f"list_{kind}_policies", names, sorted(documents))
    put(PolicyName="inline-0", PolicyDocument=policy(allow("ssm:ListDocuments")), **holder)
    read = get(PolicyName="inline-0", **holder)["PolicyDocument"]
    wanted(f"put_{kind}_policy", read["Statement"][0]["Action"], "ssm:ListDocuments")
    malformed = policy(allow("ssm:ListDocuments", Effect="Perhaps"))
    expect("MalformedPolicyDocument", put, PolicyName="bad", PolicyDocument=malformed, **holder)
    large = policy(allow(["ssm:ListDocuments"] * 600))
    expect("LimitExceeded", put, PolicyName="large", PolicyDocument=large, **holder)
    expect("NoSuchEntity", get, PolicyName="large", **holder)
    for name in documents:
        delete(PolicyName=name, **holder)
    expect("NoSuchEntity", delete, PolicyName="inline-0", **holder)


def simulator(arn):
    alicia = f"arn:aws:iam::{ACCOUNT}:user/staff/tf-alicia"
    node = f"arn:aws:ssm:local-1:{ACCOUNT}:managed-instance/mi-0123456789abcdef0"
    asked = {"ActionNames": ["ssm:StartSession", "iam:CreateUser"], "ResourceArns": [node, "*"]}
    results = []
    pages = iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=alicia, PaginationConfig={"PageSize": 3}, **asked
    )
    for page in pages:
        results.extend(page["EvaluationResults"])
    found = [(one["EvalActionName"], one["EvalDecision"]) for one in results]
    allowed, denied = ("ssm:StartSession", "allowed"), ("iam:CreateUser", "implicitDeny")
    wanted("SimulatePrincipalPolicy", found, [allowed, allowed, denied, denied])
    matched = results[0]["MatchedStatements"]
    # Attached to the user and to its group.
    sources = [(one["SourcePolicyId"], one["SourcePolicyType"]) for one in matched]
    wanted("SimulatePrincipalPolicy", sources, [("tf-start", "user-managed")] * 2)
    wanted("SimulatePrincipalPolicy", matched[0]["StartPosition"], {"Line": 4, "Column": 5})
    wanted("SimulatePrincipalPolicy", matched[0]["EndPosition"], {"Line": 8, "Column": 6})
    deny = policy({"Effect": "Deny", "Action": "ssm:*", "Resource": "*"})
    result = iam.simulate_principal_policy(
        PolicySourceArn=alicia,
        PolicyInputList=[deny],
        PermissionsBoundaryPolicyInputList=[policy(allow("ssm:*"))],
        ActionNames=["ssm:StartSession"],
    )["EvaluationResults"][0]
    wanted("SimulatePrincipalPolicy", result["EvalDecision"], "explicitDeny")
    sources = [one["SourcePolicyId"] for one in result["MatchedStatements"]]
    wanted("SimulatePrincipalPolicy", sources, ["PolicyInputList.1"])
    bound = result["PermissionsBoundaryDecisionDetail"]
    wanted("SimulatePrincipalPolicy", bound, {"AllowedByPermissionsBoundary": True})

    by_tag = {"StringEquals": {"ssm:resourceTag/Env": "${aws:PrincipalTag/Team}"}}
    conditional = policy(allow("ssm:StartSession", Condition=by_tag))
    custom = {"PolicyInputList": [conditional], "ActionNames": ["ssm:StartSession"]}
    result = iam.simulate_custom_policy(**custom)["EvaluationResults"][0]
    wanted("SimulateCustomPolicy", result["EvalDecision"], "implicitDeny")
    keys = ["aws:PrincipalTag/Team", "ssm:resourceTag/Env"]
    wanted("SimulateCustomPolicy", sorted(result["MissingContextValues"]), keys)
    entries = [
        {"ContextKeyName": key, "ContextKeyValues": ["blue"], "ContextKeyType": "string"}
        for key in keys
    ]
    result = iam.simulate_custom_policy(ContextEntries=entries, **custom)["EvaluationResults"][0]
    wanted("SimulateCustomPolicy", result["EvalDecision"], "allowed")
    wanted("SimulateCustomPolicy", result["MissingContextValues"], [])
    found = iam.get_context_keys_for_custom_policy(PolicyInputList=[conditional])
    wanted("GetContextKeysForCustomPolicy", sorted(found["ContextKeyNames"]), keys)
    found = iam.get_context_keys_for_principal_policy(
        PolicySourceArn=alicia, PolicyInputList=[conditional]
    )
    wanted("GetContextKeysForPrincipalPolicy", sorted(found["ContextKeyNames"]), keys)
    nobody = f"arn:aws:iam::{ACCOUNT}:user/tf-nobody"
    one_action = {"ActionNames": ["ssm:StartSession"]}
    expect("NoSuchEntity", iam.simulate_principal_policy, PolicySourceArn=nobody, **one_action)
    expect("InvalidInput", iam.simulate_principal_policy, PolicySourceArn=arn, **one_action)
    expect("InvalidInput", iam.simulate_custom_policy, PolicyInputList=["{"], **one_action)


def overview():
    summary = iam.get_account_summary()["SummaryMap"]
    details = {"UserDetailList": [], "GroupDetailList": [], "RoleDetailList": [], "Policies": []}
    pages = iam.get_paginator("get_account_authorization_details").paginate(
        PaginationConfig={"PageSize": 2}
    )
    for page in pages:
        for member, found in details.items():
            found.extend(page[member])
    wanted("GetAccountSummary", summary["Users"], len(details["UserDetailList"]))
    wanted("GetAccountSummary", summary["Groups"], len(details["GroupDetailList"]))
    wanted("GetAccountSummary", summary["Roles"], len(details["RoleDetailList"]))
    alicia = next(one for one in details["UserDetailList"] if one["UserName"] == "tf-alicia")
    wanted("GetAccountAuthorizationDetails", alicia["GroupList"], ["tf-operators"])
    only = iam.get_account_authorization_details(Filter=["LocalManagedPolicy"])
    wanted("GetAccountAuthorizationDetails", only["RoleDetailList"], [])
    names = [one["PolicyName"] for one in only["Policies"]]
    wanted("GetAccountAuthorizationDetails", names, ["tf-start"])


def destroy(arn):
    """In Terraform's order, with all the listings that it makes before."""
    iam.detach_user_policy(UserName="tf-alicia", PolicyArn=arn)
    iam.detach_group_policy(GroupName="tf-operators", PolicyArn=arn)
    iam.detach_role_policy(RoleName="tf-nodes", PolicyArn=arn)
    for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
    iam.delete_policy(PolicyArn=arn)
    expect("NoSuchEntity", iam.get_policy, PolicyArn=arn)

    iam.list_instance_profiles_for_role(RoleName="tf-nodes")
    iam.delete_role(RoleName="tf-nodes")
    expect("NoSuchEntity", iam.get_role, RoleName="tf-nodes")

    iam.remove_user_from_group(GroupName="tf-operators", UserName="tf-alicia")
    for key in iam.list_access_keys(UserName="tf-alicia")["AccessKeyMetadata"]:
        iam.delete_access_key(UserName="tf-alicia", AccessKeyId=key["AccessKeyId"])
    for listing, member in (
        (iam.list_ssh_public_keys, "SSHPublicKeys"),
        (iam.list_signing_certificates, "Certificates"),
        (iam.list_service_specific_credentials, "ServiceSpecificCredentials"),
        (iam.list_mfa_devices, "MFADevices"),
    ):
        wanted(listing.__name__, listing(UserName="tf-alicia")[member], [])
    expect("NoSuchEntity", iam.delete_login_profile, UserName="tf-alicia")
    iam.delete_user(UserName="tf-alicia")
    iam.delete_group(GroupName="tf-operators")
    expect("NoSuchEntity", iam.get_user, UserName="tf-alicia")
    expect("NoSuchEntity", iam.get_group, GroupName="tf-operators")


def main():
    users_and_groups()
    keys_of_a_user()
    roles()
    trusted_principals()
    arn = managed_policies()
    policies_of_aws()
    attachments(arn)
    simulator(arn)
    overview()
    destroy(arn)
    finish()


main()
