"""The settings of a ControlNet: what cannot be trained is refused before anything is paid for."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract.families import STABLE_DIFFUSION
from orchestrator.contract.recipe import FAMILY_CONTEXT
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.errors import DatasetError, SpecError
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.resources import ASSETS
from orchestrator.specs.building import build_spec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"conditions": ["openpose"]}, "computed by a network of their own"),
        ({"conditions": ["canney"]}, 'did you mean "canny"?'),
        ({"conditions": ["canny", "canny"]}, "names a kind twice"),
        ({"conditions": []}, "conditions"),
        ({"conditions": "canny"}, "should be a list"),
        ({"given_map": "depth"}, "leave it out where the conditions are something else"),
        ({"watched_images": 1}, "watched_images"),
    ],
)
def test_conditions_that_cannot_be_trained_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({"recipe": "controlnet", "settings": settings})
    (problem,) = caught.value.problems
    assert words in problem.render()


def test_a_family_without_a_controlnet_is_refused_at_submit() -> None:
    """As a model of flows is whose network is no U-Net."""
    family = STABLE_DIFFUSION.model_copy(update={"title": "Another", "control_pipeline": None})
    with pytest.raises(
        ValueError, match="Another takes no ControlNet here; name a model of Stable Diffusion 1 and 2 or"
    ):
        ControlNet.model_validate({"base_model": "org/model"}, context={FAMILY_CONTEXT: family})


def test_nobody_needs_to_name_anything() -> None:
    spec = build_spec({"recipe": "controlnet"})
    assert spec.recipe.conditions == ("canny",)  # type: ignore[attr-defined]
    assert not spec.warnings


def test_a_setting_for_given_conditions_is_idle_without_them() -> None:
    spec = build_spec({"recipe": "controlnet", "settings": {"given_map": "canny"}})
    assert [warning.where for warning in spec.warnings] == ["given_map"]


def test_condition_pictures_that_would_not_be_looked_at_are_noticed(tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(ASSETS / "layouts", images)
    (images / "conditions").mkdir()
    for path in images.glob("*.png"):
        shutil.copy(path, images / "conditions")
    for conditions, is_refused in ((["canny"], True), (["given"], False), (["canny", "given"], False)):
        spec = build_spec({"recipe": "controlnet", "images": images, "settings": {"conditions": conditions}})
        prepared = prepare_inputs(spec, tmp_path / "-".join(conditions))
        assert (prepared.error is not None) is is_refused
        if is_refused:
            assert isinstance(prepared.error, DatasetError)
            assert 'conditions=["given"]' in prepared.error.next_step
