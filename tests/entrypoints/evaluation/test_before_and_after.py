"""What an adapter is judged by: figures, images before and after, and the sheet made of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from entrypoints.evaluation import metrics
from entrypoints.evaluation.contact_sheet import FIRST_CELL, FIRST_ROW, GAP, GUTTER, REAL_TOP, contact_sheet
from entrypoints.evaluation.samples import IndexedImage, write_samples
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import CLIP_DEVIATION, CLIP_MEAN
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.environment import SCORER_CHANNEL, Environment
from orchestrator.contract.prompts import contexts
from orchestrator.contract.samples import CELL, INDEX_FILE, SampleImage, SampleIndex, Source, parse_index
from orchestrator.contract.scorer import scorer_sha256


def unit(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def test_figures_by_hand() -> None:
    drawn, real = unit([1.0, 0], [1, 1]), unit([1.0, 0], [0, 1])
    assert metrics.subject_fidelity(drawn, real) == pytest.approx((1 + 0 + 0.5**0.5 * 2) / 4)
    assert metrics.subject_fidelity_ceiling(unit([1.0, 0], [0, 1], [1, 1])) == pytest.approx((0 + 2 * 0.5**0.5) / 3)
    assert metrics.subject_fidelity_ceiling(real[:1]) == 1
    assert metrics.prompt_fidelity(drawn, real) == pytest.approx((1 + 0.5**0.5) / 2)


def test_the_scorer_sees_what_clip_sees(base: BaseModel) -> None:
    scorer = metrics.clip_scorer(base)
    assert scorer
    noise = [Image.effect_noise((tiny.SIDE, tiny.SIDE), 80).convert("RGB") for _ in range(2)]
    vectors = scorer.embed_images([*noise, noise[0].resize((64, 64), Image.Resampling.NEAREST)])
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
    texts = scorer.embed_texts(["a dog", "a dog", "a red toy"])
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_without_a_clip_there_is_a_sheet_and_a_warning(job: Any, run: Any, tmp_path: Any) -> None:
    environment = job(tiny.textual_inversion(), base_model=tiny.write_base_model(tmp_path / "bare", clip=False))
    events = run(environment)
    assert [event["message"] for event in events if event["event"] == "warning"]
    assert not [event for event in events if event["event"] == "metrics"]
    assert (environment.model / "contact_sheet.png").is_file()
    assert (environment.model / "samples" / "index.json").is_file()


@pytest.mark.parametrize(
    ("prompts", "asked", "text"),
    [
        ({"instance_prompt": "a pair of sks shoes"}, "a photo of sks shoes", "a photo of shoes"),
        ({"instance_prompt": "a photo of a sks dog"}, "a photo of a sks dog", "a photo of a dog"),
        (
            {"instance_prompt": "a photo of sks monster", "class_prompt": "a photo of a monster"},
            "a photo of a sks monster",
            "a photo of a monster",
        ),
        ({"instance_prompt": "three sks cats"}, "a photo of sks cats", "a photo of cats"),
    ],
)
def test_evaluation_prompts_have_the_article_of_the_class_prompt_and_no_other(
    prompts: dict[str, str], asked: str, text: str
) -> None:
    (judged,) = tiny.dreambooth(**prompts).judged_by
    assert judged.after.startswith(f"{asked} ")
    assert judged.text.startswith(f"{text} ")


@pytest.fixture
def scorer(base_folder: Path, tmp_path: Path) -> Path:
    """The CLIP of the tiny model as a folder of its own."""
    folder = shutil.copytree(base_folder / "clip", tmp_path / "scorer")
    for file in (base_folder / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    colours = {"image_mean": CLIP_MEAN, "image_std": CLIP_DEVIATION}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return folder


def with_scorer(environment: Environment, scorer: Path) -> Environment:
    (environment.root / "input" / "data" / SCORER_CHANNEL).symlink_to(scorer, target_is_directory=True)
    return environment


def test_a_scorer_measures_for_a_base_model_without_a_clip(job: Any, run: Any, scorer: Path, tmp_path: Path) -> None:
    bare = tiny.write_base_model(tmp_path / "bare", clip=False)  # the same model otherwise
    recipe = tiny.dreambooth()
    own = job(recipe, "own")
    measured = with_scorer(job(recipe, "measured", base_model=bare), scorer)
    for environment in (own, measured):
        run(environment)
    own_manifest, manifest = AdapterManifest.read(own.model), AdapterManifest.read(measured.model)
    assert manifest.metrics == own_manifest.metrics != {}
    assert manifest.scorer_sha256 == scorer_sha256(scorer)
    assert own_manifest.scorer_sha256 not in (None, manifest.scorer_sha256)


def test_a_scorer_goes_before_the_clip_of_the_base_model(job: Any, run: Any, scorer: Path) -> None:
    file = scorer / "model.safetensors"
    weights = load_file(file)
    projection = weights["visual_projection.weight"]
    save_file({**weights, "visual_projection.weight": projection.flip(0)}, file, {"format": "pt"})
    own, measured = job(tiny.dreambooth(), "own"), with_scorer(job(tiny.dreambooth(), "measured"), scorer)
    for environment in (own, measured):
        run(environment)
    assert AdapterManifest.read(own.model).metrics != AdapterManifest.read(measured.model).metrics


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "visual_projection.weight"])
def test_a_scorer_that_cannot_be_loaded_is_found_before_the_first_step(
    job: Any, run: Any, scorer: Path, missing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if missing.endswith("json"):
        (scorer / missing).unlink()
    else:  # a library would make up what a file lacks
        weights = load_file(scorer / "model.safetensors")
        del weights[missing]
        save_file(weights, scorer / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError, match=missing) as caught:
        run(with_scorer(job(tiny.dreambooth()), scorer))
    assert caught.value.kind == "scorer"
    assert "--scorer" in caught.value.next_step
    assert '"step"' not in capfd.readouterr().out


def test_clip_is_never_asked_about_the_subjects_own_word() -> None:
    of_dreambooth = tiny.dreambooth(evaluation_prompts=8).judged_by
    assert all("sks dog" in prompt.before == prompt.after for prompt in of_dreambooth)
    assert not any("sks" in prompt.text for prompt in of_dreambooth)
    assert all("dog" in prompt.text for prompt in of_dreambooth)
    (aside,) = tiny.dreambooth(instance_prompt="a photo of sks, a dog").judged_by
    assert ("sks dog" in aside.after, "sks" in aside.text, "of a dog" in aside.text) == (True, False, True)
    of_inversion = tiny.textual_inversion(evaluation_prompts=8).judged_by
    assert all("<my-dog>" in prompt.after for prompt in of_inversion)
    assert not any("<" in prompt.text + prompt.before for prompt in of_inversion)


@pytest.mark.parametrize("builtin", [True, False])
@pytest.mark.parametrize("style", [False, True])
def test_there_are_enough_contexts_each_of_its_own(builtin: bool, style: bool) -> None:
    found = contexts(builtin=builtin, style=style)
    assert len(set(found)) == 16
    assert all("{}" in context for context in found)


RunJob = Callable[[Environment], list[dict[str, Any]]]


def index_of(folder: Path) -> SampleIndex:
    return parse_index((folder / INDEX_FILE).read_bytes())


def sample(colour: tuple[int, int, int], source: Source, text: str = "", file: str = "one.png") -> IndexedImage:
    about = SampleImage(file=file, source=source, prompt=f"sks {text}", text=text)
    return IndexedImage(Image.new("RGB", (64, 64), colour), about)


def test_a_sheet_shows_every_image_in_its_cell() -> None:
    real = sample((90, 60, 30), "real")
    before = [sample((number, 200, 0), "before", text) for number, text in enumerate(["on red"] * 2 + ["on blue"] * 2)]
    after = [sample((number, 0, 200), "after", text) for number, text in enumerate(["on red"] * 2 + ["on blue"] * 2)]
    sheet = contact_sheet("a title", [real, *before, *after])
    pitch = CELL + GAP
    after_left = FIRST_CELL + 2 * pitch - GAP + GUTTER
    corners = [(FIRST_CELL, REAL_TOP)]
    for left in (FIRST_CELL, after_left):
        for top in (FIRST_ROW, FIRST_ROW + pitch):
            corners += [(left, top), (left + pitch, top)]
    shown = [sheet.crop((left, top, left + CELL, top + CELL)).getcolors() for left, top in corners]
    assert shown == [[(CELL**2, one.image.getpixel((0, 0)))] for one in [real, *before, *after]]


def test_an_adapter_brings_its_images_and_says_what_they_show(job: Any, run: RunJob) -> None:
    environment = job(tiny.textual_inversion(evaluation_prompts=2, evaluation_seeds=3, seed=5))
    run(environment)
    folder = environment.model / "samples"
    images = index_of(folder).images
    prompts = tiny.textual_inversion(evaluation_prompts=2).judged_by
    for source, asked in (("before", [one.before for one in prompts]), ("after", [one.after for one in prompts])):
        drawn = [image for image in images if image.source == source]
        assert [image.prompt for image in drawn] == [prompt for prompt in asked for _ in range(3)]
        assert [image.text for image in drawn] == [prompt.text for prompt in prompts for _ in range(3)]
        assert [image.seed for image in drawn] == [5, 6, 7] * 2
    assert {image.step for image in images} == {None}
    assert {path.name for path in folder.iterdir()} == {INDEX_FILE, *(image.file for image in images)}
    sizes = {Image.open(folder / image.file).size for image in images}
    assert sizes == {(tiny.SIDE, tiny.SIDE)}


def test_the_training_pictures_are_among_the_samples(job: Any, run: RunJob) -> None:
    environment = job(tiny.dreambooth())
    run(environment)
    folder = environment.model / "samples"
    real = [image for image in index_of(folder).images if image.source == "real"]
    assert len(real) == 3
    square = environment.root / "input" / "data" / "training" / "0.png"
    assert Image.open(folder / real[0].file).tobytes() == Image.open(square).tobytes()


def test_without_evaluation_prompts_there_are_no_images(job: Any, run: RunJob) -> None:
    environment = job(tiny.dreambooth(evaluation_prompts=0))
    run(environment)
    assert {path.name for path in environment.model.iterdir()} == {"adapter.json", "pytorch_lora_weights.safetensors"}


def test_samples_are_added_to_the_index_and_replace_those_of_their_name(tmp_path: Path) -> None:
    write_samples(tmp_path, [sample((1, 1, 1), "after", "a", "a.png"), sample((2, 2, 2), "after", "b", "b.png")])
    write_samples(tmp_path, [sample((3, 3, 3), "after", "new a", "a.png"), sample((4, 4, 4), "after", "c", "c.png")])
    assert [(image.file, image.text) for image in index_of(tmp_path).images] == [
        ("a.png", "new a"),
        ("b.png", "b"),
        ("c.png", "c"),
    ]
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (3, 3, 3)


def test_a_damaged_index_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text("{")
    write_samples(tmp_path, [sample((1, 1, 1), "after", "a", "a.png")])
    assert [image.file for image in index_of(tmp_path).images] == ["a.png"]


def test_the_tuned_model_does_not_leak_into_the_images_before(job: Any, run: RunJob) -> None:
    """A wild adapter and a mild one have the same images before, and others after."""
    drawn: dict[str, list[bytes]] = {"before": [], "after": []}
    for name, rate in (("mild", 1e-6), ("wild", 0.5)):
        environment = job(tiny.dreambooth(learning_rate=rate, tuner="full"), name)
        run(environment)
        for source, images in drawn.items():
            images.append((environment.model / "samples" / f"{source}-00-00.png").read_bytes())
    assert drawn["before"][0] == drawn["before"][1]
    assert drawn["after"][0] != drawn["after"][1]
