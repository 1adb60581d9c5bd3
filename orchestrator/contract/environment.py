"""A typed view of SageMaker's `/opt/ml` whose root is a parameter.

The same folder tree is what the process target lays out on this machine and what a test makes in a temporary
folder. Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import math
import os
import re
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.contract.samples import SAMPLES_FOLDER

ROOT_VARIABLE = "ORCHESTRATOR_ML_ROOT"
CACHE_VARIABLE = "ORCHESTRATOR_CACHE"
RANKS_VARIABLE = "ORCHESTRATOR_RANKS_PER_HOST"
"""How many processes train on a host; one for each of its GPUs when left out."""
INPUTS_VARIABLE = "ORCHESTRATOR_INPUTS"
"""The hash of each channel's tree, "code=0123... training=4567...", which the image checks before it starts a job."""
PRICE_VARIABLE = "ORCHESTRATOR_USD_PER_HOUR"
"""What an hour of the job's instances costs at list price, in dollars; not set where nothing is billed."""
JOB_VARIABLE = "ORCHESTRATOR_JOB"
"""Name of the job, the same in all its attempts; set for jobs that ask people."""
WAIT_VARIABLE = "ORCHESTRATOR_WAIT"
"""What such a job does while people label: a `Wait`."""
START_PROGRAM = "/usr/local/bin/start-job"
"""The program of the training image (`containers/training/start.py`) that checks a job's inputs and starts it."""
DEFAULT_ROOT = Path("/opt/ml")
TRAINING_CHANNEL = "training"
BASE_MODEL_CHANNEL = "base_model"
SCORER_CHANNEL = "scorer"
FINDINGS_CHANNEL = "findings"
PROMPTS_CHANNEL = "prompts"
REPORT_FILE = "report.html"
EXIT_FAILED = 1
EXIT_WAITING = 75  # EX_TEMPFAIL of sysexits.h: a round waits for labels; started again when they are there, it goes on
EXIT_STOPPED = 143  # 128 + SIGTERM: asked to stop, checkpoint saved
STOP_GRACE_SECONDS = 120  # what the service gives a training container between SIGTERM and SIGKILL
_WITH_GPU = re.compile(r"ml\.(g|gr|p)\d")  # instance types by their families
FAILURE_LIMIT = 1024  # characters of the failure file that come back as FailureReason


class Wait(StrEnum):
    """What a job does while people label a round."""

    HOLD = "hold"
    """It keeps running."""
    RELEASE = "release"
    """It ends, and is started again when the labels are there: a GPU that waits is not paid for."""


class Hosts(BaseModel):
    """The hosts of a job, as `resourceconfig.json` describes them."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    current: str = Field("localhost", alias="current_host")
    """Name of this host, as the others reach it."""
    hosts: tuple[str, ...] = ("localhost",)
    """Names of all hosts, sorted: the same order on each."""
    network_interface: str = Field("", alias="network_interface_name")
    """Network that they share; empty when there is one host."""
    instance_type: str = Field("", alias="current_instance_type")
    """Instance type of this host; empty on this machine."""

    @model_validator(mode="after")
    def _require_current(self) -> Self:
        """Require that this host is one of the job's."""
        if self.current not in self.hosts:
            raise ValueError(f"{self.current} is not one of the hosts {', '.join(self.hosts)}")
        return self

    @property
    def has_gpu(self) -> bool:
        """Whether its instance type has GPUs of NVIDIA."""
        return _WITH_GPU.match(self.instance_type) is not None

    @property
    def number(self) -> int:
        """The number of this host, from 0."""
        return self.hosts.index(self.current)


NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""Exists, in a container too, on a machine with an NVIDIA GPU and a driver."""


def has_gpu_here() -> bool:
    """Whether this machine has a GPU of NVIDIA with a driver, as far as can be seen without torch."""
    return NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None


class Environment(BaseModel):
    """The folders a job reads and writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    def resource_config_file(self) -> Path:
        """The job's hosts; not there on this machine."""
        return self.root / "input" / "config" / "resourceconfig.json"

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
        """Images drawn during training, with their index (`output/data` is for by-products)."""
        return self.root / "output" / "data" / SAMPLES_FOLDER

    @property
    def report(self) -> Path:
        """What the run did, as one page; written when it ends, however it does."""
        return self.root / "output" / "data" / REPORT_FILE

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's files, which the service uploads while the job runs."""
        return self.root / "output" / "tensorboard"

    @property
    def failure_file(self) -> Path:
        """Its first 1024 characters come back as FailureReason."""
        return self.root / "output" / "failure"

    @property
    def cache(self) -> Path:
        """Things worth keeping between jobs (class pictures): `ORCHESTRATOR_CACHE`, or with the checkpoints."""
        return Path(os.environ.get(CACHE_VARIABLE, self.checkpoints / "cache"))

    @property
    def usd_per_hour(self) -> float | None:
        """Price of an hour of the job's instances; None where nothing is billed, or no price is known."""
        try:
            usd = float(os.environ[PRICE_VARIABLE])
        except (KeyError, ValueError):
            return None
        return usd if math.isfinite(usd) else None

    @property
    def job_name(self) -> str:
        """Name of the job as people know it; of a job that asks nobody, "job"."""
        return os.environ.get(JOB_VARIABLE, "job")

    @property
    def wait(self) -> Wait:
        """What the job does while people label."""
        return Wait(os.environ.get(WAIT_VARIABLE, Wait.RELEASE))

    def channel(self, name: str) -> Path | None:
        """Return the folder of an input channel, or None when the job has no such channel."""
        folder = self.root / "input" / "data" / name
        return folder if folder.is_dir() else None

    def hyperparameters(self) -> dict[str, str]:
        """Read the hyperparameters as the service wrote them."""
        values: dict[str, str] = json.loads(self.hyperparameters_file.read_text(encoding="utf-8"))
        return values

    def hosts(self) -> Hosts:
        """Read the job's hosts; one host, this machine, where the service wrote none."""
        if not self.resource_config_file.is_file():
            return Hosts()
        found = Hosts.model_validate_json(self.resource_config_file.read_text(encoding="utf-8"))
        return found.model_copy(update={"hosts": tuple(sorted(found.hosts))})

    def write_failure(self, text: str) -> bool:
        """Leave the reason for a failure where the service looks for it, and return whether this was the first.

        Of several processes the first to fail knows the cause; the others fail because it is gone.
        """
        self.failure_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.failure_file.open("x", encoding="utf-8") as file:
                file.write(text[:FAILURE_LIMIT])
        except FileExistsError:
            return False
        return True
