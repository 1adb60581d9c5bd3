"""The names of the hosts and modes of endpoints. Imports nothing slow: `--help` lists them."""

from enum import StrEnum


class HostName(StrEnum):
    """The values of `--host` and of the host in an endpoint's description."""

    LOCAL = "local"
    """A server process on this machine."""
    CONTAINER = "container"
    """A container on this machine: SageMaker local mode."""
    SAGEMAKER = "sagemaker"
    """A SageMaker endpoint in the account."""

    @property
    def is_here(self) -> bool:
        """Whether it is this machine, where nothing is billed and one server is all of an endpoint."""
        return self is not HostName.SAGEMAKER


class Mode(StrEnum):
    """The values of `--mode`: how an endpoint is called, and what it costs while nobody calls it."""

    REALTIME = "realtime"
    """Answers at once; its instances are billed until it is deleted."""
    ASYNC = "async"
    """Takes requests and answers through the bucket; scales to zero instances. SageMaker only."""
    COMPONENTS = "components"
    """Answers at once, each adapter is an inference component, and it scales to zero instances. SageMaker only."""
