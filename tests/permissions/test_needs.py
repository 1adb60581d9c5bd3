"""Each action that the template grants is needed: the walk fails at a named step without it, and nowhere with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from sagemaker_simulator import faults

from orchestrator.aws.instances import instances
from orchestrator.errors import OrchestratorError
from tests.permissions.grants import actions_of, prefixes_of
from tests.permissions.walk import STEPS, Walk, World
from tests.template import template

STATED = yaml.safe_load(Path(__file__).with_name("needs.yaml").read_text())
GRANTS = STATED["grants"]


class Need(NamedTuple):
    """One thing that is granted, and what becomes of the walk without it."""

    resource: str
    action: str
    step: str
    says: str
    below: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, [self.resource, self.action, self.below]))


def needs() -> Iterator[Need]:
    for grant in GRANTS:
        for action, about in grant["actions"].items():
            says = about.get("says", action)
            yield Need(grant["resource"], action, about["step"], says)
            for prefix, step in about.get("below", {}).items():
                yield Need(grant["resource"], action, step, says, prefix)


@pytest.fixture(scope="module")
def walked(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The account after one walk, in which the code and the base model were brought."""
    walk = Walk(world, "first", tmp_path_factory.mktemp("first"))
    for step in STEPS.values():
        step(walk)
    return world


def test_the_policies_of_the_stack_carry_every_step(walked: World) -> None:
    assert walked.simulator.errors == []


def test_they_carry_a_submit_whose_answer_is_lost(walked: World, tmp_path: Path) -> None:
    walked.simulator.faults.add(faults.lost_answer(), "CreateTrainingJob", times=3)  # the SDK's own tries included
    walk = Walk(walked, "lost", tmp_path)
    assert walk.submit(walk.name) == walk.submit(walk.name)
    committed = [one for one in walked.simulator.requests.of("CreateTrainingJob") if one.committed]
    assert [one.parameters["TrainingJobName"].startswith("lost-") for one in committed].count(True) == 1


def test_every_policy_that_grants_something_is_accounted_for() -> None:
    resources = template()["Resources"].items()
    granting = {name for name, one in resources if one["Type"] in {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}}
    others = (*STATED["endpoints"], *STATED["builds"], *STATED["labels"])
    assert granting | {"Key"} == {grant["resource"] for grant in (*GRANTS, *others)}


def test_every_disk_is_the_instances_own_or_the_role_may_have_it_encrypted() -> None:
    granted = {action for grant in GRANTS for action in grant["actions"]}
    with_volume = [one.name for one in instances().values() if one.disk_gb is None]
    assert with_volume == [] or "kms:CreateGrant" in granted


@pytest.mark.parametrize("grant", GRANTS, ids=lambda grant: str(grant["resource"]))
def test_every_action_that_is_granted_is_accounted_for(world: World, grant: dict[str, Any]) -> None:
    assert actions_of(world.grants.read(grant["resource"])) == sorted(grant["actions"])


@pytest.mark.parametrize("grant", GRANTS, ids=lambda grant: str(grant["resource"]))
def test_every_prefix_of_the_bucket_is_accounted_for(world: World, grant: dict[str, Any]) -> None:
    document = world.grants.read(grant["resource"])
    stated = {action: sorted(about["below"]) for action, about in grant["actions"].items() if "below" in about}
    assert stated == {action: prefixes_of(document, action) for action in stated}


@pytest.mark.parametrize(("number", "need"), enumerate(needs()), ids=str)
def test_without_what_is_granted_its_step_fails(walked: World, number: int, need: Need, tmp_path: Path) -> None:
    walk = Walk(walked, f"walk-{number}", tmp_path)
    brought_anew = need.below if need.below in {"code", "models"} else ""
    with forgotten(walk, brought_anew), walked.grants.without(need.resource, need.action, need.below):
        step, said = first_failure(walk)
    walk.end()
    assert (step, need.says in said) == (need.step, True), said


@contextmanager
def forgotten(walk: Walk, kind: str) -> Iterator[None]:
    """Take what the first walk has brought out of the bucket, and bring it again afterwards."""
    if not kind:
        yield
        return
    s3, bucket = walk.world.owner("s3"), walk.world.account.bucket
    for prefix in (f"{kind}/", f"manifests/{kind}/"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=entry["Key"])
    yield
    walk.submit(walk.name)


def first_failure(walk: Walk) -> tuple[str, str]:
    """Return the first step that cannot be done and what is said then."""
    for name, step in STEPS.items():
        try:
            step(walk)
        except OrchestratorError as error:
            return name, error.render()
        except AssertionError as error:
            return name, str(error)
    return "", "nothing failed"
