"""The benchmark of the watchdog: which runs it makes, that they last as long as they are watched, and what it keeps."""

from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.sabotages import SABOTAGES
from benchmarks.sample_job import picture_recipes, sample_recipe
from benchmarks.watchdog import GOOD_RUNS, Kept, good, main, sabotaged
from benchmarks.watched_runs import Result, Told, Trial, tenth_of
from entrypoints.runtime.stop import StopFlag
from entrypoints.training.watchdog import Watchdog
from orchestrator.contract.events import Step, Warned, emit, line_of

ALARM = "The run learns nothing: no trained weight has changed in 5 steps. Why, and what to do"


def a_result(trial: Trial, *, alarms: tuple[str, ...] = ()) -> Result:
    return Result(trial=trial, steps=26, alarms=alarms, seconds=8.0)


def keep_all(kept: Kept, *, disturbed: int = 0, missed: int = 0) -> None:
    for number, trial in enumerate(good()):
        kept.keep(a_result(trial, alarms=(ALARM,) if number < disturbed else ()))
    for number, trial in enumerate(sabotaged()):
        kept.keep(a_result(trial, alarms=() if number < missed else (ALARM,)))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Benchmarks\n")
    monkeypatch.setattr(report, "PAGE", path)
    return path


def test_good_runs_are_of_all_recipes_each_with_a_seed_of_its_own() -> None:
    runs = good()
    assert Counter(trial.recipe for trial in runs) == dict.fromkeys(
        picture_recipes(), GOOD_RUNS // len(picture_recipes())
    )
    assert len({trial.seed for trial in runs}) == GOOD_RUNS


@pytest.mark.parametrize("name", picture_recipes())
def test_a_good_run_has_the_defaults_of_its_recipe_beside_what_it_draws(name: str) -> None:
    declared = Trial(recipe=name, seed=7).declaration()
    drawn = ("validation_prompts", "validation_steps")
    assert declared.model_dump(exclude=set(drawn)) == sample_recipe(name, seed=7).model_dump(exclude=set(drawn))
    assert declared.draws_meanwhile
    assert declared.validation_steps == tenth_of(declared)


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotaged_run_differs_from_a_good_one_by_its_mistake_alone(name: str) -> None:
    (trial,) = [trial for trial in sabotaged() if trial.sabotage == name]
    undisturbed = Trial(recipe=trial.recipe, seed=trial.seed).declaration()
    changed = SABOTAGES[name].settings
    assert trial.declaration() == undisturbed.model_copy(update=dict(changed))


@pytest.mark.parametrize("name", picture_recipes())
def test_a_run_lasts_until_the_watchdog_has_had_its_last_look(name: str) -> None:
    recipe = sample_recipe(name)
    stop = StopFlag()
    told = Told(stop, tenth_of(recipe))
    step = 0
    with redirect_stdout(told):
        while not stop.asked:
            step += 1
            emit(Step(step=step, of=recipe.steps, loss=1.0, learning_rate=0.1, seconds_per_step=0.1))
    looks = Watchdog({}, None, recipe.steps).looks
    assert len(looks) == 2
    # One step more: the images of the last look's step are drawn before the next.
    assert told.steps == step == max(looks) + 1


def test_warnings_are_alarms_and_plain_text_is_none() -> None:
    told = Told(StopFlag(), last=3)
    told.write("{ no event\n")
    told.write(line_of(Warned(message="conditions are ignored")) + "\n")
    assert told.warnings == ["conditions are ignored"]


def test_a_result_is_kept_for_its_own_run_until_code_changes(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    trial, other = good()[:2]
    kept.keep(a_result(trial))
    assert Kept(tmp_path).find(trial) == a_result(trial)
    assert kept.find(other) is None
    changed = Kept(tmp_path)
    changed.code = "other code"
    assert changed.find(trial) is None
    kept.file(trial).write_text("{")
    assert kept.find(trial) is None


def test_an_interrupted_measurement_goes_on_with_what_is_kept_and_writes_the_page_when_all_is(
    tmp_path: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    keep_all(Kept(work))
    last = Kept(work).file(good()[-1])
    result = last.read_bytes()
    last.unlink()
    main(["--work", str(work), "--good", str(GOOD_RUNS - 1)])  # which asks for nothing that is missing
    assert "112 of all 113 runs are made" in capsys.readouterr().out
    assert "Watchdog" not in page.read_text()
    last.write_bytes(result)
    main(["--work", str(work), "--good", "0", "--sabotages"])
    text = page.read_text()
    assert f"{len(SABOTAGES)} of {len(SABOTAGES)} sabotaged runs were caught" in text
    assert "0 of 100 good runs were disturbed" in text
    assert "| zero rate | dreambooth | 26 | The run learns nothing: no trained weight has changed in 5 steps |" in text
    assert f"| controlnet | 25 | {tenth_of(sample_recipe('controlnet'))} | 0 | 8 |" in text


@pytest.mark.parametrize(("disturbed", "missed"), [(1, 0), (0, 1)])
def test_a_disturbed_good_run_and_a_missed_sabotage_fail_and_stand_on_the_page(
    disturbed: int, missed: int, tmp_path: Path, page: Path
) -> None:
    work = tmp_path / "work"
    keep_all(Kept(work), disturbed=disturbed, missed=missed)
    with pytest.raises(SystemExit) as ended:
        main(["--work", str(work)])
    assert ended.value.code == 1
    text = page.read_text()
    assert f"{disturbed} of 100 good runs were disturbed" in text
    assert f"{len(SABOTAGES) - missed} of {len(SABOTAGES)} sabotaged runs were caught" in text
    assert text.count("- controlnet, seed") == disturbed
    assert text.count("| nothing |") == missed
