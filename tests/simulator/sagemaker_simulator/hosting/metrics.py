"""The figures of endpoints in CloudWatch: kept in moto, in this process, with the clock's times.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

from datetime import datetime
from typing import TYPE_CHECKING

from .records import Component, Endpoint, Resource

if TYPE_CHECKING:
    from .hosting import Hosting

NAMESPACE = "AWS/SageMaker"
_SERVER_ERROR = 500
_CLIENT_ERROR = 400
Point = tuple[datetime, float]
Dimensions = dict[str, str]


class Metrics:
    """Writes figures, and reads what was written of late."""

    def __init__(self, hosting: "Hosting") -> None:
        self.hosting = hosting
        self._points: dict[tuple[str, tuple[tuple[str, str], ...]], list[Point]] = {}

    def answered(self, endpoint: Endpoint, variant: str, status: int) -> None:
        """Note a request to a variant, by the status of the container's answer."""
        dimensions = {"EndpointName": endpoint.name, "VariantName": variant}
        self.write(endpoint, "Invocations", dimensions, 1)
        self.write(endpoint, "Invocation4XXErrors", dimensions, float(_CLIENT_ERROR <= status < _SERVER_ERROR))
        self.write(endpoint, "Invocation5XXErrors", dimensions, float(status >= _SERVER_ERROR))

    def invoked_component(self, component: Component) -> None:
        self.write(component, "Invocations", {"InferenceComponentName": component.name}, 1)

    def no_capacity(self, component: Component) -> None:
        """Note a request to a component without copies."""
        self.write(component, "NoCapacityInvocationFailures", {"InferenceComponentName": component.name}, 1)

    def write(self, of: Resource, name: str, dimensions: Dimensions, value: float) -> None:
        """Add a figure."""
        from moto.cloudwatch.models import cloudwatch_backends

        now = self.hosting.clock.now()
        self._points.setdefault((name, _key(dimensions)), []).append((now, value))
        named = [{"Name": key, "Value": text} for key, text in dimensions.items()]
        datum = {"MetricName": name, "Value": value, "Timestamp": now.replace(tzinfo=None), "Dimensions": named}
        cloudwatch_backends[of.account][of.region].put_metric_data(NAMESPACE, [datum])

    def since(self, moment: datetime, name: str, dimensions: Dimensions) -> list[float]:
        """Return the values that were written since a moment."""
        return [value for at, value in self._points.get((name, _key(dimensions)), []) if at >= moment]


def _key(dimensions: Dimensions) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(dimensions.items()))
