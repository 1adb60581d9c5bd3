"""What an account lacks is said before anything is uploaded or created; what cannot be asked keeps nobody."""

from collections.abc import Callable

import boto3
import pytest

from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.errors import AccessError, AccountError, MissingError, OrchestratorError, QuotaError
from orchestrator.settings import Settings
from tests.endpoints.sagemaker.deployments import ACCOUNT, deployment
from tests.endpoints.sagemaker.service import Refusal, Service
from tests.faults.wire import Wire

MakeHost = Callable[[], SageMakerHost]
QUOTA = "ml.g4dn.xlarge for endpoint usage"


def stored() -> list[str]:
    listed = boto3.client("s3").list_objects_v2(Bucket=ACCOUNT.bucket)
    return [one["Key"] for one in listed["Contents"]]


def refused(host: SageMakerHost, service: Service, error: type[OrchestratorError], says: str, **fields: int) -> str:
    """Deploy, require that it is refused and has left nothing, and return the next command."""
    before = stored()
    with pytest.raises(error, match=says) as caught:
        host.deploy(host.plan(deployment(**fields)))
    assert (service.left(), stored()) == ({}, before)
    assert "Nothing was created" in caught.value.message
    return caught.value.next_step


def test_an_image_that_is_not_in_the_registry(host: SageMakerHost, service: Service) -> None:
    image = {"imageTag": str(ACCOUNT.inference_image).rpartition(":")[2]}
    boto3.client("ecr").batch_delete_image(repositoryName="orchestrator-inference", imageIds=[image])
    next_step = refused(host, service, MissingError, "image that endpoints run in is not in the registry")
    assert "infra image inference" in next_step
    boto3.client("ecr").delete_repository(repositoryName="orchestrator-inference")
    refused(host, service, MissingError, "image that endpoints run in is not in the registry")


@pytest.mark.parametrize("name", ["@sha256:" + "0" * 64, ":9"])
def test_an_image_by_its_digest_or_another_tag(
    name: str, make_host: MakeHost, service: Service, settings: Settings
) -> None:
    image = str(ACCOUNT.inference_image).rpartition(":")[0] + name
    settings.aws_file.write_text(ACCOUNT.model_copy(update={"inference_image": image}).model_dump_json())
    refused(make_host(), service, MissingError, "is not in the registry")


def test_an_image_of_another_region(make_host: MakeHost, service: Service, settings: Settings) -> None:
    image = str(ACCOUNT.inference_image).replace("eu-west-1", "us-east-1")
    settings.aws_file.write_text(ACCOUNT.model_copy(update={"inference_image": image}).model_dump_json())
    refused(make_host(), service, AccountError, "another region")


def test_a_role_that_is_not_there_or_may_not_be_passed(host: SageMakerHost, service: Service) -> None:
    service.decision = "implicitDeny"
    refused(host, service, AccessError, "iam:PassRole is not allowed")
    boto3.client("iam").delete_role(RoleName="endpoint")
    assert "infra up" in refused(host, service, MissingError, "does not exist")


def test_a_quota_that_does_not_suffice(host: SageMakerHost, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.quotas = {"ml.g5.xlarge for training job usage": 0, QUOTA: 1}
    step = refused(
        host, service, QuotaError, "is 1, and the endpoint starts with 2", fewest_instances=2, most_instances=3
    )
    assert "request-service-quota-increase" in step
    assert "--desired-value 3" in step
    reported: list[OrchestratorError] = []
    monkeypatch.setattr(host._deployer._preconditions, "_report", reported.append)
    host.deploy(host.plan(deployment(most_instances=2)))
    (warning,) = reported
    assert "cannot grow to 2 instances" in warning.message


def test_what_cannot_be_asked_is_said_and_keeps_nobody(
    host: SageMakerHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.refused["ListServiceQuotas"] = Refusal("AccessDeniedException", "no")
    reported: list[OrchestratorError] = []
    monkeypatch.setattr(host._deployer._preconditions, "_report", reported.append)
    assert host.deploy(host.plan(deployment())).status is EndpointStatus.CREATING
    (warning,) = reported
    assert "could not be checked" in warning.message


def test_a_lease_is_renewed_without_looking_again(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    service.sleep(3600)
    service.calls.clear()
    host.deploy(host.plan(deployment()))
    assert "ListServiceQuotas" not in service.calls


def test_the_model_names_the_image_that_was_found_by_its_digest(
    host: SageMakerHost, make_host: MakeHost, service: Service
) -> None:
    tagged = str(ACCOUNT.inference_image)
    [found] = boto3.client("ecr").describe_images(repositoryName="orchestrator-inference")["imageDetails"]
    pinned = f"{tagged.rpartition(':')[0]}@{found['imageDigest']}"
    plan = host.plan(deployment())
    assert plan.model["PrimaryContainer"]["Image"] == pinned
    assert make_host().plan(deployment()).model == plan.model  # whoever goes on with it finds the same model
    host.deploy(plan)
    [created] = service.things["Model"].values()
    assert created["PrimaryContainer"]["Image"] == pinned


def test_who_may_not_look_at_the_registry_deploys_with_the_tag(host: SageMakerHost, service: Service) -> None:
    wire = Wire(host._aws.client("ecr"))
    wire.answer("DescribeImages", forever=wire.refusal(400, "AccessDeniedException", "not authorized"))
    plan = host.plan(deployment())
    assert plan.model["PrimaryContainer"]["Image"] == ACCOUNT.inference_image
    assert host.deploy(plan).status is EndpointStatus.CREATING
