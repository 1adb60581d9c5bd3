"""What an endpoint needs of its account, looked at before anything is uploaded or created.

What cannot be asked, for want of a permission or in another account, keeps nobody from deploying: the service says it
later, after minutes.
"""

from collections.abc import Callable
from typing import Any

from orchestrator.aws.client import Aws, calling
from orchestrator.aws.errors import raise_quota
from orchestrator.contract.command_line import command
from orchestrator.endpoints.sagemaker.plan import EndpointPlan
from orchestrator.errors import AccessError, AccountError, MissingError, OrchestratorError, QuotaError, ServiceError
from orchestrator.infra.registry import describe_image, parse_image
from orchestrator.settings import AwsSettings

_UNDONE = "Nothing was created."
_UP = command("infra", "up")
_SHOW = command("infra", "show")
_SERVICE = "sagemaker.amazonaws.com"
_ALLOWED = "allowed"


class Preconditions:
    """Checks an account."""

    def __init__(
        self,
        aws: Aws,
        account: AwsSettings,
        report: Callable[[OrchestratorError], None],
    ) -> None:
        self._aws = aws
        self._account = account
        self._report = report

    def check(self, plan: EndpointPlan) -> None:
        """Raise AccountError for what keeps the endpoint from starting; report what may keep it from growing."""
        self._require_image(str(plan.model["PrimaryContainer"]["Image"]))
        self._require_role(str(self._account.endpoint_role_arn))
        self._require_quota(plan)

    def _require_image(self, name: str) -> None:
        """Raise an error unless the image of endpoints is in its registry, as far as that can be asked."""
        image = parse_image(name)
        if image is None:
            return
        if image.region != self._account.region:
            raise AccountError(
                f"The image of endpoints {name} is in another region than the endpoint, which is in "
                f"{self._account.region}: SageMaker does not start it. {_UNDONE}",
                next_step=f"push it to {self._account.region} and set ORCHESTRATOR_INFERENCE_IMAGE to its name there",
            )
        try:
            is_there = describe_image(self._aws, image) is not None
        except (AccessError, ServiceError):
            return
        except MissingError:
            is_there = False
        if not is_there:
            build = command("infra", "image", "inference")
            raise MissingError(
                f"The image that endpoints run in is not in the registry: {name}. {_UNDONE}",
                next_step=f"{build}  (or set ORCHESTRATOR_INFERENCE_IMAGE to an image that is there)",
            )

    def _require_role(self, arn: str) -> None:
        """Raise an error unless the role of endpoints exists and may be passed, as far as that can be asked."""
        name = arn.rpartition("/")[2]
        try:
            with calling(f"look at the role {name}"):
                self._aws.client("iam").get_role(RoleName=name)
        except MissingError as error:
            raise MissingError(
                f"The role of endpoints {arn} does not exist. {_UNDONE}",
                next_step=f"{_UP}  (by the account's owner; everybody else: {_SHOW})",
            ) from error
        except (AccessError, ServiceError):
            pass
        if self._may_pass(arn) is False:
            raise AccessError(
                f"iam:PassRole is not allowed for the role of endpoints {arn}. {_UNDONE}",
                next_step=f"ask the account's owner to attach the deploy policy to you: {_SHOW}",
            )

    def _may_pass(self, role: str) -> bool | None:
        """Return whether who is signed in may hand SageMaker a role; None where that cannot be asked."""
        context = {
            "ContextKeyName": "iam:PassedToService",
            "ContextKeyType": "string",
            "ContextKeyValues": [_SERVICE],
        }
        try:
            with calling("find out who is signed in"):
                caller = str(self._aws.client("sts").get_caller_identity()["Arn"])
            with calling("find out whether the role may be passed"):
                answer = self._aws.client("iam").simulate_principal_policy(
                    PolicySourceArn=_principal_of(caller),
                    ActionNames=["iam:PassRole"],
                    ResourceArns=[role],
                    ContextEntries=[context],
                )
        except OrchestratorError:  # CreateModel says it, before anything is billed
            return None
        (result,) = answer["EvaluationResults"]
        if result.get("MissingContextValues"):  # it depends on what only the call itself says
            return None
        return bool(result["EvalDecision"] == _ALLOWED)

    def _require_quota(self, plan: EndpointPlan) -> None:
        """Raise QuotaError when the endpoint cannot start within the account's quota; report when it cannot grow."""
        name = plan.hosting.quota
        deployment = plan.deployment
        try:
            allowed = self._quota(name)
        except (AccountError, ServiceError) as error:
            message = f'Whether the quota "{name}" suffices could not be checked: {error.message}'
            self._report(type(error)(message, next_step=error.next_step))
            return
        if allowed is None:
            return
        fewest = max(1, deployment.fewest_instances)
        most = deployment.most_instances
        next_step = raise_quota(name, most, self._account.region)
        if allowed < fewest:
            message = f'The account\'s quota "{name}" is {allowed:g}, and the endpoint starts with {fewest}. {_UNDONE}'
            raise QuotaError(message, next_step=next_step)
        if allowed < most:
            message = f'The account\'s quota "{name}" is {allowed:g}: the endpoint cannot grow to {most} instances.'
            self._report(QuotaError(message, next_step=next_step))

    def _quota(self, name: str) -> float | None:
        """Return the value of a quota of SageMaker by its name; None when the account has none of that name."""
        pages: Any = self._aws.client("service-quotas").get_paginator("list_service_quotas")
        with calling("look at the account's quotas"):
            for page in pages.paginate(ServiceCode="sagemaker"):
                for quota in page["Quotas"]:
                    if quota["QuotaName"] == name:
                        return float(quota["Value"])
        return None


def _principal_of(caller: str) -> str:
    """Return the ARN of the user or the role that is signed in; a session of a role stands for the role."""
    # https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
    parts = caller.split(":")
    kind, _, rest = parts[-1].partition("/")
    if kind != "assumed-role":
        return caller
    role = rest.partition("/")[0]
    return ":".join([*parts[:2], "iam", *parts[3:5], f"role/{role}"])
