"""An objective whose state follows from weights that have moved on, and cannot be drawn again, is resumed whole."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from entrypoints.adapters.lora import Lora
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.ranks import Ranks
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.training import checkpoint
from entrypoints.training.loop import fit
from entrypoints.training.run import Run
from orchestrator.contract.environment import Environment


class Pursuit:
    """Weights that pursue a slow average of themselves: the average follows from all weights there ever were."""

    def __init__(self, parameters: Mapping[str, Tensor], stop: StopFlag, stop_at: int | None) -> None:
        self.parameters = parameters
        self.average = {name: torch.full_like(parameter, 0.1) for name, parameter in parameters.items()}
        self.stop = stop
        self.stop_at = stop_at

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        assert ranks.is_first
        distances = []
        for name, parameter in self.parameters.items():
            self.average[name] = 0.9 * self.average[name] + 0.1 * parameter.detach()
            distances.append((parameter - 2 * self.average[name]).square().sum())
        if step + 1 == self.stop_at:
            self.stop.asked = True
        yield torch.stack(distances).sum()

    def state(self) -> Mapping[str, Tensor]:
        return self.average

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.average = dict(state)

    def measures(self) -> Mapping[str, float]:
        return {"average": float(next(iter(self.average.values())).mean())}


RECIPE = tiny.dreambooth(steps=8)


def train(environment: Environment, base_folder: Path, stop_at: int | None) -> Run:
    recipe, run = RECIPE, Run(environment, RECIPE)
    base = load_base_model(base_folder, "tiny", None, run.device)
    tuner = Lora(base, rank=2, alpha=2, text_encoder=False, seed=0)
    fit(run, base, recipe, tuner, Pursuit(tuner.parameters, run.stop, stop_at))
    return run


def tensors(run: Run) -> dict[str, Tensor]:
    folder = checkpoint.folder_of(run.environment.checkpoints, 8)
    return dict(checkpoint.read_tensors(folder, torch.device("cpu")))


def test_a_resumed_run_has_the_state_of_one_that_was_never_cut_off(job: Any, base_folder: Path) -> None:
    whole = train(job(RECIPE, "whole"), base_folder, stop_at=None)
    cut = job(RECIPE, "cut")
    with pytest.raises(Stopped):
        train(cut, base_folder, stop_at=5)
    resumed = train(cut, base_folder, stop_at=None)
    expected, found = tensors(whole), tensors(resumed)
    assert any(name.startswith("objective/") for name in expected)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_the_figures_of_an_objective_are_in_the_log(job: Any, base_folder: Path, capfd: Any) -> None:
    train(job(RECIPE), base_folder, stop_at=None)
    steps = [line for line in capfd.readouterr().out.splitlines() if '"event":"step"' in line]
    assert len(steps) == 8
    assert all('"measures":{"average":' in line for line in steps)


def test_no_rank_goes_on_before_the_last_checkpoint_is_written(job: Any, base_folder: Path) -> None:
    seen: list[list[str]] = []

    class Meeting(Ranks):
        def barrier(self) -> None:
            seen.append([path.name for path in checkpoint.newest_first(environment.checkpoints)])

    environment = job(RECIPE, "meeting")
    run = Run(environment, RECIPE, ranks=Meeting())
    base = load_base_model(base_folder, "tiny", None, run.device)
    tuner = Lora(base, rank=2, alpha=2, text_encoder=False, seed=0)
    fit(run, base, RECIPE, tuner, Pursuit(tuner.parameters, run.stop, None))
    assert seen[-1][0] == "step-00000008"
