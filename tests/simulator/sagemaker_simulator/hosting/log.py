"""What a container prints, in CloudWatch."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sagemaker_simulator.training.log_stream import AHEAD, BEHIND, is_allowed


class ServingLog:
    """The log stream of one container; a role that may not write logs serves without."""

    def __init__(self, logs: Any, group: str, stream: str, now: Callable[[], datetime]) -> None:
        self.logs = logs
        self.now = now
        self._names = {"logGroupName": group, "logStreamName": stream}
        self._is_there = (
            is_allowed(lambda: logs.create_log_group(logGroupName=group))
            and is_allowed(lambda: logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream))
            and is_allowed(lambda: logs.create_log_stream(**self._names))
        )

    def write(self, line: str) -> None:
        """Add a line."""
        at = min(max(self.now(), datetime.now(UTC) - BEHIND), datetime.now(UTC) + AHEAD)
        event = {"timestamp": int(at.timestamp() * 1000), "message": line or " "}  # an empty message is refused
        if self._is_there:
            self._is_there = is_allowed(lambda: self.logs.put_log_events(logEvents=[event], **self._names))
