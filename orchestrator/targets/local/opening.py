"""Open a target of this machine by its name."""

from orchestrator.settings import Settings
from orchestrator.targets.local.container import ContainerTarget
from orchestrator.targets.local.local_jobs import LocalJobs
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.local.queue import Turn
from orchestrator.targets.names import TargetName


def open_local(name: str, settings: Settings, turn: Turn = Turn.TOGETHER) -> LocalJobs:
    """Return the target of that name, of those that run jobs on this machine."""
    if name == TargetName.CONTAINER:
        return ContainerTarget(settings, turn)
    return ProcessTarget(settings, turn)
