"""AddTags, ListTags and DeleteTags for everything that has an ARN."""

from typing import TYPE_CHECKING, Any

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import invalid
from sagemaker_simulator.rules import tag_faults

from .pages import page

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

_MAX_TAGS = 50


def add_tags(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    tags = _tags(simulator, call)
    for fault in tag_faults(call.parameters["Tags"]):
        raise invalid(fault)
    added = {tag["Key"]: tag["Value"] for tag in call.parameters["Tags"]}
    if len(tags | added) > _MAX_TAGS:
        raise invalid(f"A resource can have {_MAX_TAGS} tags at most.")
    tags |= added
    return {"Tags": as_list(tags)}


def list_tags(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    found, token = page(as_list(_tags(simulator, call)), call.parameters, default=50)
    return {"Tags": found} | token


def delete_tags(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    tags = _tags(simulator, call)
    for key in call.parameters["TagKeys"]:
        tags.pop(key, None)
    return {}


def as_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _tags(simulator: "SageMakerSimulator", call: Call) -> dict[str, str]:
    arn = call.parameters["ResourceArn"]
    if arn not in simulator.tags:
        raise invalid(f"Could not find resource {arn}")
    return simulator.tags[arn]


OPERATIONS = {"AddTags": add_tags, "ListTags": list_tags, "DeleteTags": delete_tags}
