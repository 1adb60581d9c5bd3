"""How long each stage of an endpoint takes, in seconds on the simulator's clock."""

from dataclasses import dataclass

from sagemaker_simulator.stages import Stages


@dataclass(frozen=True)
class HostingTimeline(Stages):
    """The stages until a container answers, and what endpoints do afterwards."""

    provisioning: float = 120
    """Instances are launched."""
    downloading: float = 60
    """Model data."""
    image: float = 60
    """The container image is pulled."""
    shifting: float = 30
    """Traffic goes over to the new instances of an update."""
    scaling: float = 120
    """Instances are added or given back."""
    rolling_back: float = 60
    deleting: float = 60
    """From a deletion until the endpoint is gone; so long it is `Deleting`, and its name is taken."""
    component: float = 60
    """A component is placed, or taken away."""
    adapter: float = 15
    """An adapter's artifact is downloaded."""
    restart: float = 30
    """A container that has ended is started again."""
    capacity_patience: float = 600
    """A deployment that finds no instances fails after so long."""
    capacity_retry: float = 60
    evaluation: float = 60
    """Alarms and scaling policies are looked at so often."""

    @classmethod
    def immediate(cls) -> "HostingTimeline":
        """Return a timeline without any waiting, for a clock that runs by itself."""
        return cls._without_waiting(restart=0.1, capacity_retry=0.1, evaluation=0.2)
