"""The names of the targets. Imports nothing heavy: the command line offers them in `--help`."""

from enum import StrEnum


class TargetName(StrEnum):
    """What `--target` takes, and what a job's description says of where it runs."""

    LOCAL = "local"
    """A process on this machine."""
    SAGEMAKER = "sagemaker"
    """A SageMaker training job in the account."""


TARGET_NAMES = tuple(name.value for name in TargetName)
"""All of them, as they are typed."""
