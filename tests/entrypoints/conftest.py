"""Fixtures of the training tests: one tiny base model a worker, and jobs run in this process."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tiny.py
sys.path.insert(0, str(Path(__file__).parents[2]))  # entrypoints: reached by path, never installed

import tiny

from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.stop import StopFlag
from entrypoints.train import run_recipe
from orchestrator.contract.environment import Environment
from orchestrator.contract.recipe import Recipe


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bit-equality needs a fixed number of threads, and several test processes share the machine."""
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny base model; tests only read it."""
    return tiny.write_base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny SDXL; tests only read it."""
    return tiny.write_sdxl(tmp_path_factory.mktemp("sdxl") / "model")


@pytest.fixture(params=["sd", "sdxl"])
def family_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of a tiny model, for each family."""
    folder: Path = request.getfixturevalue("base_folder" if request.param == "sd" else "sdxl_folder")
    return folder


@pytest.fixture
def family_base(family_folder: Path) -> BaseModel:
    """A tiny model to change, for each family."""
    return load_base_model(family_folder, "tiny", None, torch.device("cpu"))


@pytest.fixture
def base(base_folder: Path) -> BaseModel:
    """A copy of the tiny base model to change."""
    return load_base_model(base_folder, "tiny", None, torch.device("cpu"))


@pytest.fixture
def job(tmp_path: Path, base_folder: Path) -> Callable[..., Environment]:
    """Lay out a job for a recipe."""

    def lay_out(recipe: Recipe, name: str = "job", base_model: Path | None = base_folder) -> Environment:
        return tiny.lay_out(tmp_path / name, recipe, base_model)

    return lay_out


Events = list[dict[str, Any]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[[Environment], Events]:
    """Run a job in this process and return its events without their times; its errors are raised."""

    def run_job(environment: Environment) -> Events:
        capfd.readouterr()
        run_recipe(environment, StopFlag())
        events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        for event in events:
            del event["at"]
        return events

    return run_job
