"""docs/results.md: what is trained for it, and how its figures are read."""

from pathlib import Path

import pytest

from benchmarks.results.experiments import DREAMBOOTH, EXPERIMENTS, FULL, SEEDS
from benchmarks.results.held_out import PICTURES, write_held_out
from benchmarks.results.page import percent, scaled, write_page
from benchmarks.results.runs import Measured
from orchestrator.contract.adapter import BaseModelReference
from orchestrator.contract.evaluation_result import (
    DrawnWith,
    Estimate,
    EvaluatedAdapter,
    EvaluationResult,
    Figure,
)
from orchestrator.resources import ASSETS
from orchestrator.specs.building import build_spec


def an_evaluation(closed: float) -> EvaluationResult:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.1, high=value + 0.1)

    figures = (
        Figure(
            measure="subject_fidelity",
            space="clip",
            images=8,
            base=estimate(0.4),
            adapter=estimate(0.4 + 0.4 * closed),
            ceiling=estimate(0.8),
            gap_closed=estimate(closed),
        ),
        Figure(
            measure="prompt_fidelity",
            space="clip",
            images=8,
            base=estimate(0.4),
            adapter=estimate(0.36),
            difference=Estimate(value=-0.04, low=-0.06, high=-0.02),
        ),
    )
    return EvaluationResult(
        adapter=EvaluatedAdapter(name="one", sha256="0", recipe="dreambooth", kind="lora"),
        base_model=BaseModelReference(id="builtin", fingerprint="0", family="stable_diffusion"),
        prompts=(),
        seeds=(1000,),
        drawn_with=DrawnWith(steps=12, guidance=2.5, size=64),
        figures=figures,
        bundle_sha256="0",
        libraries={},
    )


def measured(name: str, closed: float, size: int = 1000) -> Measured:
    return Measured(
        experiment=name,
        seed=0,
        cpu_seconds=40,
        wall_seconds=50,
        peak_bytes=600_000_000,
        weights_bytes=size,
        evaluations={"1.0": an_evaluation(closed)},
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_job_that_can_be_submitted_under_a_name_of_its_own(name: str) -> None:
    experiment = EXPERIMENTS[name]
    words = experiment.words(SEEDS[0])
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    spec = build_spec({"recipe": experiment.recipe, "name": experiment.job_name(0)}, typed)
    assert not spec.warnings
    names = {one.job_name(seed) for one in EXPERIMENTS.values() for seed in one.seeds}
    assert len(names) == sum(len(one.seeds) for one in EXPERIMENTS.values())


def test_what_is_measured_again_depends_on_settings_and_base_model() -> None:
    other = DREAMBOOTH.model_copy(update={"settings": {"rank": 4}})
    keys = {DREAMBOOTH.key(0, "base"), DREAMBOOTH.key(1, "base"), DREAMBOOTH.key(0, "other"), other.key(0, "base")}
    assert len(keys) == 4


def test_no_held_out_layout_is_a_packaged_one(tmp_path: Path) -> None:
    folder = write_held_out(tmp_path / "held-out")
    packaged = {path.read_bytes() for path in (ASSETS / "layouts").glob("*.png")}
    drawn = [path.read_bytes() for path in folder.glob("*.png")]
    assert len(set(drawn)) == PICTURES
    assert packaged
    assert packaged.isdisjoint(drawn)


def test_a_share_that_is_lost_keeps_its_interval_the_right_way_round() -> None:
    lost = scaled(Estimate(value=-0.04, low=-0.06, high=-0.02), -2.5)
    assert (lost.value, lost.low, lost.high) == pytest.approx((0.1, 0.05, 0.15))
    assert percent(lost, digits=1) == "10.0 % [5.0, 15.0]"
    assert percent(Estimate(value=0.5, no_interval="one image")) == "50 % [no interval]"


def test_the_page_says_what_each_training_reached_and_what_is_missing(tmp_path: Path) -> None:
    found = {one.name: [measured(one.name, closed)] for one, closed in ((DREAMBOOTH, 0.7), (FULL, 0.8))}
    write_page(tmp_path / "results.md", found)
    text = (tmp_path / "results.md").read_text()
    assert "| dreambooth | 0 | 70 % [60, 80] | - | 10.0 % [5.0, 15.0] | - | 1 | 40 | 600 |" in text
    assert "its subject fidelity is 0.94 by CLIP of the other's" in text
    assert text.count("Not measured yet.") == 2
