"""What a job learns from becomes its channels; a recipe that learns from no files has none."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.contract.datasets import NOTHING
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.findings import Findings
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import plan_here, store_trees
from orchestrator.requests import channel_uris
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from orchestrator.storage import FolderStore, folder_of
from tests.planned import planned

FIELDS = {"recipe": "textual-inversion", "prompt": "<my-dog>", "settings": {"initializer_token": "dog"}}


def test_every_channel_leads_to_a_tree_of_the_plan(settings: Settings) -> None:
    account = AwsSettings.placeholder()
    plan = planned(build_spec({"recipe": "dreambooth"}), settings, account)
    uris = channel_uris(plan.request)
    assert set(uris) == {"training", "code", "base_model"}
    assert set(uris.values()) == {f"s3://{account.bucket}/{tree.name}" for tree in plan.trees}


def test_a_plan_stores_nothing_until_its_trees_are_stored(settings: Settings, tmp_path: Path) -> None:
    spec = build_spec({"recipe": "dreambooth"})
    plan = plan_here(spec, settings, prepare_inputs(spec, tmp_path / "staging"))
    assert not settings.store.exists()
    store_trees(plan, FolderStore(settings.store))
    for uri in channel_uris(plan.request).values():
        assert folder_of(uri).is_dir()


def test_a_recipe_without_inputs_has_no_channel_and_no_tree_for_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextualInversion, "dataset", NOTHING)
    spec = build_spec(FIELDS)
    prepared = prepare_inputs(spec, tmp_path / "staging")
    assert prepared.sha256 == tree_sha256({})  # what the container has for a channel that is not there
    here = plan_here(spec, settings, prepared)
    assert [tree.kind for tree in here.trees] == ["code"]
    plan = planned(spec, settings, AwsSettings.placeholder())
    assert set(channel_uris(plan.request)) == {"code", "base_model"}
    assert [tree.kind for tree in plan.trees] == ["code", "models"]


def test_other_images_make_another_job(settings: Settings, tmp_path: Path) -> None:
    names = []
    for colour in ("red", "blue"):
        images = tmp_path / colour
        images.mkdir()
        Image.new("RGB", (64, 64), colour).save(images / "1.png")
        spec = build_spec({"recipe": "dreambooth", "images": images, "prompt": "a photo of sks dog"})
        prepared = prepare_inputs(spec, tmp_path / f"staging-{colour}")
        written = hash_files(tmp_path / f"staging-{colour}" / "images")
        assert prepared.sha256 == tree_sha256(written)  # what the container computes
        names.append(plan_here(spec, settings, prepared).request["TrainingJobName"])
    assert names[0] != names[1]


def test_the_clip_that_measures_is_a_channel_of_its_own(settings: Settings, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    shutil.copytree(BUILTIN_MODEL / "clip", clip)
    shutil.copytree(BUILTIN_MODEL / "tokenizer", clip, dirs_exist_ok=True)
    plan = planned(build_spec({"recipe": "dreambooth", "scorer": clip}), settings, AwsSettings.placeholder())
    uri = channel_uris(plan.request)["scorer"]
    (tree,) = [tree for tree in plan.trees if uri.endswith(tree.name)]
    assert "model.safetensors" in tree.files


def test_a_job_is_told_what_was_found_of_its_images_and_not_their_names(settings: Settings, tmp_path: Path) -> None:
    images = tmp_path / "kim's folder"
    images.mkdir()
    for name in ("kim.png", "kim at the clinic.png"):
        Image.new("RGB", (64, 64), "black").save(images / name)
    spec = build_spec({"recipe": "dreambooth", "images": images, "prompt": "a photo of sks dog"})
    prepared = prepare_inputs(spec, tmp_path / "staging")
    here = plan_here(spec, settings, prepared)
    there = planned(spec, settings, AwsSettings.placeholder())
    uris = [channel_uris(plan.request)["findings"].rstrip("/") for plan in (here, there)]
    assert uris[0].rpartition("/")[2] == uris[1].rpartition("/")[2]
    store_trees(here, FolderStore(settings.store))
    folder = folder_of(channel_uris(here.request)["findings"])
    (file,) = folder.iterdir()
    assert "kim" not in file.read_text()
    told = [(problem.where, problem.what) for problem in Findings.read(folder).problems]
    assert ("00002.png", "is an exact duplicate of 00001.png") in told
    assert [where for where, what in told if "only 2 images" in what] == ["images/"]
    assert [where for where, what in told if "black" in what] == ["00001.png", "00002.png"]


def test_another_wording_makes_no_other_job(settings: Settings, tmp_path: Path) -> None:
    spec = build_spec({"recipe": "dreambooth", "images": _black(tmp_path), "prompt": "a photo of sks dog"})
    prepared = prepare_inputs(spec, tmp_path / "staging")
    names = [plan_here(spec, settings, prepared).request["TrainingJobName"]]
    assert prepared.findings is not None
    names.append(plan_here(spec, settings, replace(prepared, findings=None)).request["TrainingJobName"])
    assert names[0] == names[1]


def test_a_job_of_images_without_a_remark_has_no_channel_for_remarks(settings: Settings) -> None:
    plan = planned(build_spec({"recipe": "dreambooth"}), settings, AwsSettings.placeholder())
    assert "findings" not in channel_uris(plan.request)


def _black(folder: Path) -> Path:
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (64, 64), "black").save(images / "1.png")
    return images
