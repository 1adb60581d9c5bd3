"""The calls that make an endpoint grow and shrink, and its alarms. All of them are idempotent."""

from collections.abc import Iterable
from typing import Any

from orchestrator.aws.client import Aws, calling
from orchestrator.endpoints.sagemaker.names import ALARMS
from orchestrator.endpoints.sagemaker.scaling import (
    error_alarm_request,
    range_request,
    scalable,
    tracking_request,
    wake_alarm_request,
    wake_request,
)
from orchestrator.endpoints.sagemaker.tags import Record
from orchestrator.errors import MissingError


class Scaler:
    """Application Auto Scaling and the alarms of endpoints."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def scale(self, record: Record) -> None:
        """Have an endpoint scale within the range of its record; it has to be in service."""
        doing = f"have the endpoint {record.name} scale"
        with calling(doing):
            self._scaling.register_scalable_target(**range_request(record))
            self._scaling.put_scaling_policy(**tracking_request(record))
        if record.fewest:
            return
        with calling(doing):
            answer = self._scaling.put_scaling_policy(**wake_request(record))
            self._alarms.put_metric_alarm(**wake_alarm_request(record, answer["PolicyARN"]))

    def stop(self, record: Record) -> None:
        """Have an endpoint scale no more, which deletes its policies and their own alarms too."""
        try:
            with calling(f"have the endpoint {record.name} scale no more"):
                self._scaling.deregister_scalable_target(**scalable(record))
        except MissingError:  # it did not
            pass

    def watch_for_errors(self, record: Record) -> None:
        """Make the alarm that undoes an update."""
        with calling(f"make the alarm of the endpoint {record.name}"):
            self._alarms.put_metric_alarm(**error_alarm_request(record))

    def delete_alarms(self, names: Iterable[str]) -> None:
        """Delete alarms, as far as they are there."""
        for name in names:  # of several, one that is missing would keep the others
            try:
                with calling(f"delete the alarm {name}"):
                    self._alarms.delete_alarms(AlarmNames=[name])
            except MissingError:
                pass

    def alarms(self) -> list[str]:
        """Return the names of the alarms of all endpoints."""
        pages = self._alarms.get_paginator("describe_alarms").paginate(AlarmNamePrefix=ALARMS)
        with calling("list alarms"):
            return [alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]]

    @property
    def _scaling(self) -> Any:
        return self._aws.client("application-autoscaling")

    @property
    def _alarms(self) -> Any:
        return self._aws.client("cloudwatch")
