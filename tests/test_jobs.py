"""Which job a name means, when jobs run in more than one place."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import JobError, ServiceError
from orchestrator.jobs import find
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.process import ProcessTarget


@pytest.fixture
def here(settings: Settings, training_request: Callable[..., Request]) -> ProcessTarget:
    target = ProcessTarget(settings)
    for name in ("dog-1", "cat-1"):
        target.create(training_request("finish()", name=name))
        target.wait_for_end(name, seconds=60)
    return target


class Elsewhere(ProcessTarget):
    """Another place with the same jobs, as an account may have them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.place = "eu-west-1"


class Away(ProcessTarget):
    """A place that cannot be reached."""

    def names(self) -> list[str]:
        raise ServiceError("The service cannot be reached.", next_step="check the network")


def test_a_few_letters_that_fit_jobs_of_two_places_mean_none(here: ProcessTarget) -> None:
    with pytest.raises(JobError) as raised:
        find("dog", [here, Elsewhere(here.settings)])
    assert "dog-1 (here), dog-1 (eu-west-1)" in raised.value.message
    assert "--target" in raised.value.next_step
    assert find("dog", [here]).name == "dog-1"


def test_a_whole_name_means_the_job_of_the_first_place(here: ProcessTarget) -> None:
    assert find("dog-1", [here, Elsewhere(here.settings)]).target is here


def test_a_place_that_cannot_be_reached_hides_no_job_of_another(here: ProcessTarget) -> None:
    assert find("cat", [here, Away(here.settings)]).name == "cat-1"
    targets: list[Any] = [here, Away(here.settings)]
    with pytest.raises(ServiceError):
        find("bird", targets)
