"""When an endpoint was called last, by CloudWatch's figures.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from orchestrator.aws.client import Aws, calling
from orchestrator.endpoints.sagemaker.names import VARIANT
from orchestrator.endpoints.sagemaker.scaling import METRICS

_WINDOWS = ((timedelta(hours=3), 60), (timedelta(days=15), 3600))
"""How far back it is looked, and how exactly, in seconds; one-minute figures are kept for 15 days."""
_SHORTEST = timedelta(minutes=1)
_MOST_QUERIES = 500
"""Of one GetMetricData call."""


def last_used(
    aws: Aws,
    name: str,
    components: Sequence[str],
    since: datetime,
    now: datetime,
) -> datetime | None:
    """Return when an endpoint was called last; None when it was not since its creation, or for 15 days."""
    queries = _queries(name, components)
    for reach, period in _WINDOWS:
        start = max(since, now - reach)
        end = max(now, start + _SHORTEST)  # this machine's clock may be behind
        latest = _latest(
            aws,
            queries,
            period,
            start,
            end,
        )
        if latest is not None:
            return min(latest + timedelta(seconds=period), now)  # a figure is of the seconds that follow its time
        if start == since:
            return None
    return None


def _latest(
    aws: Aws,
    queries: Sequence[Any],
    period: int,
    start: datetime,
    end: datetime,
) -> datetime | None:
    latest: datetime | None = None
    for first in range(0, len(queries), _MOST_QUERIES):
        asked = []
        for query in queries[first : first + _MOST_QUERIES]:
            asked.append({**query, "MetricStat": {**query["MetricStat"], "Period": period}})
        pages = (
            aws.client("cloudwatch")
            .get_paginator("get_metric_data")
            .paginate(MetricDataQueries=asked, StartTime=start, EndTime=end)
        )
        with calling("read when the endpoint was called last"):
            for page in pages:
                for result in page["MetricDataResults"]:
                    for time, value in zip(result["Timestamps"], result["Values"], strict=True):
                        if value and (latest is None or time > latest):
                            latest = time
    return latest


def _queries(name: str, components: Sequence[str]) -> list[Any]:
    """Return a query for each figure that says that somebody calls: without its period."""
    of_variant = {"EndpointName": name, "VariantName": VARIANT}
    figures: list[tuple[str, Mapping[str, str]]] = [
        ("Invocations", of_variant),
        ("ApproximateBacklogSize", {"EndpointName": name}),
    ]
    for component in components:
        figures.append(("Invocations", {"InferenceComponentName": component}))
    queries = []
    for number, (metric, dimensions) in enumerate(figures):
        named = [{"Name": key, "Value": value} for key, value in dimensions.items()]
        stat = {"Metric": {"Namespace": METRICS, "MetricName": metric, "Dimensions": named}, "Stat": "Sum"}
        queries.append({"Id": f"q{number}", "MetricStat": stat})
    return queries
