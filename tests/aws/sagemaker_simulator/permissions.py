"""Who may do what, from the policies moto's IAM holds: only while moto enforces them (`enable_iam_authentication`).

moto itself sees to S3, CloudWatch and the rest. Here are the actions of SageMaker, and what the service does with the
job's role without an API call that moto could see.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from .calls import Call
from .errors import ServiceError
from .roles import SERVICE

_VPC_ACTIONS = (
    "CreateNetworkInterface",
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
    "DescribeDhcpOptions",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
)
_ECR_ACTIONS = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")


def are_enforced() -> bool:
    """Return whether moto asks IAM."""
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin

    return bool(ActionAuthenticatorMixin.request_count >= settings.INITIAL_NO_AUTH_ACTION_COUNT)


def check_caller(call: Call) -> None:
    """Raise AccessDeniedException when the caller may not do what a call asks for."""
    if not are_enforced():
        return
    from moto.iam.access_control import CreateAccessKeyFailure, create_access_key

    headers = {"X-Amz-Security-Token": call.session_token} if call.session_token else {}
    try:
        key = create_access_key(call.account, "aws", call.access_key or "", headers)
    except CreateAccessKeyFailure:
        message = "The security token included in the request is invalid."
        raise ServiceError("UnrecognizedClientException", message) from None
    for action, resource in _needed(call):
        if not _allow(key.collect_policies(), action, resource):
            raise ServiceError(
                "AccessDeniedException",
                f"User: {key.arn} is not authorized to perform: {action} on resource: {resource} because no "
                f"identity-based policy allows the {action} action",
            )


def missing_for_image(role_arn: str, image: str) -> str | None:
    """Return the first action a role lacks to pull an image from ECR."""
    registry, _, path = image.partition("/")
    account, _, _, region, *_ = registry.split(".")
    name = path.partition("@")[0].partition(":")[0]
    repository = f"arn:aws:ecr:{region}:{account}:repository/{name}"
    needed = [("ecr:GetAuthorizationToken", "*"), *((f"ecr:{action}", repository) for action in _ECR_ACTIONS)]
    return _missing(role_arn, needed)


def missing_for_vpc(role_arn: str) -> str | None:
    """Return the first action a role lacks to put network interfaces into a VPC."""
    return _missing(role_arn, [(f"ec2:{action}", "*") for action in _VPC_ACTIONS])


def missing_for_key(role_arn: str, kms_key: str) -> str | None:
    """Return the first action a role lacks to encrypt a job's output."""
    return _missing(role_arn, [("kms:GenerateDataKey", kms_key), ("kms:Decrypt", kms_key)])


def _needed(call: Call) -> Iterator[tuple[str, str]]:
    parameters = call.parameters
    own = f"arn:aws:sagemaker:{call.region}:{call.account}:training-job/{parameters.get('TrainingJobName', '')}"
    resource = parameters.get("ResourceArn") or (own if "TrainingJobName" in parameters else "*")
    yield f"sagemaker:{call.operation}", resource
    if call.operation.startswith("Create") and "RoleArn" in parameters:
        yield "iam:PassRole", parameters["RoleArn"]
    if call.operation.startswith("Create") and parameters.get("Tags"):
        yield "sagemaker:AddTags", resource


def _missing(role_arn: str, needed: Iterable[tuple[str, str]]) -> str | None:
    if not are_enforced():
        return None
    policies = _role_policies(role_arn)
    return next((action for action, resource in needed if not _allow(policies, action, resource)), None)


def _role_policies(role_arn: str) -> list[Any]:
    from moto.iam.models import iam_backends

    backend = iam_backends[role_arn.split(":")[4]]["aws"]
    name = role_arn.rpartition("/")[2]
    inline = [backend.get_role_policy(name, policy)[1] for policy in backend.list_role_policies(name)]
    return [*inline, *backend.list_attached_role_policies(name)[0]]


def _allow(policies: Iterable[Any], action: str, resource: str) -> bool:
    from moto.iam.access_control import IAMPolicy, PermissionResult

    conditions = {"iam:PassedToService": SERVICE}
    results = [IAMPolicy(policy).is_action_permitted(action, resource, None, conditions) for policy in policies]
    return PermissionResult.PERMITTED in results and PermissionResult.DENIED not in results
