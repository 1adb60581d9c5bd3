"""The grid that defaults are chosen by: its arithmetic, what it keeps, and the page it writes."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from benchmarks.defaults import grid, page
from benchmarks.defaults.__main__ import chosen, run_all
from benchmarks.defaults.figures import (
    RESAMPLES,
    Estimate,
    class_figures_of,
    fidelity_lost,
    figures_of,
    gap_closed,
    held_drift,
    resampled_means,
)
from benchmarks.defaults.grid import BARS, DECLARED, GRID, SEEDS, Trial, is_default, rows_of, trials_of
from benchmarks.defaults.results import ClassLook, Grid, Moment, Result, Workplace
from benchmarks.defaults.subjects import SUBJECTS, TEAL
from benchmarks.defaults.trial import compare, variety
from orchestrator.contract.recipe import recipe_class
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.resources import BUILTIN_MODEL
from pretraining.scenes import COLOURS

CEILING = 0.8
RANDOM = np.random.default_rng(1)


def as_grid(values: np.ndarray) -> Grid:
    return tuple(tuple(float(value) for value in row) for row in values)


def a_result(
    trial: Trial,
    *,
    closed: float = 0.7,
    lost: float = 0.04,
    drifted: tuple[float, ...] = (0.5, 0.7),
) -> Result:
    """A result of which the share that is closed, and the share that is lost, is the same for every image."""
    subject = RANDOM.uniform(0.3, 0.6, (4, 3))
    prompt = RANDOM.uniform(0.2, 0.4, (4, 3))
    tuned = subject + closed * (CEILING - subject)
    look = None
    if trial.recipe == "dreambooth":
        look = ClassLook(variety=0.4, subject=0.5, images=(0.4, 0.6))
    return Result(
        trial=trial,
        ceiling=CEILING,
        before=Moment(subject=as_grid(subject), prompt=as_grid(prompt)),
        after=Moment(subject=as_grid(tuned), prompt=as_grid(prompt * (1 - lost))),
        perfect=Moment(subject=as_grid(subject + 0.9 * (CEILING - subject)), prompt=as_grid(prompt * 0.99)),
        class_before=look,
        class_after=look and ClassLook(variety=0.3, subject=0.6, images=drifted),
        seconds=12,
    )


def a_trial(**fields: object) -> Trial:
    values: dict[str, object] = {"recipe": "dreambooth", "row": "cosine", "settings": {}, "subject": "star", "seed": 0}
    return Trial.model_validate({**values, **fields})


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    hashes = dict.fromkeys(SUBJECTS, "pictures")
    return Workplace(root=tmp_path, base_model=BUILTIN_MODEL, base_model_sha256="0123456789ab", pictures_sha256=hashes)


def test_a_gap_is_closed_from_the_base_model_to_the_ceiling() -> None:
    before = np.array([0.4, 0.4, 0.4])
    closed = gap_closed(before, np.array([0.4, 0.6, 0.8]), CEILING)
    assert closed.tolist() == pytest.approx([0, 0.5, 1])


def test_fidelity_is_lost_relative_to_what_there_was() -> None:
    lost = fidelity_lost(np.array([0.4, 0.4]), np.array([0.36, 0.44]))
    assert lost.tolist() == pytest.approx([0.1, -0.1])


def test_before_and_after_are_resampled_together() -> None:
    found = figures_of([a_result(a_trial(), closed=0.7, lost=0.04)])
    assert found.closed == pytest.approx(Estimate(0.7, 0.7, 0.7))
    assert found.lost == pytest.approx(Estimate(0.04, 0.04, 0.04))


def test_an_interval_is_over_prompts_and_over_seeds() -> None:
    few_prompts = np.repeat([[0.0], [1.0]], 100, axis=1)
    means = resampled_means(as_grid(few_prompts))
    assert len(means) == 1 + RESAMPLES
    assert means[0] == 0.5
    # Two prompts can only be drawn as both, or one of them twice: many seeds make that no surer.
    assert set(means) == {0, 0.5, 1}
    assert np.mean(means[1:] == 0.5) == pytest.approx(0.5, abs=0.05)
    few_seeds = resampled_means(as_grid(few_prompts.T))
    assert np.std(few_seeds) == pytest.approx(np.std(means), rel=0.1)


def test_an_interval_of_independent_images_is_that_of_the_normal_distribution() -> None:
    values = RANDOM.normal(0.5, 0.1, (400, 1))
    spread = resampled_means(as_grid(values))[1:].std()
    assert spread == pytest.approx(values.std() / 20, rel=0.1)


def test_an_interval_is_the_same_every_time() -> None:
    result = a_result(a_trial())
    assert figures_of([result]) == figures_of([result])


def test_the_mean_over_seeds_of_the_training_is_that_of_their_figures() -> None:
    results = [a_result(a_trial(seed=seed), closed=closed) for seed, closed in enumerate((0.6, 0.7, 0.8))]
    assert figures_of(results).closed.value == pytest.approx(0.7)


def test_images_are_compared_with_the_subject_and_each_with_its_own_prompt() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])  # two prompts, two seeds
    real = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = compare(images, real, texts)
    assert found.subject == ((0.5, 0.5), (0.5, 0.5))
    assert found.prompt == ((1, 0), (1, 1))


def test_variety_is_none_among_equal_images_and_all_among_unrelated_ones() -> None:
    assert variety(torch.eye(3)[[0, 0, 0]]) == 0
    assert variety(torch.eye(3)) == 1
    assert variety(torch.eye(3)[[0, 0, 1]]) == pytest.approx(2 / 3)


def test_a_class_drifts_by_what_its_images_came_nearer_to_the_subject() -> None:
    found = class_figures_of([a_result(a_trial())])
    assert found == pytest.approx((0.4, 0.3, 0.1))
    assert class_figures_of([a_result(a_trial(recipe="textual-inversion"))]) is None


def test_a_class_that_is_held_drifts_less_by_what_its_images_differ_and_those_are_resampled_in_pairs() -> None:
    plain = [a_result(a_trial(seed=seed), drifted=(0.5, 0.9)) for seed in (0, 1)]
    held = [a_result(a_trial(seed=seed), drifted=(0.4, 0.8)) for seed in (0, 1)]
    less = held_drift(plain, held)
    assert less == pytest.approx(Estimate(0.1, 0.1, 0.1))  # unpaired images would give an interval of 0.4
    assert held_drift(plain, [a_result(a_trial(), drifted=()), held[1]]) is None


@pytest.mark.parametrize("recipe", sorted(GRID))
def test_no_evaluation_prompt_is_trained_on(recipe: str) -> None:
    trained: set[str] = set()
    for subject in SUBJECTS:
        trial = a_trial(recipe=recipe, subject=subject)
        declared = trial.declaration()
        if isinstance(declared, DreamBooth):
            trained |= {declared.instance_prompt, declared.class_prompt}
        if isinstance(declared, TextualInversion):
            trained |= {template.format(declared.placeholder_token) for template in declared.templates}
        prompts = trial.prompts()
        assert len(prompts) == grid.EVALUATION_PROMPTS
        assert trained.isdisjoint(prompt.after for prompt in prompts)
        assert all(SUBJECTS[subject].noun in prompt.text for prompt in prompts)


@pytest.mark.parametrize("recipe", sorted(GRID))
def test_the_default_is_the_row_that_the_recipe_declares(recipe: str) -> None:
    kind = recipe_class(recipe)
    defaults = [row for row, settings in rows_of(recipe).items() if is_default(recipe, settings)]
    assert len(defaults) == 1
    declared = kind.defaults({}, None)
    for field, value in rows_of(recipe)[defaults[0]].items():
        assert value == declared.get(field, kind.model_fields[field].default)


def test_defaults_outside_the_grid_are_a_row_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workplace: Workplace
) -> None:
    other = {"learning_rate": 3e-3, "steps": 7}
    monkeypatch.setattr(grid, "GRID", {recipe: {"other": other} for recipe in GRID})
    assert rows_of("dreambooth") == {"other": other, DECLARED: {}}
    page.write_page(tmp_path / "page.md", [], workplace)
    text = (tmp_path / "page.md").read_text()
    assert f"**{DECLARED}** (default)" in text
    assert "**other**" not in text


def test_the_page_says_which_row_is_the_default_and_which_seeds_clear_the_bar(
    tmp_path: Path, workplace: Workplace
) -> None:
    bar = BARS["dreambooth"]
    results = []
    for row in rows_of("dreambooth"):
        for trial in trials_of("dreambooth", [row], ["monster"], list(SEEDS)):
            closed = bar.closed + (0.1 if trial.seed == 1 else -0.1)
            results.append(a_result(trial, closed=closed, lost=bar.lost / 2))
    page.write_page(tmp_path / "docs" / "page.md", results, workplace)
    text = (tmp_path / "docs" / "page.md").read_text()
    default = next(row for row, settings in rows_of("dreambooth").items() if is_default("dreambooth", settings))
    line = next(line for line in text.splitlines() if line.startswith(f"| **{default}** (default) | monster"))
    assert "| 55 % / 75 % / 55 % |" in line
    assert "| no / yes / no |" in line
    assert "| 0.400 -> 0.300 | +0.100 | 12 |" in line
    assert text.count("(default) | monster") == 1
    assert "would close and lose: monster 90 % and 1.0 %." in text
    held = text.partition("## What holds the class in place")[2].partition("##")[0]
    assert "| transformer, 250 | monster | - | 0.400 -> 0.300 | +0.100 | - |" in held
    assert "| transformer, 250, class | monster | class pictures | 0.400 -> 0.300 | +0.100 | +0.000 [" in held
    assert "| transformer, 250, output | monster | output preservation |" in held
    assert "star" not in held  # nothing of it is measured
    assert "all layers" not in held  # it has no twin
    assert text.count("\n\n\n") == 0


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_a_perfect_image_shows_the_subject_on_the_background_of_its_prompt(name: str) -> None:
    subject = SUBJECTS[name]
    for recipe in GRID:
        for number, prompt in enumerate(a_trial(recipe=recipe, subject=name).prompts()):
            pixels = np.asarray(subject.on(prompt.text, number))
            assert any(np.all(pixels == TEAL, axis=-1).ravel()), prompt.text
    red = np.asarray(subject.on("a photo of it on a red background", 0))
    assert tuple(red[2, 2]) == COLOURS["red"]
    with pytest.raises(ValueError, match="names no background"):
        subject.on("a photo of it at the beach", 0)


def test_what_a_result_depends_on_is_its_key_and_nothing_else() -> None:
    key = a_trial().key("model", "pictures")
    assert a_trial(row="another name").key("model", "pictures") == key
    assert a_trial(settings={"rank": DreamBooth.model_fields["rank"].default}).key("model", "pictures") == key
    others = {
        a_trial(settings={"rank": 3}).key("model", "pictures"),
        a_trial(seed=1).key("model", "pictures"),
        a_trial(subject="monster").key("model", "pictures"),
        a_trial(recipe="textual-inversion").key("model", "pictures"),
        a_trial().key("another model", "pictures"),
        a_trial().key("model", "other pictures"),
    }
    assert len(others - {key}) == 6


def test_a_damaged_result_is_measured_again(workplace: Workplace) -> None:
    trial = a_trial()
    workplace.keep(a_result(trial))
    assert workplace.find(trial) is not None
    (file,) = (workplace.root / "results").iterdir()
    file.write_text(file.read_text()[:100])
    assert workplace.find(trial) is None


def test_a_row_that_no_recipe_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SystemExit, match=r"no row faster; the rows are .*2 vectors"):
        chosen(["dreambooth", "textual-inversion"], ["2 vectors", "faster"], ["star"], [0])
    assert {trial.recipe for trial in chosen(list(GRID), ["2 vectors"], ["star"], [0])} == {"textual-inversion"}


def test_a_grid_runs_only_what_is_new_and_goes_on_behind_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base_model = tiny.write_base_model(tmp_path / "model")
    workplace = Workplace.prepare(tmp_path / "work", base_model, list(SUBJECTS))
    short = {"steps": 2, "batch_size": 1, "prior_preservation": True, "class_images": 2, "inference_steps": 2}
    kept, new, failing = (
        a_trial(settings=short, subject="star", seed=7),
        a_trial(settings=short, subject="star", seed=8),
        a_trial(settings=short, subject="monster", seed=8),
    )
    before = a_result(kept)
    workplace.keep(before)
    for picture in workplace.pictures(failing).iterdir():
        picture.write_text("no picture")

    assert run_all([kept, failing, new], workplace, processes=2) == 1

    said = capsys.readouterr().out
    assert "3 trials, 2 of them new." in said
    assert "monster, seed 8: failed with status 1; the end of" in said
    assert "star, seed 8: closed" in said
    assert workplace.find(kept) == before
    result = workplace.find(new)
    assert result is not None
    assert np.shape(result.after.prompt) == (grid.EVALUATION_PROMPTS, len(grid.EVALUATION_SEEDS))
    assert result.before.subject != result.after.subject
    assert result.class_before != result.class_after
    assert (workplace.folder(new) / "contact_sheet.png").is_file()
    assert not (workplace.folder(new) / "ml").exists()
    # The pictures were drawn and prepared once; a renewed grid keeps to them.
    assert Workplace.prepare(tmp_path / "work", base_model, ["star"]).find(new) == result
