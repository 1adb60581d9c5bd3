"""What a person asks of the evaluation of a ControlNet, and can get wrong: nothing is started then."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from orchestrator import datasets
from orchestrator.cli.evaluation_results import print_evaluation
from orchestrator.contract.adapter import AdapterManifest, BaseModelReference
from orchestrator.contract.evaluation import PROMPTS_CHANNEL, REFERENCE_CHANNEL, EvaluationPrompts
from orchestrator.contract.evaluation_result import (
    ControlAgreement,
    DrawnWith,
    Estimate,
    EvaluatedAdapter,
    EvaluationResult,
)
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.planning.held_out import Asked, HeldOut, prepare_held_out
from orchestrator.requests import channel_uris
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import Settings
from orchestrator.storage.tree import tree_of_folder
from tests.cli.run_here import Run, run_here

FINGERPRINT = files_sha256(BUILTIN_MODEL, weight_files(BUILTIN_MODEL))
SIDE = 64


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    assert settings.home
    return run_here(monkeypatch, capsys)


def manifest_of(config: dict[str, Any], dataset: str = "d") -> AdapterManifest:
    reference = BaseModelReference(id="builtin", fingerprint=FINGERPRINT, family="sd")
    return AdapterManifest(
        kind="controlnet",
        recipe="controlnet",
        config=config,
        base_model=reference,
        dataset_sha256=dataset,
        bundle_sha256="b",
        libraries={},
    )


def config_of(*conditions: str, **settings: Any) -> dict[str, Any]:
    recipe = ControlNet(conditions=conditions, resolution=SIDE, **settings)
    return {**recipe.model_dump(mode="json"), "base_model": "builtin"}


@pytest.fixture
def make(settings: Settings) -> Callable[..., Path]:
    """Write a ControlNet whose weights nobody loads."""

    def make(name: str, *conditions: str, **changed: Any) -> Path:
        folder = settings.adapters / name
        folder.mkdir(parents=True)
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
        manifest_of({**config_of(*(conditions or ("canny",))), **changed}).write(folder)
        return folder

    return make


def pictures(folder: Path, count: int = 3, *, captioned: bool = True, conditions: Sequence[int] = ()) -> Path:
    """Write pictures of squares, and condition pictures of some of them."""
    folder.mkdir(parents=True)
    for number in range(count):
        picture = Image.new("RGB", (SIDE + 8, SIDE), (40 * number % 256, 90, 20 + 70 * number % 230))
        left = 4 + 13 * number % 40
        ImageDraw.Draw(picture).rectangle((left, 8, left + 12, 30 + number % 20), fill=(250, 250 - 9 * number % 250, 0))
        picture.save(folder / f"{number:02}.png")
        if captioned:
            (folder / f"{number:02}.txt").write_text(f"square {number}")
        if number in conditions:
            (folder / "conditions").mkdir(exist_ok=True)
            picture.convert("L").save(folder / "conditions" / f"{number:02}.png")
    return folder


def test_a_plan_says_how_many_images_are_drawn_in_how_many_ways(run: Run, make: Any, tmp_path: Path) -> None:
    make("union", "canny", "blur")
    words = ("evaluate", "union", "--reference", str(pictures(tmp_path / "new")), "--seeds", "2", "--dry-run")
    said = run(*words)
    assert said.code == 0, said
    assert "3 prompts, x 2 seeds x 6 ways" in said.output
    assert "36 images" in said.output
    request = json.loads(run(*words, "--json").output)
    assert {"adapter", "prompts", "reference", "base_model", "code"} == set(channel_uris(request))
    assert json.loads(request["HyperParameters"]["conditions"]) == ["canny", "blur"]
    assert json.loads(request["HyperParameters"]["images"]) == 36


Lay = Callable[[Path], list[str]]


def named(count: int, **options: Any) -> Lay:
    return lambda folder: ["--reference", str(pictures(folder / "new", count, **options))]


@pytest.mark.parametrize(
    ("adapter", "lay", "told"),
    [
        ({}, lambda folder: [], ("pictures that training did not use", "--reference DIR")),  # noqa: ARG005
        ({}, named(1), ("one picture, and no other whose map", "put at least 2 there")),
        ({"conditions": ["given"]}, named(3), ("there are none in", "under the picture's own name")),
        ({"conditions": ["canny", "given"]}, named(3, conditions=(0, 2)), ("01.png: has no condition", "then submit")),
        ({"conditions": ["openpose"]}, named(3), ("openpose maps, which a network computes", "weights=FOLDER")),
        ({"conditions": ["unheard of"]}, named(3), ("cannot read the settings", "upgrade orchestrator")),
        ({}, lambda folder: [*named(3)(folder), "--weight", "3"], ("from 0 to 2", "--weight")),
        ({}, lambda folder: [*named(3)(folder), "--weight", "-1"], ("from 0 to 2", "--weight")),
        ({}, lambda folder: [*named(3)(folder), "--seeds", "0"], ("--seeds", "evaluate --help")),
        ({}, lambda folder: [*named(3)(folder), "--prompts", "none.txt"], ("cannot be read", "one prompt a line")),
    ],
)
def test_what_a_controlnet_cannot_be_measured_on_is_said_with_the_next_step(
    run: Run,
    make: Any,
    settings: Settings,
    tmp_path: Path,
    adapter: dict[str, Any],
    lay: Lay,
    told: Sequence[str],
) -> None:
    make("edges", **adapter)
    said = run("evaluate", "edges", *lay(tmp_path))
    assert said.code != 0
    for words in told:
        assert words in said.errors
    assert said.errors.count("Error:") == 1
    assert "Traceback" not in said.errors
    assert not settings.jobs.exists()
    assert not (settings.home / "store").exists()


def held_out(folder: Path, destination: Path, *conditions: str, **more: Any) -> HeldOut:
    """Prepare a folder for a ControlNet with a trigger word."""
    config = config_of(*(conditions or ("canny",)), trigger_word="sketchy")
    recipe = ControlNet.model_validate(config)
    prompts = more.pop("prompts", [])
    return prepare_held_out(Asked("edges", recipe, manifest_of(config, **more), folder, prompts), SIDE, destination)


def test_captions_are_the_prompts_and_those_that_are_written_take_their_place(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "new")
    found = held_out(folder, tmp_path / "captions")
    assert [prompt.text for prompt in found.prompts.prompts] == ["square 0", "square 1", "square 2"]
    assert found.prompts.prompts[1].before == "square 1"
    assert found.prompts.prompts[1].after == "sketchy, square 1"
    recipe = ControlNet(trigger_word="sketchy")
    written = [recipe.judged_by_text(text) for text in ("a boat", "a hat")]
    found = held_out(folder, tmp_path / "written", prompts=written)
    assert [prompt.text for prompt in found.prompts.prompts] == ["a boat", "a hat", "a boat"]


def test_pictures_without_captions_are_drawn_without_words_with_a_warning(tmp_path: Path) -> None:
    found = held_out(pictures(tmp_path / "new", captioned=False), tmp_path / "out")
    assert [prompt.before for prompt in found.prompts.prompts] == [""] * 3
    assert any("--prompts FILE" in warning.fix for warning in found.dataset.warnings)


def test_of_many_pictures_some_from_all_over_are_drawn_with_their_own_maps_and_captions(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "new", 40, conditions=range(40))
    found = held_out(folder, tmp_path / "out", "canny", "given")
    texts = [prompt.text for prompt in found.prompts.prompts]
    assert len(texts) == 21  # three rows each on a sheet of 64
    assert (texts[0], texts[1], texts[-1]) == ("square 0", "square 1", "square 38")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert not list((tmp_path / "out").glob("*.jsonl"))  # the captions are with the prompts
    assert files == [f"{int(text.split()[1]) + 1:05}.png" for text in texts]
    assert sorted(path.name for path in (tmp_path / "out" / "conditions").iterdir()) == files
    assert any("21 of its 40 pictures" in warning.what for warning in found.dataset.warnings)


def test_pictures_that_were_trained_on_are_named_as_such(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "new")
    datasets.prepare(folder, tmp_path / "trained", resolution=SIDE)
    sha256 = tree_of_folder("data", tmp_path / "trained").sha256
    found = held_out(folder, tmp_path / "same", dataset=sha256)
    assert any("trained on" in warning.what for warning in found.dataset.warnings)
    assert found.prompts.are_captions
    (folder / "02.txt").write_text("another caption")
    found = held_out(folder, tmp_path / "other", dataset=sha256)
    assert not any("trained on" in warning.what for warning in found.dataset.warnings)
    assert not found.prompts.are_captions


def test_condition_pictures_that_nobody_shows_are_named(tmp_path: Path) -> None:
    found = held_out(pictures(tmp_path / "new", conditions=(0, 1, 2)), tmp_path / "out")
    (told,) = [warning for warning in found.dataset.warnings if "conditions" in warning.where]
    assert "canny maps, which are computed" in told.what
    assert not (tmp_path / "out" / "conditions").exists()


def test_few_pictures_are_measured_with_a_warning(tmp_path: Path) -> None:
    few = held_out(pictures(tmp_path / "few", 4), tmp_path / "out")
    assert any("so few" in warning.what for warning in few.dataset.warnings)
    enough = held_out(pictures(tmp_path / "enough", 5), tmp_path / "out2")
    assert not any("so few" in warning.what for warning in enough.dataset.warnings)


def test_an_adapter_whose_settings_are_those_of_another_kind_is_refused(
    run: Run, make: Any, settings: Settings, tmp_path: Path
) -> None:
    folder = make("edges")
    AdapterManifest.read(folder).model_copy(update={"kind": "lora"}).write(folder)
    said = run("evaluate", "edges", "--reference", str(pictures(tmp_path / "new")))
    assert (said.code, "cannot read the settings" in said.errors) == (4, True), said
    assert not settings.jobs.exists()


def test_a_secret_in_a_caption_does_not_go_to_an_account(run: Run, make: Any, tmp_path: Path) -> None:
    make("edges")
    folder = pictures(tmp_path / "new")
    caption = "a square with AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    (folder / "01.txt").write_text(caption)
    said = run("evaluate", "edges", "--reference", str(folder), "--target", "sagemaker", "--dry-run")
    assert (said.code, "secret" in said.errors) == (2, True), said
    assert "wJalr" not in said.errors


def test_other_maps_or_pictures_make_another_job(run: Run, make: Any, tmp_path: Path) -> None:
    make("edges")
    folder = pictures(tmp_path / "new", conditions=(0, 1, 2))
    make("given", "given")
    names = set()
    for change in (None, "01.png", "conditions/01.png"):
        if change is not None:
            shutil.copyfile(folder / change.replace("01", "02"), folder / change)
        words = ("evaluate", "given", "--reference", str(folder), "--dry-run", "--json")
        request = json.loads(run(*words).output)
        assert {REFERENCE_CHANNEL, PROMPTS_CHANNEL} <= set(channel_uris(request))
        names.add(request["TrainingJobName"])
    assert len(names) == 3


def agreement(**changed: Any) -> ControlAgreement:
    def of(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.1, high=value + 0.1)

    values: dict[str, Any] = {"shown": ("canny",), "kind": "canny", "measured_by": "canny", "pictures": 6, "images": 12}
    values |= {"own": of(0.7), "base": of(0.3), "gain": of(0.4), "shuffled": of(0.2), "gap": of(0.5)}
    values |= {"ceiling": of(0.9), "share_of_ceiling": of(0.78)}
    return ControlAgreement(**{**values, **changed})


def test_agreement_is_printed_with_its_intervals_a_row_for_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    both = agreement(shown=("canny", "given"), kind="given", measured_by="blur", shuffled=None, gap=None)
    result = EvaluationResult(
        adapter=EvaluatedAdapter(name="edges", sha256="0" * 64, recipe="controlnet", kind="controlnet"),
        base_model=BaseModelReference(id="builtin", fingerprint="f", family="sd"),
        prompts=(),
        seeds=(1000,),
        drawn_with=DrawnWith(steps=1, guidance=1, size=64),
        control=(agreement(), both),
        bundle_sha256="b",
        libraries={},
    )
    print_evaluation(result)
    output = capsys.readouterr().out
    first = next(line for line in output.splitlines() if line.startswith("canny "))
    for cell in ("0.300 [0.200, 0.400]", "0.700 [0.600, 0.800]", "0.500 [0.400, 0.600]", "0.78 [0.68, 0.88]"):
        assert cell in first
    second = next(line for line in output.splitlines() if line.startswith("given, by blur of canny and given"))
    assert " - " in second
    assert "maps of 6 pictures" in output


def test_images_are_counted_by_the_ways_to_show_maps() -> None:
    prompts = EvaluationPrompts(prompts=(("a", "b", "c"),) * 5)  # type: ignore[arg-type]
    assert prompts.images(2) == 20
    assert prompts.images(2, ("canny",)) == 30
    assert prompts.images(2, ("canny", "blur")) == 60
