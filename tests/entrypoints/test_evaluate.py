"""An evaluation as a job runs it: an adapter of a few steps on the tiny model, beside that model."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from entrypoints.evaluate import evaluate
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.environment import Environment
from orchestrator.contract.evaluation import (
    ADAPTER_CHANNEL,
    PROMPTS_CHANNEL,
    REFERENCE_CHANNEL,
    Evaluation,
    EvaluationPrompts,
)
from orchestrator.contract.evaluation_result import Estimate, EvaluationResult
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.samples import parse_index

PROMPTS = EvaluationPrompts(
    prompts=(
        EvaluationPrompt("a photo of a toy dog", "a photo of a toy dog", "a photo of a dog"),
        EvaluationPrompt("a toy dog on red", "a toy dog on red", "a dog on red"),
    ),
    unrelated=("a red photo",),
)
IMAGES = 2 * 2 * (2 + 1)  # two models, two seeds, three prompts


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """An adapter that was trained for two steps, far enough to be seen."""
    recipe = tiny.dreambooth(steps=2, learning_rate=0.5, evaluation_prompts=1, evaluation_seeds=1)
    environment = tiny.lay_out(tmp_path_factory.mktemp("trained") / "job", recipe, base_folder)
    tiny_run(environment)
    return environment.model


def tiny_run(environment: Environment) -> None:
    from entrypoints.train import run_recipe

    run_recipe(environment, StopFlag())


@pytest.fixture
def asked(tmp_path: Path, adapter: Path, base_folder: Path) -> Callable[..., Environment]:
    """Lay out an evaluation of the adapter."""

    def lay_out(prompts: EvaluationPrompts = PROMPTS, **settings: Any) -> Environment:
        usual = {"adapter": "toy", "base_model": "tiny", "resolution": tiny.SIDE, "inference_steps": 2, "seeds": 2}
        recipe: Recipe = Evaluation(**{**usual, "resamples": 200, **settings})
        environment = tiny.lay_out(tmp_path / "evaluation", recipe, base_folder)
        data = environment.root / "input" / "data"
        shutil.rmtree(data / "training")
        (data / ADAPTER_CHANNEL).symlink_to(adapter, target_is_directory=True)
        prompts.write(data / PROMPTS_CHANNEL)
        return environment

    return lay_out


class StopsAfter(StopFlag):
    """A request to end that comes at the Nth look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        self.asked = self.looks < 0
        super().check()


def test_every_figure_lies_in_its_interval_with_the_base_model_beside_it(asked: Callable[..., Environment]) -> None:
    environment = asked()
    evaluate(environment, StopFlag())
    result = EvaluationResult.read(environment.model)
    measured = {(figure.measure, figure.space) for figure in result.figures}
    assert measured >= {(name, "clip") for name in ("subject_fidelity", "prompt_fidelity", "diversity", "drift")}
    assert len({space.name for space in result.spaces}) >= 2
    for figure in result.figures:
        assert figure.base is not None
        for estimate in (figure.adapter, figure.base, figure.difference, figure.ceiling, figure.gap_closed):
            if isinstance(estimate, Estimate):
                assert estimate.no_interval or estimate.low <= estimate.value <= estimate.high
    assert {"DINO", "diversity by LPIPS"} <= {skipped.what for skipped in result.skipped}
    assert all(skipped.why and skipped.how for skipped in result.skipped)

    index = parse_index((environment.model / "samples" / "index.json").read_bytes())
    drawn = [image for image in index.images if image.source != "real"]
    assert len(drawn) == IMAGES
    assert {image.seed for image in drawn} == {1000, 1001}
    assert result.real_pictures == len(index.images) - IMAGES > 1
    assert result.damaged_files(environment.model) == []
    with Image.open(environment.model / "contact_sheet.png") as sheet:
        assert sheet.width > 100
    page = environment.report.read_text()
    assert "subject fidelity" in page
    assert "diversity by LPIPS" in page
    assert 'src="http' not in page
    moved = [figure.adapter.value for figure in result.figures if figure.measure == "drift"]
    assert min(moved) > 0


def test_an_interval_that_cannot_be_estimated_is_named_on_the_page_and_counts_are_words(
    asked: Callable[..., Environment],
) -> None:
    prompts = EvaluationPrompts(prompts=PROMPTS.prompts[:1], unrelated=PROMPTS.unrelated)
    environment = asked(prompts, seeds=1)
    evaluate(environment, StopFlag())
    figures = EvaluationResult.read(environment.model).figures
    assert {figure.adapter.low for figure in figures} == {None}
    assert all("one image" in figure.no_interval for figure in figures)
    page = environment.report.read_text()
    assert page.count("No interval: it rests on one image") == len(figures)
    assert "[no interval]" in page
    assert "1 prompt, and 1 unrelated" in page
    assert "1 seed of each prompt: 1000<" in page


def test_the_adapter_at_no_strength_is_its_base_model(asked: Callable[..., Environment]) -> None:
    environment = asked(weight=0.0)
    evaluate(environment, StopFlag())
    for figure in EvaluationResult.read(environment.model).figures:
        if figure.measure == "drift":
            assert figure.adapter.value == pytest.approx(0, abs=1e-3)
        else:
            assert figure.difference is not None
            assert figure.difference.value == pytest.approx(0, abs=1e-3)


def kept(environment: Environment) -> dict[Path, int]:
    """Return the kept images with the time at which each was written."""
    return {path: path.stat().st_mtime_ns for path in (environment.cache / "images").rglob("*.png")}


def test_an_evaluation_that_was_stopped_draws_only_what_is_missing(
    asked: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entrypoints.models.sampling.images_at_once", lambda width, height, *, gpu: 2)  # noqa: ARG005
    environment = asked()
    with pytest.raises(Stopped):
        evaluate(environment, StopsAfter(7))
    first = kept(environment)
    assert 0 < len(first) < IMAGES
    assert not (environment.model / "evaluation.json").exists()
    cut = min(first)
    cut.write_bytes(cut.read_bytes()[:40])  # as a copy of the checkpoints may be

    evaluate(environment, StopFlag())
    second = kept(environment)
    assert len(second) == IMAGES
    again = {path.parent for path in first if second[path] != first[path]}
    assert again == {cut.parent}
    assert cut.stat().st_size > 40

    complete = EvaluationResult.read(environment.model)
    shutil.rmtree(environment.cache)
    evaluate(environment, StopFlag())
    assert EvaluationResult.read(environment.model) == complete


def test_an_adapter_of_another_base_model_is_refused(asked: Callable[..., Environment], tmp_path: Path) -> None:
    environment = asked()
    other = tiny.write_base_model(tmp_path / "other", prediction_type="epsilon")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    link = environment.root / "input" / "data" / "base_model"
    link.unlink()
    link.symlink_to(other, target_is_directory=True)
    with pytest.raises(TrainingError, match="other weights"):
        evaluate(environment, StopFlag())


CONTROLLED = EvaluationPrompts(
    prompts=(
        EvaluationPrompt("a dog", "toy, a dog", "a dog"),
        EvaluationPrompt("a dog", "toy, a dog", "a dog"),
        EvaluationPrompt("", "toy", ""),
    )
)


@pytest.fixture(scope="module")
def controlnets(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Callable[[tuple[str, ...]], Path]:
    """Return ControlNets that were trained for a few steps, far enough to be seen."""
    trained: dict[tuple[str, ...], Path] = {}

    def of(conditions: tuple[str, ...]) -> Path:
        if conditions not in trained:
            recipe = tiny.controlnet(conditions=conditions, learning_rate=0.3, evaluation_prompts=0, validation_steps=4)
            environment = tiny.lay_out(tmp_path_factory.mktemp("control") / "job", recipe, base_folder)
            tiny_run(environment)
            trained[conditions] = environment.model
        return trained[conditions]

    return of


@pytest.fixture
def controlled(
    asked: Callable[..., Environment], controlnets: Callable[[tuple[str, ...]], Path]
) -> Callable[..., Environment]:
    """Lay out an evaluation of a ControlNet on three pictures."""

    def lay_out(conditions: tuple[str, ...], prompts: EvaluationPrompts = CONTROLLED, **settings: Any) -> Environment:
        environment = asked(prompts, conditions=conditions, **settings)
        data = environment.root / "input" / "data"
        (data / ADAPTER_CHANNEL).unlink()
        (data / ADAPTER_CHANNEL).symlink_to(controlnets(conditions), target_is_directory=True)
        folder = tiny.write_pictures(data / REFERENCE_CHANNEL)
        if "given" in conditions:
            tiny.write_conditions(folder)
            for number, path in enumerate(sorted((folder / "conditions").iterdir())):  # which are alike so far
                with Image.open(path) as condition:
                    condition.rotate(30 * number).save(path)
        return environment

    return lay_out


@pytest.mark.parametrize(
    ("conditions", "rows", "images"),
    [
        (("canny", "blur"), ["canny", "blur", "canny of canny and blur", "blur of canny and blur"], 6),
        (("given",), ["given, by blur"], 3),
    ],
)
def test_a_controlnet_is_measured_on_pictures_that_it_draws_anew(
    controlled: Callable[..., Environment], conditions: tuple[str, ...], rows: list[str], images: int
) -> None:
    environment = controlled(conditions)
    evaluate(environment, StopFlag())
    result = EvaluationResult.read(environment.model)
    assert [row.label for row in result.control] == rows
    for row in result.control:
        for estimate in (row.own, row.base, row.gain, row.shuffled, row.gap, row.ceiling):
            if isinstance(estimate, Estimate):
                assert estimate.low <= estimate.value <= estimate.high
        assert (row.pictures, row.images) == (3, 6)
    assert result.control[0].gain.value != 0
    assert len(kept(environment)) == 3 * 2 * images
    skipped = {one.what for one in result.skipped}
    assert {"subject fidelity", "prompt fidelity", "drift"} <= skipped  # one picture has no caption
    assert all(one.why and one.how for one in result.skipped)
    assert {figure.measure for figure in result.figures} == {"diversity"}

    index = parse_index((environment.model / "samples" / "index.json").read_bytes())
    shown = [image.text for image in index.images if image.source == "condition"]
    assert len(set(shown)) == len(shown) == 3 * len({row.shown for row in result.control})
    assert {image.source for image in index.images} == {"real", "condition", "before", "after"}
    assert result.damaged_files(environment.model) == []
    page = environment.report.read_text()
    assert "Control agreement" in page
    for row in rows:
        assert row in page


def test_a_controlnet_at_no_strength_is_its_base_model(controlled: Callable[..., Environment]) -> None:
    environment = controlled(("canny", "blur"), weight=0.0)
    evaluate(environment, StopFlag())
    for row in EvaluationResult.read(environment.model).control:
        assert row.gain.value == pytest.approx(0, abs=0.02)
        if row.gap is not None:
            assert row.gap.value == 0


def test_an_evaluation_of_a_controlnet_that_was_stopped_draws_only_what_is_missing(
    controlled: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entrypoints.models.sampling.images_at_once", lambda width, height, *, gpu: 2)  # noqa: ARG005
    texts = ("a dog", "a toy", "a red dog")
    different = EvaluationPrompts(prompts=tuple(EvaluationPrompt(text, text, text) for text in texts))
    environment = controlled(("given",), different)
    with pytest.raises(Stopped):
        evaluate(environment, StopsAfter(16))
    first = kept(environment)
    assert 6 < len(first) < 18  # some of those that were shown a map
    evaluate(environment, StopFlag())
    second = kept(environment)
    assert len(second) == 18
    assert all(second[path] == written for path, written in first.items())


def test_a_damaged_controlnet_is_refused(controlled: Callable[..., Environment], tmp_path: Path) -> None:
    environment = controlled(("given",))
    channel = environment.root / "input" / "data" / ADAPTER_CHANNEL
    copy = Path(shutil.copytree(channel, tmp_path / "copy"))
    (copy / "config.json").write_text("{}")
    channel.unlink()
    channel.symlink_to(copy, target_is_directory=True)
    with pytest.raises(TrainingError, match="damaged"):
        evaluate(environment, StopFlag())
