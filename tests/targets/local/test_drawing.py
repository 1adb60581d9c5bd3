"""What is said of a drawing that failed: what to do next is what whoever draws can do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.events import Failed
from orchestrator.contract.generation import Generation
from orchestrator.errors import JobError
from orchestrator.targets.local.drawing import draw

Draws = Callable[[str], JobError]
PROGRAM = "import os, signal, sys\nsys.stdin.read()\n{end}\n"


@pytest.fixture
def error_of(tmp_path: Path) -> Draws:
    """Draw with code that reads its order and ends as the given statements do."""
    order = DrawOrder(
        generation=Generation(prompts=("a dog",), seeds=(0,), steps=1, guidance=1.0, size=32),
        folders={},
        base_model="org/model",
        base_folder=None,
    )

    def error_of(end: str) -> JobError:
        package = tmp_path / "bundle" / "entrypoints"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "draw.py").write_text(PROGRAM.format(end=end))
        with pytest.raises(JobError) as caught:
            draw(order, tmp_path / "bundle", tmp_path, [].append)
        return caught.value

    return error_of


@pytest.mark.parametrize("kind", ["base-model", "disk-full", "gated-model", "hub", "out-of-memory"])
def test_a_drawing_that_failed_is_not_advised_as_a_job(error_of: Draws, kind: str) -> None:
    failed = Failed(kind=kind, message="It cannot be.", next_step="Mend it, then submit again, or: jobs retry JOB")
    error = error_of(f"print({failed.model_dump_json()!r}); sys.exit(1)")
    assert "It cannot be" in error.message
    assert "job" not in error.next_step
    assert "submit" not in error.next_step


def test_a_process_that_the_system_killed_is_told_from_one_that_failed(error_of: Draws) -> None:
    failed = error_of("sys.exit('the last line')")
    assert "exit code 1" in failed.render()
    assert "the last line" in failed.render()
    assert failed.next_step.endswith("adapters draw --help")
    killed = error_of("os.kill(os.getpid(), signal.SIGKILL)")
    assert "ended by signal 9; the system does that when memory runs out" in killed.render()
    assert killed.next_step != failed.next_step
