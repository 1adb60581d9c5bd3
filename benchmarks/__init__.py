"""Slow measurements, each of which rewrites its table in docs/benchmarks.md."""

import sys
from pathlib import Path

sys.path.append(
    str(Path(__file__).parents[1] / "tests" / "simulator")
)  # the SageMaker that runs is a package of the tests
