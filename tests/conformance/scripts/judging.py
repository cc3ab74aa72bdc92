"""Judges what our server answers to boto3 by botocore's own models.

botocore checks what is sent but hardly what comes back, so this does: every member must be in the
model, of the right type, and within its constraints; required members must be there; an error must
be one that the operation declares or a common one.
"""

import datetime
import json
import re
import sys

import boto3
import botocore.exceptions
import botocore.parsers

COMMON_ERRORS = {
    "AccessDenied",
    "AccessDeniedException",
    "BadRequest",
    "DoesNotExistException",
    "InvalidParameters",
    "ValidationError",
    "ValidationException",
}

wrong = []
called = set()


def complain(path, what):
    wrong.append(f"{path}: {what}")


def judge(shape, value, path):
    """Compares a raw JSON value, or a parsed query value, with its shape."""
    kinds = {
        "structure": dict,
        "map": dict,
        "list": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "long": int,
        "double": (int, float),
        "float": (int, float),
        "timestamp": (int, float, datetime.datetime),
        "blob": str,
    }
    if not isinstance(value, kinds[shape.type_name]) or (
        isinstance(value, bool) and shape.type_name != "boolean"
    ):
        complain(path, f"{value!r} is not a {shape.type_name}")
        return
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                complain(path, f"member {name} is missing")
        for name, member in value.items():
            if name not in shape.members:
                complain(path, f"member {name} is not in the model")
            elif member is None:
                complain(path, f"member {name} is null instead of absent")
            else:
                judge(shape.members[name], member, f"{path}.{name}")
    elif shape.type_name == "map":
        for key, member in value.items():
            judge(shape.key, key, f"{path} key {key}")
            judge(shape.value, member, f"{path}.{key}")
    elif shape.type_name == "list":
        for number, member in enumerate(value):
            judge(shape.member, member, f"{path}[{number}]")
    constraints(shape, value, path)


def constraints(shape, value, path):
    rules = shape.metadata
    measure = value if shape.type_name in ("integer", "long") else None
    if shape.type_name in ("string", "list", "map"):
        measure = len(value)
    if measure is not None:
        if "min" in rules and measure < rules["min"]:
            complain(path, f"{measure} is below {rules['min']}")
        if "max" in rules and measure > rules["max"]:
            complain(path, f"{measure} is above {rules['max']}")
    if shape.type_name == "string":
        if "enum" in rules and value not in rules["enum"]:
            complain(path, f"{value!r} is none of {rules['enum']}")
        if "pattern" in rules and not re.search(pythonic(rules["pattern"]), value):
            complain(path, f"{value!r} does not match {rules['pattern']}")


def pythonic(pattern):
    """The models' patterns are Java's: Python knows no Unicode classes by name."""
    for java, python in ((r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return pattern


def judge_answer(http_response, parsed, model, **_):
    name = f"{model.service_model.service_name}.{model.name}"
    called.add(name)
    if not http_response.headers.get("x-amzn-RequestId"):
        complain(name, "no x-amzn-RequestId")
    if http_response.status_code >= 300:
        code = parsed.get("Error", {}).get("Code")
        declared = {error.error_code for error in model.error_shapes} | {
            error.name for error in model.error_shapes
        }
        if code not in declared | COMMON_ERRORS:
            complain(name, f"error {code} is neither modelled nor common")
        if not parsed.get("Error", {}).get("Message"):
            complain(name, f"error {code} has no text")
        print(f"{name}: {http_response.status_code} {code}")
        return
    if model.service_model.metadata["protocol"] == "json":
        body = json.loads(http_response.content or b"{}")
    else:
        # Read anew, because botocore has already turned policy documents into objects.
        answer = {
            "headers": http_response.headers,
            "body": http_response.content,
            "status_code": http_response.status_code,
        }
        body = botocore.parsers.create_parser("query").parse(answer, model.output_shape)
        body.pop("ResponseMetadata", None)
    if model.output_shape is not None:
        judge(model.output_shape, body, name)
    print(f"{name}: {http_response.status_code}")


def client(service):
    made = boto3.client(service)
    made.meta.events.register("after-call", judge_answer)
    return made


def expect(code, call, **arguments):
    """A call that must fail with this code."""
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != code:
            complain(error.operation_name, f"wanted {code}, got {error}")
    else:
        complain(str(call), f"wanted {code}, but it succeeded")


def finish():
    """Says what was wrong and ends with 1 if anything was."""
    print(f"{len(called)} operations called")
    for line in wrong:
        print(f"WRONG {line}")
    sys.exit(1 if wrong else 0)
