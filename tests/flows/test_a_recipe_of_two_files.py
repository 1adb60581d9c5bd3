"""A recipe without photos and without a trigger is two files: everything else finds it by its name.

It is concept ablation in small (arXiv 2303.13516): a LoRA with which the model draws for one prompt what it drew for
another. It learns from the model alone.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.contract.adapter import AdapterManifest

ROOT = Path(orchestrator.__file__).parents[1]
DECLARATION = '''
"""Concept ablation: forget a concept by drawing another in its place."""

from typing import ClassVar

from orchestrator.contract.datasets import NOTHING, DatasetKind
from orchestrator.contract.footprint import KEPT_LORA, Footprint, ModelSize
from orchestrator.contract.mixins import LowRank, Optimised


class Ablation(LowRank, Optimised):
    """Train a LoRA with which the model draws for one prompt what it drew for another."""

    summary: ClassVar[str] = "forget a concept"
    dataset: ClassVar[DatasetKind] = NOTHING

    concept: str = "a photo of a red circle"
    """What is forgotten."""
    anchor: str = "a photo of a blue star"
    """What is drawn in its place."""

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it trains."""
        trained = self.adapter_parameters(size)
        return Footprint(trained=trained, added=trained, samples=self.batch_size, kept=KEPT_LORA, text=False)
'''
IMPLEMENTATION = '''
"""Concept ablation: forget a concept by drawing another in its place."""

import torch

from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.runtime.randomness import generator
from entrypoints.training.loop import fit
from entrypoints.training.publication import evaluate_and_publish


class Forgetting:
    """The squared distance between what is predicted for the concept and what the base predicts for the anchor."""

    def __init__(self, base, pristine, recipe):
        self.base, self.pristine, self.recipe = base, pristine, recipe

    def losses(self, step, ranks):
        random = generator(self.recipe.seed, "noise")  # the same at each step, so that the losses can be compared
        channels = self.base.denoiser.config.in_channels
        side = self.base.denoiser.config.sample_size
        noisy = torch.randn(self.recipe.batch_size, channels, side, side, generator=random)
        times = self.base.process.times(self.recipe.batch_size, random)
        with torch.no_grad():
            wanted = self.pristine.predict(noisy, times, self.conditions(self.recipe.anchor))
        found = self.base.predict(noisy, times, self.conditions(self.recipe.concept))
        yield (found - wanted).square().mean()

    def conditions(self, prompt):
        with torch.no_grad():
            return self.pristine.encode_prompts([prompt] * self.recipe.batch_size)

    def state(self):
        return {}

    def restore(self, state):
        pass

    def measures(self):
        return {}


def train(recipe, run):
    """Move the predictions for the concept to those for the anchor."""
    base, pristine = run.load_base_model(), run.load_base_model()
    tuner = low_rank_tuner(recipe, base)
    fit(run, base, recipe, tuner, Forgetting(base, pristine, recipe))
    evaluate_and_publish(run, base, tuner, images=[], prompts=[])
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with two files more."""
    folder = tmp_path / "checkout"
    for top in ("orchestrator", "entrypoints", "docs", "infra", "containers"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("base_model", "__pycache__"))
    (folder / "orchestrator" / "assets" / "base_model").symlink_to(ROOT / "orchestrator" / "assets" / "base_model")
    for path in ("tests/faults/matrix.yaml", "tests/permissions/needs.yaml"):
        (folder / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, folder / path)
    (folder / "orchestrator" / "contract" / "recipes" / "ablation.py").write_text(DECLARATION)
    (folder / "entrypoints" / "recipes" / "ablation.py").write_text(IMPLEMENTATION)
    return folder


@pytest.fixture
def typed(tree: Path, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run Python in that checkout."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        variables = {
            "PYTHONPATH": str(tree),
            "ORCHESTRATOR_HOME": str(tmp_path / "home"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [sys.executable, *words],
            cwd=tree,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_it_is_shown_planned_documented_and_trained(tree: Path, typed: Any) -> None:
    program = ("-m", "orchestrator")
    assert "forget a concept" in typed(*program, "recipes", "list").stdout
    assert "What is drawn in its place." in typed(*program, "recipes", "show", "ablation").stdout

    assert typed("docs/generate.py").returncode == 0
    assert "What is drawn in its place." in (tree / "docs" / "recipes.md").read_text()

    planned = typed(*program, "submit", "ablation", "--target", "sagemaker", "--dry-run", "--json")
    plan = json.loads(planned.stdout)
    assert plan["placement"]["memory"]["gib"] > 1
    channels = [channel["ChannelName"] for channel in plan["request"]["InputDataConfig"]]
    assert "training" not in channels

    refused = typed(*program, "submit", "ablation", "--images", "docs")
    assert refused.returncode == 2
    assert "images" in refused.stderr

    trained = typed(*program, "submit", "ablation", "-s", "steps=30", "-s", "learning_rate=1e-3", "--json")
    assert trained.returncode == 0, trained.stderr
    job = json.loads(trained.stdout)
    manifest = AdapterManifest.read(Path(job["adapter"]))
    assert (manifest.recipe, manifest.kind, manifest.trigger) == ("ablation", "lora", None)
    log = typed(*program, "jobs", "logs", job["name"], "--json").stdout
    losses = [event["loss"] for event in map(json.loads, log.splitlines()) if event["event"] == "step"]
    assert losses[-1] < 0.5 * losses[0]
    shown = typed(*program, "jobs", "show", job["name"]).stdout
    assert "any words" in shown
