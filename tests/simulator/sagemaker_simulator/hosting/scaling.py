"""What alarms and scaling policies do to endpoints: both are moto's, looked at in this process.

Every `evaluation` of the clock an endpoint that is registered as a scalable target is brought nearer to what its
policies want: step scaling by the alarms that name it, target tracking by the figure that it tracks.
"""

import math
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .records import Component, Endpoint, Resource

if TYPE_CHECKING:
    from .hosting import Hosting

VARIANT_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
COPIES_DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
_HOLDS = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
}


class Scaler:
    """Scales one variant or one component."""

    def __init__(self, hosting: "Hosting", resource: Resource, variant: str | None = None) -> None:
        self.hosting = hosting
        self.resource = resource
        self.variant = variant
        self._quiet_since = hosting.clock.now()
        """Since when target tracking would have had it smaller."""

    @property
    def _id(self) -> str:
        if self.variant is None:
            return f"inference-component/{self.resource.name}"
        return f"endpoint/{self.resource.name}/variant/{self.variant}"

    @property
    def _dimension(self) -> str:
        return COPIES_DIMENSION if self.variant is None else VARIANT_DIMENSION

    @property
    def count(self) -> int:
        """Instances or copies that are wanted now."""
        if isinstance(self.resource, Component):
            return self.resource.desired_copies
        if isinstance(self.resource, Endpoint):
            return next((one.desired for one in self.resource.variants if one.name == self.variant), 0)
        raise TypeError(self.resource)

    def evaluate(self) -> None:
        """Scale, if the policies say so and nothing else is being done."""
        target = target_of(self.resource, self._dimension, self._id)
        if target is None or self.resource.status != "InService" or not self._is_there():
            return
        wanted = self.count
        for policy in self._policies():
            if policy.step_scaling_policy_configuration:
                wanted = max(wanted, self._by_steps(policy))
        tracked = [
            self._by_tracking(one) for one in self._policies() if one.target_tracking_scaling_policy_configuration
        ]
        if tracked and wanted == self.count:
            wanted = self._after_cooldown(max(tracked))
        wanted = max(target.min_capacity, min(target.max_capacity, wanted))
        if wanted != self.count:
            self.hosting.scale(self.resource, self.variant, wanted)

    def _is_there(self) -> bool:
        """Return whether an update has left the variant."""
        variants = self.resource.variants if isinstance(self.resource, Endpoint) else []
        return self.variant is None or self.variant in {one.name for one in variants}

    def _policies(self) -> list[Any]:
        from moto.applicationautoscaling.models import applicationautoscaling_backends

        policies = applicationautoscaling_backends[self.resource.account][self.resource.region].policies.values()
        return [p for p in policies if (p.resource_id, p.scalable_dimension) == (self._id, self._dimension)]

    def _by_steps(self, policy: Any) -> int:
        """Return what a step policy makes of the count: an alarm that rings and names it calls on it."""
        configuration = policy.step_scaling_policy_configuration
        if not any(policy.policy_arn in alarm.alarm_actions for alarm in self._ringing()):
            return self.count
        step = max(one["ScalingAdjustment"] for one in configuration["StepAdjustments"])
        if configuration.get("AdjustmentType") == "ExactCapacity":
            return int(step)
        return self.count + int(step)

    def _ringing(self) -> Iterator[Any]:
        """Yield the alarms on figures of this resource whose threshold is passed in their period."""
        from moto.cloudwatch.models import cloudwatch_backends

        for alarm in list(cloudwatch_backends[self.resource.account][self.resource.region].alarms.values()):
            value = self._value(alarm.metric_name, {one.name: one.value for one in alarm.dimensions}, alarm.period)
            if value is not None and _HOLDS[alarm.comparison_operator](value, float(alarm.threshold)):
                yield alarm

    def _value(self, name: str, dimensions: dict[str, str], period: float) -> float | None:
        """Return a figure of this resource now; None for one of another, and without data."""
        if self.resource.name not in dimensions.values():
            return None
        backlog = self._backlog()
        if name == "HasBacklogWithoutCapacity":
            return float(backlog > 0 and self.count == 0)
        if name == "ApproximateBacklogSize":
            return float(backlog)
        if name == "ApproximateBacklogSizePerInstance":
            return backlog / self.count if self.count else None
        since = self.hosting.clock.now() - timedelta(seconds=max(float(period), self.hosting.timeline.evaluation))
        values = self.hosting.metrics.since(since, name, dimensions)
        return sum(values) if values else None

    def _backlog(self) -> int:
        return self.hosting.backlog(self.resource).size if isinstance(self.resource, Endpoint) else 0

    def _by_tracking(self, policy: Any) -> int:
        """Return the count with which the figure of a target tracking policy would be at its target."""
        configuration = policy.target_tracking_scaling_policy_configuration
        target = float(configuration["TargetValue"])
        customized = configuration.get("CustomizedMetricSpecification")
        if customized is None:
            load = self._load(configuration["PredefinedMetricSpecification"]["PredefinedMetricType"])
        elif customized["MetricName"] == "ApproximateBacklogSizePerInstance":
            load = float(self._backlog())
        else:
            dimensions = {one["Name"]: one["Value"] for one in customized.get("Dimensions", [])}
            load = (self._value(customized["MetricName"], dimensions, 60) or 0) * self.count
        if self.count == 0:  # nothing is measured of no instances
            return 0
        return math.ceil(load / target)

    def _load(self, metric: str) -> float:
        """Return the figure of all instances together that a predefined metric has for each of them."""
        if "ConcurrentRequests" in metric:
            return float(sum(server.in_flight for server in self.hosting.servers_of(self.resource)))
        dimensions = {"EndpointName": self.resource.name, "VariantName": self.variant or ""}
        if self.variant is None:
            dimensions = {"InferenceComponentName": self.resource.name}
        since = self.hosting.clock.now() - timedelta(seconds=60)
        return sum(self.hosting.metrics.since(since, "Invocations", dimensions))

    def _after_cooldown(self, wanted: int) -> int:
        """Return a smaller count only when it was wanted for as long as the cooldown of its policies."""
        now = self.hosting.clock.now()
        if wanted >= self.count:
            self._quiet_since = now
            return wanted
        cooldowns = []
        for policy in self._policies():
            configuration = policy.target_tracking_scaling_policy_configuration or {}
            cooldowns.append(configuration.get("ScaleInCooldown", 300))
        if (now - self._quiet_since).total_seconds() < max(cooldowns):
            return self.count
        self._quiet_since = now
        return wanted


def target_of(resource: Resource, dimension: str, resource_id: str) -> Any | None:
    """Return a scalable target."""
    return _targets(resource).get(dimension, {}).get(resource_id)


def variant_target(endpoint: Endpoint, variant: str) -> Any | None:
    """Return the scalable target of a variant."""
    return target_of(endpoint, VARIANT_DIMENSION, f"endpoint/{endpoint.name}/variant/{variant}")


def deregister(endpoint: Endpoint) -> None:
    """Have an endpoint's variants scale no more, as the service does when it is deleted."""
    from moto.applicationautoscaling.models import applicationautoscaling_backends

    backend = applicationautoscaling_backends[endpoint.account][endpoint.region]
    for resource_id in list(_targets(endpoint).get(VARIANT_DIMENSION, {})):
        if resource_id.startswith(f"endpoint/{endpoint.name}/"):
            backend.deregister_scalable_target("sagemaker", resource_id, VARIANT_DIMENSION)


def _targets(resource: Resource) -> dict[str, dict[str, Any]]:
    from moto.applicationautoscaling.models import applicationautoscaling_backends

    targets: dict[str, dict[str, Any]] = applicationautoscaling_backends[resource.account][resource.region].targets
    return targets


def ringing(endpoint: Endpoint, hosting: "Hosting", alarms: list[str]) -> list[str]:
    """Return which of some alarms ring: those whose state was set, and those whose figure is beyond its threshold."""
    from moto.cloudwatch.models import cloudwatch_backends

    known = cloudwatch_backends[endpoint.account][endpoint.region].alarms
    found = []
    for name in alarms:
        alarm = known.get(name)
        if alarm is None:
            continue
        period = timedelta(seconds=max(float(alarm.period or 60), hosting.timeline.evaluation))
        dimensions = {one.name: one.value for one in alarm.dimensions}
        values = hosting.metrics.since(hosting.clock.now() - period, alarm.metric_name, dimensions)
        beyond = bool(values) and _HOLDS[alarm.comparison_operator](sum(values), float(alarm.threshold))
        if alarm.state_value == "ALARM" or beyond:
            found.append(name)
    return found


def know_components() -> None:
    """Have moto's Application Auto Scaling know the copies of components, which it takes for a mistake."""
    from moto.applicationautoscaling import models, responses

    def are_valid(namespace: str, r_id: str, dimension: str) -> bool:
        is_component = dimension == COPIES_DIMENSION and namespace == "sagemaker"
        return (is_component and r_id.startswith("inference-component/")) or known(namespace, r_id, dimension)

    if not getattr(models, "knows_components", False):
        known = models._target_params_are_valid
        models._target_params_are_valid = are_valid
        models.knows_components = True
        dimensions = [*responses.ScalableDimensionValueSet, SimpleNamespace(value=COPIES_DIMENSION)]
        responses.ScalableDimensionValueSet = dimensions
