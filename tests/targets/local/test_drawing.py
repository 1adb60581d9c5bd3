"""What is said when the process that draws ends badly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract.drawing import DrawOrder
from orchestrator.errors import JobError
from orchestrator.targets.local.drawing import draw

ORDER = DrawOrder.model_construct(seeds=(1,))


@pytest.fixture
def crash(tmp_path: Path) -> Callable[[str], JobError]:
    """Draw with code that ends as the given line does."""

    def crash(line: str) -> JobError:
        package = tmp_path / "entrypoints"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "draw.py").write_text(f"import os, signal, sys\n{line}\n")
        (tmp_path / "images").mkdir(exist_ok=True)
        with pytest.raises(JobError) as caught:
            draw(ORDER, tmp_path, tmp_path / "images", lambda _: None)
        return caught.value

    return crash


def test_a_process_that_the_system_killed_is_told_from_one_that_failed(crash: Callable[[str], Any]) -> None:
    failed = crash("sys.exit('the last line')")
    assert "exit code 1" in failed.render()
    assert "the last line" in failed.render()
    killed = crash("os.kill(os.getpid(), signal.SIGKILL)")
    assert "ended by signal 9; the system does that when memory runs out" in killed.render()
    assert failed.next_step.endswith("adapters draw --help")
    assert killed.next_step != failed.next_step
