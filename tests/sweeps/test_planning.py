"""What the jobs of a sweep share, and what they do not."""

from pathlib import Path

import pytest
from PIL import Image

from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from orchestrator.sweeps.grid import expand
from orchestrator.sweeps.planning import plan_sweep_here


def write_pairs(folder: Path) -> Path:
    """Write pictures with a condition picture each."""
    (folder / "conditions").mkdir(parents=True)
    for number in range(4):
        picture = Image.effect_noise((64, 64), 40 + 20 * number).convert("RGB")
        picture.save(folder / f"{number}.png")
        picture.save(folder / "conditions" / f"{number}.png")
    return folder


@pytest.mark.parametrize("order", ['[["canny"],["given"]]', '[["given"],["canny"]]'])
def test_condition_pictures_are_refused_for_those_jobs_alone_that_do_not_read_them(
    order: str, settings: Settings, tmp_path: Path
) -> None:
    images = write_pairs(tmp_path / "pairs")
    variants = expand({"recipe": "controlnet", "images": str(images)}, [f"conditions={order}"])
    with pytest.raises(OrchestratorError) as refused:
        plan_sweep_here(variants, settings, tmp_path / "staging")
    (problem,) = refused.value.problems
    assert "would compute others" in problem.what
    assert 'conditions=["canny"]' in problem.render()  # which job it is: the other one is in order
