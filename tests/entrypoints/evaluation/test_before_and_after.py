"""Pictures that a run draws: of the class, and for judging."""

import os
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from entrypoints.evaluation import metrics
from entrypoints.evaluation.contact_sheet import contact_sheet, sheet_layout
from entrypoints.evaluation.prompts import contexts
from entrypoints.models.base import BaseModel
from entrypoints.recipes import dreambooth, textual_inversion
from entrypoints.training.class_images import class_pictures
from entrypoints.training.run import Run
from orchestrator.contract.contact_sheet import LAYOUT_KEY, SheetLayout, SheetRow


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


@pytest.mark.parametrize("change", [{"seed": 5}, {"guidance_scale": 2.0}, {"inference_steps": 3}, {"resolution": 16}])
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


def unit(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def test_figures_by_hand() -> None:
    drawn, real = unit([1.0, 0], [1, 1]), unit([1.0, 0], [0, 1])
    assert metrics.subject_similarity(drawn, real) == pytest.approx((1 + 0 + 0.5**0.5 * 2) / 4)
    assert metrics.similarity_ceiling(unit([1.0, 0], [0, 1], [1, 1])) == pytest.approx((0 + 2 * 0.5**0.5) / 3)
    assert metrics.similarity_ceiling(real[:1]) == 1
    assert metrics.prompt_fidelity(drawn, real) == pytest.approx((1 + 0.5**0.5) / 2)


def test_the_judge_sees_what_clip_sees(base: BaseModel) -> None:
    judge = metrics.judge_of(base)
    assert judge
    noise = [Image.effect_noise((tiny.SIDE, tiny.SIDE), 80).convert("RGB") for _ in range(2)]
    vectors = judge.picture_embeddings([*noise, noise[0].resize((64, 64), Image.Resampling.NEAREST)])
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
    texts = judge.text_embeddings(["a dog", "a dog", "a red toy"])
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_without_a_clip_there_is_a_sheet_and_a_warning(job: Any, run: Any, tmp_path: Any) -> None:
    environment = job(tiny.textual_inversion(), base_model=tiny.write_base_model(tmp_path / "bare", clip=False))
    events = run(environment)
    assert [event["message"] for event in events if event["event"] == "warning"]
    assert not [event for event in events if event["event"] == "metrics"]
    assert (environment.model / "contact_sheet.png").is_file()


def test_clip_is_never_asked_about_the_subjects_own_word() -> None:
    of_dreambooth = dreambooth.questions(tiny.dreambooth(evaluation_prompts=8))
    assert all("sks dog" in question.before == question.after for question in of_dreambooth)
    assert not any("sks" in question.text for question in of_dreambooth)
    assert all("dog" in question.text for question in of_dreambooth)
    (aside,) = dreambooth.questions(tiny.dreambooth(instance_prompt="a photo of sks, a dog"))
    assert ("sks a dog" in aside.after, "sks" in aside.text, "of a dog" in aside.text) == (True, False, True)
    of_inversion = textual_inversion.questions(tiny.textual_inversion(evaluation_prompts=8))
    assert all("<my-dog>" in question.after for question in of_inversion)
    assert not any("<" in question.text + question.before for question in of_inversion)


@pytest.mark.parametrize("base_model", ["builtin", "someone/model"])
@pytest.mark.parametrize("style", [False, True])
def test_there_are_enough_contexts_each_of_its_own(base_model: str, style: bool) -> None:
    found = contexts(tiny.dreambooth(base_model=base_model, evaluation_prompts=16), style=style)
    assert len(set(found)) == 16
    assert all("{}" in context for context in found)


def test_a_sheet_shows_every_picture() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]
    real, *drawn = (
        Image.new("RGB", (64, 64), colour) for colour in [(90, 60, 30), *colours, (10, 90, 200), (70, 0, 70)]
    )
    rows = [SheetRow(prompt=text, text=text) for text in ("one prompt", "another prompt")]
    layout = sheet_layout("a title", rows, 1, 2)
    sheet = contact_sheet(layout, [real], drawn[:4], drawn[4:])
    shown = [
        sheet.crop(layout.box(block, row, column)).getcolors()
        for block in (layout.real, layout.before, layout.after)
        for row in range(block.rows)
        for column in range(block.columns)
    ]
    assert shown == [[(layout.tile**2, image.getpixel((0, 0)))] for image in [real, *drawn]]


def test_a_sheet_says_in_its_own_file_what_it_shows(job: Any, run: Any) -> None:
    environment = job(tiny.textual_inversion(evaluation_prompts=2, evaluation_seeds=3))
    run(environment)
    sheet = Image.open(environment.model / "contact_sheet.png")
    layout = SheetLayout.model_validate_json(sheet.text[LAYOUT_KEY])
    questions = textual_inversion.questions(tiny.textual_inversion(evaluation_prompts=2))
    assert [row.prompt for row in layout.rows] == [question.after for question in questions]
    assert [row.text for row in layout.rows] == [question.text for question in questions]
    assert (layout.before.columns, layout.after.columns) == (3, 3)
    assert all(end <= side for end, side in zip(layout.pixels(), sheet.size, strict=True))


def test_the_tuned_model_does_not_leak_into_the_pictures_before(job: Any, run: Any) -> None:
    """A wild adapter and a mild one have the same pictures on the left of their sheets."""
    sheets = []
    for name, rate in (("mild", 1e-6), ("wild", 0.5)):
        environment = job(tiny.dreambooth(learning_rate=rate, tuner="full"), name)
        run(environment)
        sheets.append(Image.open(environment.model / "contact_sheet.png").convert("RGB"))
    middle = sheets[0].width // 2 + 115  # half of the label's column
    left, right = (
        [sheet.crop((x, 60, x + 140, sheet.height)).tobytes() for sheet in sheets] for x in (middle - 150, middle + 10)
    )
    assert left[0] == left[1]
    assert right[0] != right[1]
