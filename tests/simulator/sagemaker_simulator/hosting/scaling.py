"""Alarms and scaling policies, as moto keeps them: looked at in this process, so that no permission is needed."""

from typing import Any

from .records import Endpoint

VARIANT_DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def variant_target(endpoint: Endpoint, variant: str) -> Any | None:
    """Return the scalable target of a variant."""
    return _target(endpoint.account, endpoint.region, VARIANT_DIMENSION, f"endpoint/{endpoint.name}/variant/{variant}")


def _target(account: str, region: str, dimension: str, resource: str) -> Any | None:
    from moto.applicationautoscaling.models import applicationautoscaling_backends

    return applicationautoscaling_backends[account][region].targets.get(dimension, {}).get(resource)


def ringing(account: str, region: str, alarms: list[str]) -> list[str]:
    """Return which of some alarms are in the state ALARM."""
    from moto.cloudwatch.models import cloudwatch_backends

    known = cloudwatch_backends[account][region].alarms
    return [name for name in alarms if name in known and known[name].state_value == "ALARM"]
