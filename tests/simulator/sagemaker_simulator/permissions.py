"""Who may do what, from the policies moto's IAM holds: only while they are enforced.

moto, or `enforce_policies`, sees to S3, CloudWatch and the rest. Here are the actions of SageMaker, and what the
service does with the job's role without an API call that moto could see.
https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html#sagemaker-roles-createtrainingjob-perms
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import principals
from .calls import Call
from .errors import ServiceError
from .hosting.records import COMPONENT, ENDPOINT, KINDS
from .policies import Access
from .roles import SERVICE

NAMESPACE = "/aws/sagemaker/TrainingJobs"
"""Of the metrics in CloudWatch."""
_INTERFACE_ACTIONS = (
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
)
_LOOKS = (
    "DescribeDhcpOptions",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
)
_ACTIONS = {"InvokeEndpointWithResponseStream": "InvokeEndpoint"}
"""The operations whose permission is called otherwise."""
_KINDS = {"CreateInferenceComponent": (COMPONENT, ENDPOINT), "InvokeEndpoint": (ENDPOINT, COMPONENT)}
_ECR_ACTIONS = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")


def are_enforced() -> bool:
    """Return whether moto asks IAM."""
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin

    return bool(ActionAuthenticatorMixin.request_count >= settings.INITIAL_NO_AUTH_ACTION_COUNT)


def check_caller(call: Call, tags: Mapping[str, Mapping[str, str]]) -> None:
    """Raise AccessDeniedException when the caller may not do what a call asks for; `tags` are those of each ARN."""
    for access in _needed(call, tags):
        check_access(call, access)


def check_access(call: Call, access: Access) -> None:
    """Raise AccessDeniedException when whoever makes a call may not do something."""
    if are_enforced():
        key = _key(call)
        if not principals.may(principals.of_access_key(key), access):
            raise ServiceError(
                "AccessDeniedException",
                f"User: {key.arn} is not authorized to perform: {access.action} on resource: {access.resource} because "
                f"no identity-based policy allows the {access.action} action",
            )


def may_deregister(call: Call) -> bool:
    """Return whether a caller may end the scaling of an endpoint, which its deletion does in the caller's name."""
    context = {"application-autoscaling:service-namespace": "sagemaker"}
    access = Access("application-autoscaling:DeregisterScalableTarget", "*", context)
    return not are_enforced() or principals.may(principals.of_access_key(_key(call)), access)


def _key(call: Call) -> Any:
    """Return moto's access key of whoever makes a call; raises ServiceError when nobody knows it."""
    from moto.iam.access_control import CreateAccessKeyFailure, create_access_key

    headers = {"X-Amz-Security-Token": call.session_token} if call.session_token else {}
    try:
        return create_access_key(call.account, "aws", call.access_key or "", headers)
    except CreateAccessKeyFailure:
        message = "The security token included in the request is invalid."
        raise ServiceError("UnrecognizedClientException", message) from None


def missing_for_image(role_arn: str, image: str) -> str | None:
    """Return the first action a role lacks to pull an image from ECR."""
    registry, _, path = image.partition("/")
    account, _, _, region, *_ = registry.split(".")
    name = path.partition("@")[0].partition(":")[0]
    repository = f"arn:aws:ecr:{region}:{account}:repository/{name}"
    needed = [Access("ecr:GetAuthorizationToken"), *(Access(f"ecr:{action}", repository) for action in _ECR_ACTIONS)]
    return _missing(role_arn, needed)


def missing_for_vpc(role_arn: str, region: str, config: dict[str, Any]) -> str | None:
    """Return the first action a role lacks to put network interfaces into a VPC."""
    here = f"arn:aws:ec2:{region}:{role_arn.split(':')[4]}"
    interface = f"{here}:network-interface/*"
    places = [f"{here}:subnet/{one}" for one in config["Subnets"]]
    places += [f"{here}:security-group/{one}" for one in config["SecurityGroupIds"]]
    needed = [Access(f"ec2:{action}") for action in _LOOKS]
    needed += [Access("ec2:CreateNetworkInterface", place) for place in (interface, *places)]
    needed += [Access(f"ec2:{action}", interface) for action in _INTERFACE_ACTIONS]
    return _missing(role_arn, needed)


def missing_for_output(role_arn: str, kms_key: str) -> str | None:
    """Return the action a role lacks to name a key for a job's output; what S3 does with the key comes on top."""
    return _missing(role_arn, [Access("kms:Encrypt", kms_key)])


def missing_for_volume(role_arn: str, kms_key: str) -> str | None:
    """Return the action a role lacks to have a job's volumes encrypted."""
    return _missing(role_arn, [Access("kms:CreateGrant", kms_key, {"kms:GrantIsForAWSResource": "true"})])


def missing_for_metrics(role_arn: str) -> str | None:
    """Return the action a role lacks to write a job's metrics."""
    return _missing(role_arn, [Access("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": NAMESPACE})])


def _needed(call: Call, tags: Mapping[str, Mapping[str, str]]) -> Iterator[Access]:
    parameters = call.parameters
    asked = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in parameters.get("Tags", [])}
    resources = _resources(call)
    for resource in resources:
        own = {f"aws:ResourceTag/{key}": value for key, value in tags.get(resource, {}).items()}
        yield Access(f"sagemaker:{_ACTIONS.get(call.operation, call.operation)}", resource, {**asked, **own})
    role = parameters.get("RoleArn") or parameters.get("ExecutionRoleArn")
    if call.operation.startswith("Create") and role is not None:
        yield Access("iam:PassRole", role, {"iam:PassedToService": SERVICE})
    if call.operation.startswith("Create") and parameters.get("Tags"):
        yield Access("sagemaker:AddTags", resources[0], {**asked, "sagemaker:TaggingAction": call.operation})


def _resources(call: Call) -> list[str]:
    """Return the ARNs that an action is authorised on: that of CreateEndpoint on its configuration too."""
    parameters = call.parameters
    here = f"arn:aws:sagemaker:{call.region}:{call.account}"
    if "ResourceArn" in parameters:
        return [parameters["ResourceArn"]]
    if call.operation.startswith("List"):
        return ["*"]
    if "TrainingJobName" in parameters:
        return [f"{here}:training-job/{parameters['TrainingJobName']}"]
    kinds = _KINDS.get(call.operation, KINDS)
    named = [kind.arn(call, parameters[f"{kind.field}Name"]) for kind in kinds if f"{kind.field}Name" in parameters]
    return named or ["*"]


def _missing(role_arn: str, needed: Iterable[Access]) -> str | None:
    if not are_enforced():
        return None
    role = principals.of_role(role_arn)
    return next((access.action for access in needed if not principals.may(role, access)), None)
