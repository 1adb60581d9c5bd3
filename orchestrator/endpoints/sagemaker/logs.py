"""The logs of an endpoint's servers, one stream for each instance.

https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from orchestrator.aws.client import Aws, calling
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.names import base_component
from orchestrator.endpoints.sagemaker.tags import Record
from orchestrator.errors import AccessError, MissingError
from orchestrator.targets.sagemaker.cloudwatch import LogStream

ENDPOINT_LOGS = "/aws/sagemaker/Endpoints/"
COMPONENT_LOGS = "/aws/sagemaker/InferenceComponents/"


def group_of(record: Record) -> str:
    """Return the log group of an endpoint's servers."""
    if record.mode is Mode.COMPONENTS:
        return f"{COMPONENT_LOGS}{base_component(record.name)}"
    return f"{ENDPOINT_LOGS}{record.name}"


def delete_logs(aws: Aws, name: str) -> list[str]:
    """Delete the log groups of an endpoint that is gone, of either mode; return their names. Idempotent.

    Whoever may not delete them leaves them: they keep no endpoint from going.
    """
    gone = []
    for group in (f"{ENDPOINT_LOGS}{name}", f"{COMPONENT_LOGS}{base_component(name)}"):
        try:
            with calling(f"delete the log group {group}"):
                aws.client("logs").delete_log_group(logGroupName=group)
        except (AccessError, MissingError):
            continue
        gone.append(group)
    return gone


def log_lines(
    aws: Aws,
    record: Record,
    created: datetime,
    pause: Callable[[], float] | None,
) -> Iterator[str]:
    """Yield what the servers of an endpoint have logged; with `pause`, go on until interrupted."""
    group = group_of(record)
    client = aws.client("logs")
    streams: dict[str, LogStream] = {}
    while True:
        for name in _streams(aws, group, created):
            stream = streams.setdefault(name, LogStream(client, name, group))
            yield from stream.fresh_lines()
        if pause is None:
            return
        pause()


def _streams(
    aws: Aws,
    group: str,
    created: datetime,
) -> list[str]:
    """Return the names of the streams of an endpoint, without those of one that had its name before."""
    pages = aws.client("logs").get_paginator("describe_log_streams").paginate(logGroupName=group)
    since = int(created.timestamp() * 1000)  # ms
    try:
        with calling("read the endpoint's log"):
            streams = [stream for page in pages for stream in page["logStreams"]]
    except MissingError:  # nothing was logged yet
        return []
    own = [stream for stream in streams if stream["creationTime"] >= since]
    own.sort(key=lambda stream: stream["creationTime"])
    return [stream["logStreamName"] for stream in own]
