"""Jobs whose base model is on the Hub, and what a copy in the bucket changes for them."""

import json
from typing import Any

import pytest
from sagemaker_simulator import complaint

from orchestrator.errors import SpecError
from orchestrator.models.mirror import ask, mirror
from orchestrator.planning.plan import Plan
from orchestrator.requests import channel_uris, identity_of
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from orchestrator.storage import S3Store
from tests.faults.wire import Wire
from tests.models.conftest import ACCOUNT, BUCKET
from tests.models.server import Files, HubServer
from tests.planned import planned

MODEL = "org/model"


def spec(**fields: Any) -> JobSpec:
    return build_spec({"recipe": "dreambooth", "base_model": MODEL, **fields})


@pytest.fixture
def account() -> AwsSettings:
    role = f"arn:aws:iam::{ACCOUNT}:role/job"
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/training:1"
    return AwsSettings(region="us-east-1", account_id=ACCOUNT, bucket=BUCKET, role_arn=role, training_image=image)


def put(store: S3Store, revision: str | None = None) -> str:
    return mirror(store, MODEL, revision, lambda _line: None).model.commit


def plan_asking(
    store: S3Store,
    spec: JobSpec,
    settings: Settings,
    account: AwsSettings,
) -> Plan:
    """Plan as a submit does: the bucket is searched first."""
    return planned(spec, settings, account, ask(store, spec.base_model))


def test_a_mirrored_model_is_read_from_the_bucket_and_named_by_its_commit(
    hub: HubServer, store: S3Store, files: Files, settings: Settings, account: AwsSettings
) -> None:
    hub.add(MODEL, files)
    before = plan_asking(store, spec(), settings, account)
    commit = put(store)
    hub.asked.clear()
    after = plan_asking(store, spec(), settings, account)
    assert hub.asked == []
    assert after.mirrored
    assert channel_uris(after.request)["base_model"] == after.mirrored.uri
    assert after.request["EnableNetworkIsolation"]
    assert after.request["Environment"]["HF_HUB_OFFLINE"] == "1"
    assert model_of(after) == (MODEL, commit)
    assert complaint(after.request) is None
    # Without the copy the job fetches the model itself, and it is the same job.
    assert before.mirrored is None
    assert "base_model" not in channel_uris(before.request)
    assert not before.request["EnableNetworkIsolation"]
    assert model_of(before) == (MODEL, None)
    assert identity_of(before.request) == identity_of(after.request)
    assert before.request["TrainingJobName"] == after.request["TrainingJobName"]


def model_of(plan: Plan) -> tuple[str, str | None]:
    values = plan.request["HyperParameters"]
    return json.loads(values["base_model"]), json.loads(values["base_revision"])


def test_a_job_gets_the_revision_it_asks_for(
    hub: HubServer, store: S3Store, files: Files, settings: Settings, account: AwsSettings
) -> None:
    repository = hub.add(MODEL, files)
    old = put(store)
    repository.push({**files, "scheduler/scheduler_config.json": b"{}"}, ref="v2")
    new = put(store, "v2")
    commits = {}
    for revision in (None, "main", "v2", old, new, "v3"):
        job = spec(settings={"base_revision": revision})
        plan = plan_asking(store, job, settings, account)
        commits[revision] = plan.mirrored.commit if plan.mirrored else None
    assert commits == {None: old, "main": old, "v2": new, old: old, new: new, "v3": None}


def test_a_dry_run_warns_that_copies_are_unknown(settings: Settings, account: AwsSettings) -> None:
    plan = planned(spec(), settings, account)
    (warning,) = [one.render() for one in plan.warnings if one.where.startswith("base_model")]
    assert "python -m orchestrator models mirror org/model" in warning
    assert "downloads the model from the Hugging Face Hub" in warning
    assert not plan.request["EnableNetworkIsolation"]
    isolated = planned(spec(compute={"network_isolation": True}), settings, account)
    assert isolated.request["EnableNetworkIsolation"]
    assert "base_model" not in channel_uris(isolated.request)
    (warning,) = [one.render() for one in isolated.warnings if one.where.startswith("base_model")]
    assert "did not look for a copy" in warning
    assert "refused" in warning


def test_the_copy_of_a_builtin_model_is_not_looked_up(
    wire: Wire, store: S3Store, settings: Settings, account: AwsSettings
) -> None:
    plan = plan_asking(store, spec(base_model="builtin"), settings, account)
    assert plan.mirrored is None
    assert wire.count("GetObject") == 0


def test_a_job_that_has_to_be_isolated_is_refused_without_a_copy_before_anything_is_stored(
    hub: HubServer, wire: Wire, store: S3Store, files: Files, settings: Settings, account: AwsSettings
) -> None:
    hub.add(MODEL, files)
    isolated = spec(compute={"network_isolation": True}, settings={"base_revision": "main"})
    with pytest.raises(SpecError, match="network isolation") as raised:
        plan_asking(store, isolated, settings, account)
    assert "models mirror org/model --revision main" in raised.value.next_step
    assert wire.count("PutObject") == 0
    put(store)
    assert plan_asking(store, isolated, settings, account).request["EnableNetworkIsolation"]
