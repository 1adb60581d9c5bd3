"""A SageMaker that runs, for tests: strict about requests, real about work, in the test's hands for time and faults.

See README.md beside this file.
"""

from .calls import Call, RecordedCall
from .clock import Clock, ManualClock, WallClock
from .enforcement import enforce_policies
from .faults import (
    Fault,
    access_denied,
    clock_skew,
    connection_reset,
    expired_token,
    internal_error,
    lost_answer,
    read_timeout,
    refusal,
    throttling,
    unavailable,
)
from .hosting.faults import (
    FailLaunch,
    ServerDeath,
    UnhealthyContainer,
    hosting_internal_error,
    insufficient_capacity,
    model_download_timeout,
    serving_image_failure,
)
from .hosting.server import STAND_IN
from .hosting.timeline import HostingTimeline
from .in_process import in_process, install
from .rules import complaint
from .server import SimulatorServer
from .simulator import SageMakerSimulator, SimulatorError
from .training.container import Image
from .training.faults import (
    FailIn,
    Interruption,
    capacity_shortage,
    failed_health_check,
    image_pull_failure,
    internal_server_error,
)
from .training.job import TrainingJob
from .training.timeline import Timeline

__all__ = [
    "STAND_IN",
    "Call",
    "Clock",
    "FailIn",
    "FailLaunch",
    "Fault",
    "HostingTimeline",
    "Image",
    "Interruption",
    "ManualClock",
    "RecordedCall",
    "SageMakerSimulator",
    "ServerDeath",
    "SimulatorError",
    "SimulatorServer",
    "Timeline",
    "TrainingJob",
    "UnhealthyContainer",
    "WallClock",
    "access_denied",
    "capacity_shortage",
    "clock_skew",
    "complaint",
    "connection_reset",
    "enforce_policies",
    "expired_token",
    "failed_health_check",
    "hosting_internal_error",
    "image_pull_failure",
    "in_process",
    "install",
    "insufficient_capacity",
    "internal_error",
    "internal_server_error",
    "lost_answer",
    "model_download_timeout",
    "read_timeout",
    "refusal",
    "serving_image_failure",
    "throttling",
    "unavailable",
]
