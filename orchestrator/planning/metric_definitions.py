"""The regular expressions by which the service reads figures out of a job's log, made from the event classes.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_MetricDefinition.html
"""

from orchestrator.contract.events import Metrics, Step
from orchestrator.contract.figures import FIGURES

_NUMBER = "(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)"  # as JSON writes it; the group is the figure


def metric_definitions() -> list[dict[str, str]]:
    """Return name and regular expression of every figure that events carry.

    A quotation mark inside a message is escaped in JSON, so no text that a job prints passes for an event.
    """
    steps = [name for name, field in Step.model_fields.items() if field.annotation in (int, float) and name != "of"]
    return [
        *(_definition(name, Step.model_fields["event"].default, name) for name in steps),
        *(_definition(name, Metrics.model_fields["event"].default, name) for name in FIGURES),
    ]


def _definition(metric: str, event: str, key: str) -> dict[str, str]:
    return {"Name": metric, "Regex": rf'^\{{"event": ?"{event}",.*"{key}": ?{_NUMBER}'}
