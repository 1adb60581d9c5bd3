"""Regular expressions with which SageMaker reads metrics from a job's log, derived from the event classes.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_MetricDefinition.html
"""

from orchestrator.contract.events import Metrics, Step
from orchestrator.contract.figures import CONTROL_FIGURES, CONTROL_MEASURES, FIGURES, ROUND_MEASURES

_NUMBER = "(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)"  # as JSON writes it; the group is the value


def metric_definitions(*, steered: bool, rewarded: bool = False) -> list[dict[str, str]]:
    """Return MetricDefinitions: name and regular expression of every number that the events of a job hold.

    `steered` says that it trains a ControlNet, and `rewarded` that it learns from rewards; both have figures of their
    own.

    JSON escapes quotation marks inside a string, so no text that a job prints can match as an event.
    """
    definitions = []
    for name, field in Step.model_fields.items():
        if field.annotation in (int, float) and name != "of":
            definitions.append(_definition(name, _event_name(Step)))
    figures = list(FIGURES)
    if steered:
        figures += CONTROL_FIGURES
        for measure in CONTROL_MEASURES:
            definitions.append(_definition(measure.name, _event_name(Step)))  # among its measures
    if rewarded:
        for name in ROUND_MEASURES:
            definitions.append(_definition(name, _event_name(Step)))  # among its measures too
    for name in figures:
        definitions.append(_definition(name, _event_name(Metrics)))
    return definitions


def _event_name(event: type[Step | Metrics]) -> str:
    return str(event.model_fields["event"].default)


def _definition(key: str, event: str) -> dict[str, str]:
    pattern = rf'^\{{"event": ?"{event}",.*"{key}": ?{_NUMBER}'
    return {"Name": key, "Regex": pattern}
