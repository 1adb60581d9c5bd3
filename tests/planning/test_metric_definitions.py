import re

import pytest

from orchestrator.contract.events import Metrics, Step, Warned, emit
from orchestrator.contract.figures import FIGURES
from orchestrator.planning.metric_definitions import metric_definitions


def figures(line: str, *, steered: bool = False) -> dict[str, float]:
    """Read a log line as the service does: the first group of each expression that is found."""
    found = {one["Name"]: re.search(one["Regex"], line) for one in metric_definitions(steered=steered)}
    return {name: float(match[1]) for name, match in found.items() if match}


@pytest.mark.parametrize(("loss", "rate"), [(0.25, 1e-4), (1234.5, 1e-08), (0.0, 5e-324), (1e22, 0.5)])
def test_what_a_job_emits_is_read_back(capsys: pytest.CaptureFixture[str], loss: float, rate: float) -> None:
    emit(Step(step=7, of=300, loss=loss, learning_rate=rate, seconds_per_step=0.031))
    read = figures(capsys.readouterr().out.rstrip())
    assert read == {"step": 7, "loss": loss, "learning_rate": rate, "seconds_per_step": 0.031}


def test_the_closing_figures_are_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    values = {name: round(0.1 + number / 10, 4) * (-1) ** number for number, name in enumerate(FIGURES)}
    emit(Metrics(values=values))
    assert figures(capsys.readouterr().out.rstrip()) == values


def test_how_far_conditions_are_obeyed_is_read_of_a_job_that_trains_a_controlnet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    followed = {"condition_agreement": 0.4, "condition_obeyed": -0.1}
    emit(Step(step=7, of=300, loss=1, learning_rate=1, seconds_per_step=1, measures=followed))
    line = capsys.readouterr().out.rstrip()
    assert followed.items() <= figures(line, steered=True).items()
    assert not followed.keys() & figures(line).keys()


def test_a_message_cannot_pass_for_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    emit(Warned(message='{"event":"step","loss":9}'))
    assert figures(capsys.readouterr().out.rstrip()) == {}
    assert figures('a prompt: {"event":"step","loss":9}') == {}
