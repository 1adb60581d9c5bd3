"""How an endpoint grows and shrinks, as request values: the range, the policies, and the alarms.

Target tracking cannot leave zero instances, of which nothing is measured; there an alarm of its own starts the first.
https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling.html,
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-autoscale.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.names import VARIANT, base_component, error_alarm, wake_alarm
from orchestrator.endpoints.sagemaker.tags import Record
from orchestrator.requests import ENDPOINT_TAG, Request, tag

METRICS = "AWS/SageMaker"
TRACKING_POLICY = "orchestrator-tracking"
WAKE_POLICY = "orchestrator-wake"
_PER_MINUTE = 12.0
"""Requests a minute that one instance should have; more of them start another."""
_BACKLOG = 4.0
"""Requests that should wait for each instance of an asynchronous endpoint."""
_SLOW_SECONDS = 600
"""Before instances are given back, and before the last one is."""
_FAST_SECONDS = 120
"""Between starts of further instances."""
_MINUTE = 60
_ERRORS = 5
"""Server errors in a minute that undo an update."""


def scalable(record: Record) -> Request:
    """Return what of an endpoint is scaled, as all calls of Application Auto Scaling name it."""
    if record.mode is Mode.COMPONENTS:
        return {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"inference-component/{base_component(record.name)}",
            "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
        }
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{record.name}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def scales(record: Record) -> bool:
    """Return whether the number of instances changes by itself."""
    return record.fewest < record.most


def range_request(record: Record) -> Request:
    """Return the RegisterScalableTarget request."""
    return {
        **scalable(record),
        "MinCapacity": record.fewest,
        "MaxCapacity": record.most,
        "Tags": {ENDPOINT_TAG: record.name},
    }


def tracking_request(record: Record) -> Request:
    """Return the PutScalingPolicy request that keeps the load of each instance near a target."""
    tracked: Request = {"TargetValue": _PER_MINUTE, "ScaleInCooldown": _SLOW_SECONDS, "ScaleOutCooldown": _FAST_SECONDS}
    match record.mode:
        case Mode.ASYNC:
            tracked["TargetValue"] = _BACKLOG
            tracked["CustomizedMetricSpecification"] = {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": METRICS,
                "Dimensions": _dimensions({"EndpointName": record.name}),
                "Statistic": "Average",
            }
        case Mode.COMPONENTS:
            metric = "SageMakerInferenceComponentInvocationsPerCopy"
            tracked["PredefinedMetricSpecification"] = {"PredefinedMetricType": metric}
        case Mode.REALTIME:
            metric = "SageMakerVariantInvocationsPerInstance"
            tracked["PredefinedMetricSpecification"] = {"PredefinedMetricType": metric}
    return {
        **scalable(record),
        "PolicyName": TRACKING_POLICY,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": tracked,
    }


def wake_request(record: Record) -> Request:
    """Return the PutScalingPolicy request that starts the first instance; an alarm calls on it."""
    return {
        **scalable(record),
        "PolicyName": WAKE_POLICY,
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Maximum",
            "Cooldown": _FAST_SECONDS,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    }


def wake_alarm_request(record: Record, policy_arn: str) -> Request:
    """Return the PutMetricAlarm request for requests that come while there is no instance."""
    metric, statistic = "HasBacklogWithoutCapacity", "Maximum"
    dimensions = {"EndpointName": record.name}
    if record.mode is Mode.COMPONENTS:
        metric, statistic = "NoCapacityInvocationFailures", "Sum"
        dimensions = {"InferenceComponentName": base_component(record.name)}
    return {
        **_alarm(
            record,
            metric,
            dimensions,
            threshold=1.0,
        ),
        "AlarmName": wake_alarm(record.name),
        "AlarmDescription": f"Starts an instance of the endpoint {record.name} when it is called and has none.",
        "AlarmActions": [policy_arn],
        "Statistic": statistic,
    }


def error_alarm_request(record: Record) -> Request:
    """Return the PutMetricAlarm request for server errors, which undo an update."""
    dimensions = {"EndpointName": record.name, "VariantName": VARIANT}
    return {
        **_alarm(
            record,
            "Invocation5XXErrors",
            dimensions,
            threshold=float(_ERRORS),
        ),
        "AlarmName": error_alarm(record.name),
        "AlarmDescription": f"Undoes an update of the endpoint {record.name} after which its server fails.",
        "Statistic": "Sum",
    }


def _alarm(
    record: Record,
    metric: str,
    dimensions: Mapping[str, str],
    *,
    threshold: float,
) -> Request:
    return {
        "Namespace": METRICS,
        "MetricName": metric,
        "Dimensions": _dimensions(dimensions),
        "Period": _MINUTE,
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": threshold,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "Tags": [tag(ENDPOINT_TAG, record.name)],
    }


def _dimensions(values: Mapping[str, str]) -> list[Any]:
    return [{"Name": name, "Value": value} for name, value in values.items()]
