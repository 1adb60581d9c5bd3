"""A ControlNet: what it is shown, what it trains, and whether it is noticed when conditions are ignored."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from diffusers import ControlNetModel
from PIL import Image

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.conditions.maps import condition_map
from entrypoints.evaluation import contact_sheet as sheets
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import crop, list_images, read_image
from entrypoints.training import obedience_watch as watching
from entrypoints.training.conditions import ConditionPictures
from entrypoints.training.control import ControlObjective
from entrypoints.training.denoising import PromptEncoder, Stream
from entrypoints.training.latents import CENTRE, Cut, latents_of
from entrypoints.training.loop import fit
from entrypoints.training.obedience import Watched, obedience, watched_pictures
from entrypoints.training.run import Run
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.buckets import Size
from orchestrator.contract.figures import CONTROL_FIGURES, CONTROL_MEASURES
from orchestrator.contract.samples import parse_index

FOLLOWED = {measure.name for measure in CONTROL_MEASURES}


def pixels(image: Image.Image) -> torch.Tensor:
    """An image as (3, height, width), from 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_a_condition_is_cut_where_its_picture_is(tmp_path: Path) -> None:
    folder = tiny.write_pictures(tmp_path, 2)
    tiny.write_conditions(folder)
    with Image.open(folder / "conditions" / "1.png") as condition:  # of another size, and the same shape
        condition.resize((80, 64)).save(folder / "conditions" / "1.png")
    images = list_images(folder)
    assert [image.path.name for image in images] == ["0.png", "1.png"]  # conditions are no training images
    sizes = [Size(16, 16)] * 2
    shown = ConditionPictures(tiny.controlnet(conditions=("canny", "given")), images, sizes)
    for cut in (CENTRE, Cut(0.0, 0.5), Cut(1.0, 0.5)):
        picture = crop(read_image(images[1].path), sizes[1], *cut)
        given, computed = shown.pictures_of([1, 1], [cut, cut], ["given", "canny"])
        assert torch.equal(computed, pixels(condition_map("canny", picture)))
        whole = read_image(images[1].condition or Path()).resize(read_image(images[1].path).size, Image.LANCZOS)
        assert torch.equal(given, pixels(crop(whole, sizes[1], *cut)))
    left, right = (shown.pictures_of([1], [Cut(across, 0.5)], ["given"]).mean() for across in (0.0, 1.0))
    assert left > right  # the left half of the condition is white


def test_each_visit_draws_one_of_the_kinds_or_none(tmp_path: Path) -> None:
    images = list_images(tiny.write_pictures(tmp_path, 1))
    recipe = tiny.controlnet(conditions=("canny", "blur", "palette"), condition_dropout=0.25)
    shown = ConditionPictures(recipe, images, [Size(16, 16)])
    kinds = Counter(shown.kinds_of(4000, torch.Generator().manual_seed(0)))
    assert 900 < kinds.pop(None) < 1100
    assert set(kinds) == set(recipe.conditions)
    assert all(900 < count < 1100 for count in kinds.values())
    assert not shown.pictures_of([0], [CENTRE], [None]).any()


def test_conditions_of_a_large_set_are_made_anew_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list_images(tiny.write_pictures(tmp_path, 3))
    sizes = [Size(16, 16)] * 3
    visits: tuple[Any, ...] = ([0, 1, 2], [CENTRE] * 3, ["canny"] * 3)
    kept = ConditionPictures(tiny.controlnet(), images, sizes)
    shown = kept.pictures_of(*visits)
    monkeypatch.setattr("entrypoints.training.conditions.MOST_KEPT", 16 * 16 * 3)
    fresh = ConditionPictures(tiny.controlnet(), images, sizes)
    for _ in range(2):
        assert torch.equal(fresh.pictures_of(*visits), shown)
    assert (len(kept._kept), len(fresh._kept)) == (3, 1)


def objective_of(base: BaseModel, recipe: Any, run: Run) -> tuple[ControlNetTuner, ControlObjective]:
    images = run.training_images()
    latents = latents_of(base, recipe, images)
    conditions = ConditionPictures(recipe, images, latents.sizes)
    stream = Stream("images", latents, lambda indices, _: ["a dog"] * len(indices), conditions=conditions)
    tuner = ControlNetTuner(base, seed=0)
    return tuner, ControlObjective(base, recipe, stream, PromptEncoder(base, frozen=True), tuner.network)


def test_the_base_model_stays_as_it_is_and_a_fresh_controlnet_changes_nothing(family_base: BaseModel, job: Any) -> None:
    base, recipe = family_base, tiny.controlnet()
    run = Run(job(recipe), recipe)
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    tuner, objective = objective_of(base, recipe, run)
    random = torch.Generator().manual_seed(0)
    batch = objective._sample(objective.streams[0], [0, 0], random, slice(None))
    plain = base.predict(batch.noise, batch.times, objective.encoder(batch.prompts))
    assert torch.equal(objective.predicted(batch, batch.noise, batch.times), plain)

    start = {name: parameter.detach().clone() for name, parameter in tuner.parameters.items()}
    fit(run, base, recipe, tuner, objective)
    assert all(torch.equal(value, before[name]) for name, value in base.denoiser.state_dict().items())
    assert not torch.equal(objective.predicted(batch, batch.noise, batch.times), plain)
    moved = [name for name, parameter in tuner.parameters.items() if not torch.equal(parameter, start[name])]
    assert len(moved) > 0.9 * len(start)  # a key's bias has no gradient under softmax


def test_a_condition_reaches_the_prediction(base: BaseModel, job: Any) -> None:
    recipe = tiny.controlnet()
    run = Run(job(recipe), recipe)
    tuner, objective = objective_of(base, recipe, run)
    fit(run, base, recipe, tuner, objective)
    noisy, times = torch.randn(1, base.denoiser.config.in_channels, 16, 16), torch.tensor([500])
    conditions = base.encode_prompts(["a dog"])
    black, white = (
        base.residuals(tuner.network, noisy, times, conditions, torch.full((1, 3, 32, 32), value)).middle
        for value in (0.0, 1.0)
    )
    assert not torch.equal(black, white)


def test_the_loss_is_not_expected_to_fall_at_once(base: BaseModel, job: Any) -> None:
    recipe = tiny.controlnet()
    _, objective = objective_of(base, recipe, Run(job(recipe), recipe))
    probe = objective.probe(4)
    assert probe is not None
    assert not probe.falls


@pytest.mark.parametrize("conditions", [("given",), ("canny", "sketch", "palette")])
def test_it_is_trained_watched_measured_and_published(job: Any, run: Any, conditions: tuple[str, ...]) -> None:
    recipe = tiny.controlnet(conditions=conditions)
    environment = job(recipe)
    events = run(environment)
    measured = [event["measures"] for event in events if event["event"] == "step"]
    assert [set(measures) for measures in measured] == [FOLLOWED] * 4
    manifest = AdapterManifest.read(environment.model)
    assert (manifest.kind, manifest.parts, manifest.trigger) == ("controlnet", (), None)
    assert set(CONTROL_FIGURES) < set(manifest.metrics)
    network = ControlNetModel.from_pretrained(environment.model, use_safetensors=True)
    assert any(bool(parameter.any()) for parameter in network.controlnet_mid_block.parameters())

    drawn = parse_index((environment.samples / "index.json").read_bytes()).images
    assert Counter((image.source, image.step) for image in drawn) == {
        ("after", 0): 3,
        ("after", 2): 3,
        ("after", 4): 3,
        ("condition", None): 3,
    }
    page = environment.report.read_text()
    assert "condition obeyed" in page
    assert "condition agreement" in page
    assert page.count("the condition of: ") == 3 + 2  # of what was watched, and of the evaluation prompts
    with Image.open(environment.model / "contact_sheet.png") as sheet:
        assert sheet.size == contact_sheet_size(prompts=2, blocks=3)


def contact_sheet_size(prompts: int, blocks: int) -> tuple[int, int]:
    """The size of a sheet of one seed, with images before, conditions, and images after as blocks."""
    right = sheets.FIRST_CELL + blocks * sheets.CELL + (blocks - 1) * sheets.GUTTER
    return right + sheets.MARGIN, sheets.FIRST_ROW + prompts * sheets.PITCH + sheets.MARGIN


def test_pictures_without_captions_can_be_trained_on(job: Any, run: Any) -> None:
    environment = job(tiny.controlnet())
    (environment.root / "input" / "data" / "training" / "metadata.jsonl").unlink()
    run(environment)
    index = json.loads((environment.model / "samples" / "index.json").read_text())
    texts = [image["text"] for image in index["images"] if image["source"] == "after"]
    assert len(set(texts)) == len(texts) == 2  # told apart without words
    figures = AdapterManifest.read(environment.model).metrics
    assert "subject_fidelity_after" in figures
    assert "prompt_fidelity_after" not in figures  # there is no text to be faithful to
    assert all(image["prompt"] == "" for image in index["images"] if image["source"] == "after")


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_gap_that_cannot_be_measured_is_left_out_with_a_word_and_is_never_nan(
    job: Any, run: Any, pictures: int
) -> None:
    """One picture has no others; of two, one given map has no other that could be computed."""
    recipe = tiny.controlnet(conditions=("given", "canny"), given_map="canny", obeyed_by=1, evaluation_prompts=1)
    environment = job(recipe)
    for number in range(pictures, 3):
        (environment.root / "input" / "data" / "training" / f"{number}.png").unlink()
    events = run(environment)
    figures = AdapterManifest.read(environment.model).metrics
    assert "condition_agreement_after" in figures
    assert "condition_obeyed_after" not in figures
    followed = [set(event["measures"]) for event in events if event["event"] == "step"]
    assert followed == [{"condition_agreement"} if pictures == 1 else FOLLOWED] * 4
    told = [event["message"] for event in events if event["event"] == "warning"]
    assert any("Condition obeyed is not measured" in message for message in told)
    page = environment.report.read_text()
    assert "Condition obeyed is not measured" in page
    for text in (page, json.dumps(events), (environment.model / "adapter.json").read_text()):
        assert not re.search(r"[\s>:,\[]nan[\s<,}\]]", text, re.IGNORECASE)


def test_an_image_without_its_condition_ends_the_run(job: Any, run: Any) -> None:
    environment = job(tiny.controlnet(conditions=("given",)))
    (environment.root / "input" / "data" / "training" / "conditions" / "1.png").unlink()
    with pytest.raises(TrainingError, match=r"no condition in conditions/: 1\.png"):
        run(environment)


def shapes(tmp_path: Path) -> list[Watched]:
    """Four watched pictures, each with a bright square at another place."""
    for number in range(4):
        picture = Image.new("RGB", (64, 64), "navy")
        picture.paste(
            "yellow", (4 + 32 * (number % 2), 4 + 32 * (number // 2), 28 + 32 * (number % 2), 24 + 32 * (number // 2))
        )
        picture.save(tmp_path / f"{number}.png")
    recipe = tiny.controlnet(resolution=64, conditions=("canny", "blur", "palette", "sketch"))
    return watched_pictures(recipe, list_images(tmp_path), 4)


def test_the_gap_is_that_of_images_that_have_what_their_conditions_show(tmp_path: Path) -> None:
    watched = shapes(tmp_path)
    recipe = tiny.controlnet(resolution=64)
    assert [each.kind for each in watched] == ["canny", "blur", "palette", "sketch"]
    pictures = [each.picture for each in watched]
    obeying = obedience(recipe, watched, pictures)
    assert bool((obeying.agreements > 0.95).all())
    assert bool((obeying.gaps > 0.2).all())
    shuffled = obedience(recipe, watched, pictures[1:] + pictures[:1])
    assert float(shuffled.gaps.mean()) < 0
    two_of_each = [picture for picture in pictures for _ in range(2)]
    assert torch.equal(obedience(recipe, watched, two_of_each).gaps[::2], obeying.gaps)


def test_what_was_measured_goes_on_with_a_resumed_run(base: BaseModel, job: Any) -> None:
    recipe = tiny.controlnet()
    run = Run(job(recipe), recipe)
    (_, before), (_, after) = (objective_of(base, recipe, run) for _ in range(2))
    after.restore(before.state())
    assert (after.measures(), after.obeys) == ({}, False)
    before.followed = dict.fromkeys(FOLLOWED, 0.25)
    before.obeys = True
    after.restore(before.state())
    assert (after.measures(), after.obeys) == (before.followed, True)
    before.followed = {"condition_agreement": 0.5}  # of one picture
    after.restore(before.state())
    assert after.measures() == before.followed


@pytest.mark.parametrize("obeyed_before", [True, False])
def test_a_run_fails_where_conditions_were_never_obeyed(
    base: BaseModel, job: Any, obeyed_before: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """A fresh ControlNet draws what the base model draws."""
    recipe = tiny.controlnet(obeyed_by=1, watched_images=3)
    run = Run(job(recipe), recipe)
    tuner, objective = objective_of(base, recipe, run)
    objective.obeys = obeyed_before
    watch = watching.ObedienceWatch(run, recipe, tuner, objective, run.training_images())
    if obeyed_before:
        watch.look(2)
        assert "warning" not in capfd.readouterr().out
        return
    with pytest.raises(TrainingError, match="conditions are ignored"):
        watch.look(2)


@pytest.mark.parametrize(("step", "is_told"), [(0, False), (1, False), (2, True)])
def test_the_last_look_tells_of_conditions_that_are_still_ignored(
    base: BaseModel, job: Any, step: int, is_told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not the look before the first step, even where it is the only one."""
    recipe = tiny.controlnet(steps=3, validation_steps=2, obeyed_by=3, watched_images=3)
    if step == 0:
        recipe = tiny.controlnet(steps=3, validation_steps=100, obeyed_by=3, watched_images=3)
    run = Run(job(recipe), recipe)
    tuner, objective = objective_of(base, recipe, run)
    watching.ObedienceWatch(run, recipe, tuner, objective, run.training_images()).look(step)
    assert ("Conditions are still ignored" in capfd.readouterr().out) == is_told


def test_a_run_that_ignores_conditions_fails_and_says_what_to_do(
    job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake by which every picture is shown black."""
    own = watching.draw_from_conditions

    def drawn_from_black(base: Any, network: Any, requests: Any, conditions: torch.Tensor, *others: Any) -> Any:
        return own(base, network, requests, 0 * conditions, *others)

    monkeypatch.setattr(watching, "draw_from_conditions", drawn_from_black)
    own_pictures = ConditionPictures.pictures_of
    monkeypatch.setattr(ConditionPictures, "pictures_of", lambda *visits: own_pictures(*visits) * 0)
    with pytest.raises(TrainingError, match=r"conditions are ignored\. After 2 steps images agree") as caught:
        run(job(tiny.controlnet(obeyed_by=2)))
    assert caught.value.kind == "learns-nothing"
    assert "learning_rate" in caught.value.next_step
