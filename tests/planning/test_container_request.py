"""The request of a job in a container on this machine is the one for SageMaker, less what only an account has."""

import shutil
from pathlib import Path

import pytest

from orchestrator.contract.environment import INPUTS_VARIABLE
from orchestrator.models.mirrored import NOT_ASKED
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import Plan, plan_here, plan_on_sagemaker, store_trees
from orchestrator.requests import LOCAL_INSTANCE, LocalContainer, channel_uris, identity_of, runs_in_container
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from orchestrator.storage import FolderStore, folder_of

CONTAINER = LocalContainer("orchestrator-training:1", LOCAL_INSTANCE)


@pytest.fixture
def spec() -> JobSpec:
    return build_spec({"recipe": "dreambooth"}, {"compute.instance_count": "2"})


def test_what_was_tried_here_is_what_sagemaker_gets(spec: JobSpec, settings: Settings, tmp_path: Path) -> None:
    prepared = prepare_inputs(spec, tmp_path / "staging")
    here = plan_here(spec, settings, prepared, CONTAINER).request
    account = AwsSettings.placeholder("us-east-1").model_copy(update={"training_image": CONTAINER.image})
    there = plan_on_sagemaker(spec, settings, account, prepared, NOT_ASKED).request
    for field in ("TrainingJobName", "HyperParameters"):
        assert here[field] == there[field]
    for field in ("TrainingImage", "TrainingInputMode", "ContainerEntrypoint"):
        assert here["AlgorithmSpecification"][field] == there["AlgorithmSpecification"][field]
    assert here["ResourceConfig"]["InstanceCount"] == there["ResourceConfig"]["InstanceCount"] == 2
    assert set(channel_uris(here)) == set(channel_uris(there))
    assert identity_of(here) == identity_of(there)
    checked = set(there["Environment"][INPUTS_VARIABLE].split())
    assert set(here["Environment"][INPUTS_VARIABLE].split()) == {
        pair
        for pair in checked
        if not pair.startswith("base_model=")  # a folder of this machine
    }
    others = {name for name in here["Environment"] if name != INPUTS_VARIABLE}
    assert {name: here["Environment"][name] for name in others} == {name: there["Environment"][name] for name in others}
    assert runs_in_container(here)
    assert not runs_in_container(there)
    assert not runs_in_container(plan_here(spec, settings, prepared).request)


def planned(folder: Path, settings: Settings, scratch: Path, container: LocalContainer | None) -> Plan:
    spec = build_spec({"recipe": "dreambooth", "base_model": str(folder)})
    return plan_here(spec, settings, prepare_inputs(spec, scratch), container)


def test_a_base_model_of_links_is_stored_for_a_container_which_cannot_follow_them(
    settings: Settings, tmp_path: Path
) -> None:
    blobs = tmp_path / "blobs"
    folder = tmp_path / "snapshot"
    shutil.copytree(BUILTIN_MODEL, folder)
    plain = planned(folder, settings, tmp_path / "1", CONTAINER)
    assert folder_of(channel_uris(plain.request)["base_model"]) == folder
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(blobs)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").symlink_to(blobs)
    assert folder_of(channel_uris(planned(folder, settings, tmp_path / "2", None).request)["base_model"]) == folder
    linked = planned(folder, settings, tmp_path / "3", CONTAINER)
    store_trees(linked, FolderStore(settings.store))
    stored = folder_of(channel_uris(linked.request)["base_model"])
    file = stored / "unet" / "diffusion_pytorch_model.safetensors"
    assert file.read_bytes() == blobs.read_bytes()
    assert not file.is_symlink()
    assert f"base_model={stored.name}" in linked.request["Environment"][INPUTS_VARIABLE]
