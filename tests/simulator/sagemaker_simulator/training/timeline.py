"""How long each stage of a job takes, in seconds on the simulator's clock."""

from dataclasses import dataclass

from sagemaker_simulator.stages import Stages


@dataclass(frozen=True)
class Timeline(Stages):
    """The stages before and after the container works, and how it all shows."""

    starting: float = 5
    pending: float = 60
    """Waiting for capacity."""
    preparing: float = 30
    """The instances boot."""
    downloading: float = 30
    """The input channels."""
    image: float = 60
    """The container image is pulled."""
    training: float = 0
    """The container's work takes at least so long; it really takes as long as the process runs."""
    uploading: float = 20
    stopping: float = 10
    """From Stopping to Stopped when no container runs yet."""
    deleting: float = 30
    """From a deletion until the job is gone; so long it is `Deleting`, and its name is taken."""
    capacity_patience: float = 600
    """An on-demand job that finds no instances fails after so long; a spot job waits on."""
    capacity_retry: float = 60
    restart: float = 120
    """From an interruption to the next attempt."""
    retired_statuses: bool = False
    """Show LaunchingMLInstances, PreparingTrainingStack and DownloadingTrainingImage, as the service once did."""
    retry_status: str = "Starting"
    """Secondary status in which a further attempt begins; `Restarting` is the other there is."""

    @classmethod
    def immediate(cls) -> "Timeline":
        """Return a timeline without any waiting, for a clock that runs by itself."""
        return cls._without_waiting(capacity_retry=0.1)
