"""A typed view of SageMaker's `/opt/ml` whose root is a parameter.

The same folder tree is what the process target lays out on this machine and what a test makes in a temporary
folder. Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT_VARIABLE = "ORCHESTRATOR_ML_ROOT"
CACHE_VARIABLE = "ORCHESTRATOR_CACHE"
DEFAULT_ROOT = Path("/opt/ml")
TRAINING_CHANNEL = "training"
BASE_MODEL_CHANNEL = "base_model"
EXIT_FAILED = 1
EXIT_STOPPED = 143  # 128 + SIGTERM: asked to stop, checkpoint saved
STOP_GRACE_SECONDS = 120  # between SIGTERM and SIGKILL of a training job
FAILURE_LIMIT = 1024  # characters of the failure file that come back as FailureReason


class Environment(BaseModel):
    """The folders a job reads and writes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: Path = DEFAULT_ROOT
    """`/opt/ml` in a container; any folder elsewhere."""

    @classmethod
    def from_variables(cls) -> "Environment":
        """Return the environment of this process: `ORCHESTRATOR_ML_ROOT`, or `/opt/ml`."""
        return cls(root=Path(os.environ.get(ROOT_VARIABLE, DEFAULT_ROOT)))

    @property
    def hyperparameters_file(self) -> Path:
        """The recipe as the service hands it over: a JSON object of strings."""
        return self.root / "input" / "config" / "hyperparameters.json"

    @property
    def model(self) -> Path:
        """What is left here when the job ends is its result."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """Kept by the service while the job runs and put back when it is started again."""
        return self.root / "checkpoints"

    @property
    def samples(self) -> Path:
        """Validation pictures and other by-products (`output/data`)."""
        return self.root / "output" / "data"

    @property
    def failure_file(self) -> Path:
        """Its first 1024 characters come back as FailureReason."""
        return self.root / "output" / "failure"

    @property
    def cache(self) -> Path:
        """Things worth keeping between jobs (class pictures): `ORCHESTRATOR_CACHE`, or with the checkpoints."""
        return Path(os.environ.get(CACHE_VARIABLE, self.checkpoints / "cache"))

    def channel(self, name: str) -> Path | None:
        """Return the folder of an input channel, or None when the job has no such channel."""
        folder = self.root / "input" / "data" / name
        return folder if folder.is_dir() else None

    def hyperparameters(self) -> dict[str, str]:
        """Read the hyperparameters as the service wrote them."""
        values: dict[str, str] = json.loads(self.hyperparameters_file.read_text(encoding="utf-8"))
        return values

    def write_failure(self, text: str) -> None:
        """Leave the reason for a failure where the service looks for it."""
        self.failure_file.parent.mkdir(parents=True, exist_ok=True)
        self.failure_file.write_text(text[:FAILURE_LIMIT], encoding="utf-8")
