"""What is said of a drawing that failed: what to do next is what whoever draws can do."""

from pathlib import Path

import pytest

from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.events import Failed
from orchestrator.errors import JobError
from orchestrator.targets.local.drawing import draw

PROGRAM = "import sys; sys.stdin.read(); print({line!r}); sys.exit(1)"


@pytest.mark.parametrize("kind", ["base-model", "disk-full", "gated-model", "hub", "out-of-memory"])
def test_a_drawing_that_failed_is_not_advised_as_a_job(tmp_path: Path, kind: str) -> None:
    failed = Failed(kind=kind, message="It cannot be.", next_step="Mend it, then submit again, or: jobs retry JOB")
    module = tmp_path / "bundle" / "entrypoints" / "draw.py"
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    module.write_text(PROGRAM.format(line=failed.model_dump_json()))
    order = DrawOrder(
        adapter=tmp_path,
        base_model="org/model",
        base_folder=None,
        prompt="a dog",
        seed=0,
        steps=1,
        guidance=1.0,
        size=32,
    )
    with pytest.raises(JobError, match="It cannot be") as caught:
        draw(order, tmp_path / "bundle", tmp_path, [].append)
    assert "job" not in caught.value.next_step
    assert "submit" not in caught.value.next_step
