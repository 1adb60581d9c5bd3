"""What an error gathers before a person reads it."""

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError


def test_a_warning_is_printed_with_the_problems_and_once() -> None:
    error = SpecError("The job cannot start.", next_step="orchestrator recipes list")
    warning = Problem(where="images", what="has only one picture", fix="add some")
    error.add_warnings([warning])
    error.add_warnings([warning])
    assert error.render().count("has only one picture") == 1
