"""The names of the targets. Imports nothing slow: `--help` lists them."""

from enum import StrEnum


class TargetName(StrEnum):
    """The values of `--target` and of the target in a job's description."""

    LOCAL = "local"
    """A process on this machine."""
    CONTAINER = "container"
    """A container on this machine: SageMaker local mode."""
    SAGEMAKER = "sagemaker"
    """A SageMaker training job in the account."""


LOCAL_TARGETS = frozenset({TargetName.LOCAL, TargetName.CONTAINER})
"""Those that run jobs on this machine."""
TARGET_NAMES = tuple(name.value for name in TargetName)
"""All names, as `--target` takes them."""
