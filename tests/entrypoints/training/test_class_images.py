"""Pictures of the class, which are drawn once and kept."""

import os
from typing import Any

import pytest
import tiny
import torch

from entrypoints.models.base import BaseModel
from entrypoints.training.class_images import class_pictures
from entrypoints.training.run import Run


@pytest.fixture
def drawing(job: Any) -> Run:
    recipe = tiny.dreambooth()
    return Run(job(recipe), recipe)


def test_class_pictures_are_drawn_once(drawing: Run, base: BaseModel, capfd: pytest.CaptureFixture[str]) -> None:
    first = class_pictures(drawing, base, "a dog", 3)
    assert "class images" in capfd.readouterr().out
    bytes_then = [picture.path.read_bytes() for picture in first]
    times_then = [picture.path.stat().st_mtime_ns for picture in first]
    assert class_pictures(drawing, base, "a dog", 3) == first
    assert capfd.readouterr().out == ""
    assert [picture.path.stat().st_mtime_ns for picture in first] == times_then
    assert len(set(bytes_then)) == 3
    assert {path.suffix for path in first[0].path.parent.iterdir()} == {".png"}


def test_class_pictures_that_were_cut_off_are_completed_with_the_same_bytes(drawing: Run, base: BaseModel) -> None:
    pictures = class_pictures(drawing, base, "a dog", 3)
    whole = [picture.path.read_bytes() for picture in pictures]
    pictures[1].path.unlink()
    class_pictures(drawing, base, "a dog", 3)
    assert [picture.path.read_bytes() for picture in pictures] == whole


def test_class_pictures_of_other_threads_are_others(drawing: Run, base: BaseModel) -> None:
    first = class_pictures(drawing, base, "a dog", 1)
    torch.set_num_threads(2)
    assert class_pictures(drawing, base, "a dog", 1) != first


@pytest.mark.parametrize("change", [{"seed": 5}, {"guidance_scale": 3.0}, {"inference_steps": 3}, {"resolution": 16}])
def test_class_pictures_of_other_settings_are_others(drawing: Run, base: BaseModel, change: dict[str, Any]) -> None:
    first = class_pictures(drawing, base, "a dog", 1)
    drawing.recipe = drawing.recipe.model_copy(update=change)
    second = class_pictures(drawing, base, "a dog", 1)
    assert first[0].path.read_bytes() != second[0].path.read_bytes()


def test_class_pictures_can_be_kept_between_jobs(
    drawing: Run, base: BaseModel, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "ORCHESTRATOR_CACHE", str(tmp_path / "kept"))
    assert class_pictures(drawing, base, "a dog", 1)[0].path.is_relative_to(tmp_path / "kept")
