"""Jobs on the targets of `tests/targets`."""

from tests.targets.conftest import simulator, target

__all__ = ["simulator", "target"]
