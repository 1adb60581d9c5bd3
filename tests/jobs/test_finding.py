"""Which job a name means, when jobs run in more than one place."""

from collections.abc import Callable

import pytest
from account import BUCKET, REGION, training_request
from sagemaker_simulator import SageMakerSimulator, faults

from orchestrator.aws.client import Aws
from orchestrator.errors import JobError, ServiceError
from orchestrator.jobs.job import find
from orchestrator.requests import IDENTITY_TAG, Request
from orchestrator.storage import S3Store
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.sagemaker.target import SageMakerTarget

DOG, CAT = "dog-0123456789", "cat-0123456789"
MakeRequest = Callable[..., Request]


@pytest.fixture
def here(target: ProcessTarget, request: pytest.FixtureRequest) -> ProcessTarget:
    make: MakeRequest = request.getfixturevalue("training_request")
    for name in (DOG, CAT):
        target.create(make("finish()", name=name))
        target.wait_for_end(name, seconds=60)
    return target


@pytest.fixture
def there(simulator: SageMakerSimulator) -> SageMakerTarget:
    aws = Aws(REGION)
    target = SageMakerTarget(aws, S3Store(aws, BUCKET, "123456789012"), poll_seconds=0)
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints/dog/", "LocalPath": "/opt/ml/checkpoints"}
    tags = [{"Key": IDENTITY_TAG, "Value": "a" * 64}]
    target.create(training_request(name=DOG, CheckpointConfig=checkpoints, Tags=tags))
    return target


def test_a_few_letters_that_fit_jobs_of_two_places_mean_none(here: ProcessTarget, there: SageMakerTarget) -> None:
    with pytest.raises(JobError) as raised:
        find("dog", [here, there])
    assert f"{DOG} (local), {DOG} (sagemaker)" in raised.value.message
    assert "--target" in raised.value.next_step
    assert find("dog", [here]).target is here
    assert find("dog", [there]).target is there


def test_a_whole_name_means_the_job_of_the_first_place(here: ProcessTarget, there: SageMakerTarget) -> None:
    assert find(DOG, [here, there]).target is here
    assert find(DOG, [there, here]).target is there


def test_the_name_of_an_adapter_means_its_own_job_though_others_begin_with_it(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    for name in (DOG, "dog-rank2-0123456789", "dog-rank4-abcdef0123", "dogs-0123456789"):
        target.create(training_request("finish()", name=name))
        target.wait_for_end(name, seconds=60)
    assert find("dog", [target]).name == DOG
    assert find("dog-rank2", [target]).name == "dog-rank2-0123456789"
    for shorter in ("do", "dog-", "dog-rank"):
        with pytest.raises(JobError, match="ambiguous") as raised:
            find(shorter, [target])
        assert raised.value.next_step == "give more of the name"  # all of them are here


def test_a_place_that_cannot_be_reached_hides_no_job_of_another(
    simulator: SageMakerSimulator, here: ProcessTarget, there: SageMakerTarget, waits: list[float]
) -> None:
    simulator.faults.add(faults.unavailable(), "ListTrainingJobs", times=None)
    assert find("cat", [here, there]).name == CAT
    with pytest.raises(ServiceError):
        find("bird", [here, there])
