"""What the container prints, in CloudWatch, and the metrics that are read from it."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_simulator import permissions

from .job import TrainingJob

GROUP = "/aws/sagemaker/TrainingJobs"
AHEAD = timedelta(minutes=110)  # CloudWatch refuses events from more than two hours ahead
BEHIND = timedelta(days=13)  # and from more than fourteen days ago


class LogStream:
    """One attempt's log stream."""

    def __init__(self, logs: Any, job: TrainingJob, host: str, now: Callable[[], datetime]) -> None:
        self.logs = logs
        self.job = job
        self.now = now
        self.name = f"{job.name}/{host}-{int(now().timestamp())}"
        definitions = job.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        self.metrics = [(one["Name"], re.compile(one["Regex"])) for one in definitions]
        self._is_there = self._create()
        """A role that may not write logs trains without, and one that may not write metrics has none."""
        self._has_metrics = permissions.missing_for_metrics(job.role) is None

    def write(self, line: str) -> None:
        """Add a line, and read the job's metrics from it."""
        at = min(max(self.now(), datetime.now(UTC) - BEHIND), datetime.now(UTC) + AHEAD)
        event = {"timestamp": int(at.timestamp() * 1000), "message": line or " "}  # an empty message is refused
        if self._is_there:
            names = {"logGroupName": GROUP, "logStreamName": self.name}
            self._is_there = is_allowed(lambda: self.logs.put_log_events(logEvents=[event], **names))
        for name, pattern in self.metrics if self._has_metrics else ():
            if (value := _number(pattern.search(line))) is not None:
                self.job.metrics[name] = (value, self.now())

    def _create(self) -> bool:
        names = {"logGroupName": GROUP, "logStreamName": self.name}
        return (
            is_allowed(lambda: self.logs.create_log_group(logGroupName=GROUP))
            and is_allowed(lambda: self.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=self.name))
            and is_allowed(lambda: self.logs.create_log_stream(**names))
        )


def is_allowed(make: Callable[[], Any]) -> bool:
    """Return whether the role may; what is there already is as good as made."""
    try:
        make()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.FORBIDDEN:
            return False
        if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
            raise
    return True


def _number(match: re.Match[str] | None) -> float | None:
    """Return the first group as a finite number; the service passes over what is none."""
    try:
        value = float(match[1]) if match and match.groups() else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
