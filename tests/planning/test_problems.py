"""What is wrong with a job is said in one go, before anything is stored."""

import shutil
from pathlib import Path

import pytest

from orchestrator.errors import DatasetError, OrchestratorError, SpecError
from orchestrator.resources import ASSETS, SAMPLE_IMAGES
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from tests.planned import planned

ACCOUNT = AwsSettings.placeholder()


def refused(spec: JobSpec, settings: Settings) -> OrchestratorError:
    with pytest.raises(OrchestratorError) as raised:
        planned(spec, settings, ACCOUNT)
    return raised.value


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLE_IMAGES, tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def test_money_pictures_and_secrets_are_complained_of_together(settings: Settings, photos: Path) -> None:
    prompt = f"a photo of sks hf_{'a1B2' * 9}"
    fields = {"recipe": "dreambooth", "images": photos, "prompt": prompt, "budget": {"max_usd": 0.02}}
    error = refused(build_spec(fields), settings)
    assert isinstance(error, SpecError)
    assert {problem.where for problem in error.problems} >= {"budget.max_usd", "broken.png", "recipe.instance_prompt"}
    assert "a1B2" not in error.render()
    assert error.next_step


def test_a_single_fault_is_what_it_is(settings: Settings, photos: Path) -> None:
    error = refused(build_spec({"recipe": "dreambooth", "images": photos, "prompt": "a photo of sks dog"}), settings)
    assert isinstance(error, DatasetError)
    assert [problem.where for problem in error.problems] == ["broken.png"]


def test_photographs_for_the_built_in_model_are_doubted_and_its_own_subject_is_not(
    settings: Settings, photos: Path
) -> None:
    (photos / "broken.png").unlink()
    own = build_spec({"recipe": "dreambooth", "images": photos, "prompt": "a photo of sks dog"})
    for spec, doubts in ((own, ["base_model"]), (build_spec({"recipe": "dreambooth"}), [])):
        plan = planned(spec, settings, ACCOUNT)
        assert [one.where for one in plan.warnings if one.where == "base_model"] == doubts


def test_the_remedy_for_photographs_on_the_built_in_model_is_not_advised_to_who_takes_it(
    settings: Settings, photos: Path
) -> None:
    (photos / "broken.png").unlink()
    fields = {"recipe": "dreambooth", "images": photos, "prompt": "a photo of sks dog"}
    plan = planned(build_spec({**fields, "settings": {"tuner": "full"}}), settings, ACCOUNT)
    assert [one.where for one in plan.warnings if one.where == "base_model"] == []
    words = {"recipe": "textual-inversion", "images": photos, "prompt": "<my-dog>"}
    plan = planned(build_spec({**words, "settings": {"initializer_token": "dog"}}), settings, ACCOUNT)
    (warning,) = [one for one in plan.warnings if one.where == "base_model"]
    assert "with dreambooth -s tuner=full" in warning.fix


def test_a_controlnet_of_one_picture_is_told_that_obedience_cannot_be_measured(
    settings: Settings, tmp_path: Path
) -> None:
    layouts = sorted((ASSETS / "layouts").glob("*.png"))
    for count in (1, 2):
        folder = tmp_path / f"set-{count}"
        folder.mkdir()
        for path in layouts[:count]:
            shutil.copy(path, folder)
        plan = planned(build_spec({"recipe": "controlnet", "images": folder}), settings, ACCOUNT)
        found = [one.render() for one in plan.warnings if one.where == f"set-{count}/"]
        assert len(found) == (1 if count == 1 else 0)
        assert all("only 1 picture: whether its condition is obeyed" in text for text in found)
