"""The log of a training job, read from CloudWatch; no line is lost or repeated.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from orchestrator.aws.client import Aws, calling
from orchestrator.aws.logs import LOG_GROUP
from orchestrator.errors import MissingError, SpecError

_FIRST_HOST = "algo-1"  # the only host that reports progress
_READ = "read the job's log"


class LogStream:
    """One log stream, which can be read to its current end again and again."""

    def __init__(self, client: Any, name: str, group: str = LOG_GROUP) -> None:
        self.client = client
        self.name = name
        self.group = group
        self._token = ""
        self._latest = 0
        """Timestamp (ms) of the newest line that was yielded."""
        self._given = 0
        """Number of lines of that timestamp that were yielded."""
        self._repeated = 0
        """Number of them that the next page repeats at its start."""

    def fresh_lines(self) -> Iterator[str]:
        """Yield what was written since the last call.

        The position in the stream advances only with a page that has arrived, so the call can be repeated after an
        error. Raises the errors of `calling`.
        """
        while True:
            page = self._page()
            yield from self._new_in(page["events"])
            if page["nextForwardToken"] == self._token:
                return
            self._token = page["nextForwardToken"]

    def _page(self) -> Any:
        if not self._token:
            return self._get({"startTime": self._latest})
        try:
            return self._get({"nextToken": self._token})
        except SpecError:  # a token expires after a day; then the timestamp says where to continue
            self._token = ""
            self._repeated = self._given
            return self._get({"startTime": self._latest})

    def _get(self, position: dict[str, Any]) -> Any:
        with calling(_READ):
            return self.client.get_log_events(
                logGroupName=self.group,
                logStreamName=self.name,
                startFromHead=True,
                **position,
            )

    def _new_in(self, events: list[Any]) -> Iterator[str]:
        for event in events:
            timestamp = event["timestamp"]
            if timestamp == self._latest and self._repeated:
                self._repeated -= 1
                continue
            if timestamp != self._latest:
                self._latest = timestamp
                self._given = 0
                self._repeated = 0
            self._given += 1
            yield str(event["message"]).rstrip("\n")


class TrainingLog:
    """The log of one training job: a stream for each start of its container, a spot instance's restart included.

    The streams of a deleted job remain; a later job of the same name ignores those older than itself.
    """

    def __init__(self, aws: Aws, job: str, created: datetime) -> None:
        self.client = aws.client("logs")
        self.job = job
        self.created = created
        self._streams: dict[str, LogStream] = {}

    def fresh_lines(self) -> Iterator[str]:
        """Yield what was written since the last call; nothing while there is no log yet."""
        for name in self._names():
            stream = self._streams.setdefault(name, LogStream(self.client, name))
            yield from stream.fresh_lines()

    def _names(self) -> list[str]:
        pages = self.client.get_paginator("describe_log_streams").paginate(
            logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.job}/{_FIRST_HOST}"
        )
        try:
            with calling(_READ):
                streams = [stream for page in pages for stream in page["logStreams"]]
        except MissingError:  # the log group is created with the account's first job
            return []
        since = int(self.created.timestamp() * 1000)  # ms
        own = [stream for stream in streams if stream["creationTime"] >= since]
        own.sort(key=lambda stream: stream["creationTime"])
        return [stream["logStreamName"] for stream in own]
