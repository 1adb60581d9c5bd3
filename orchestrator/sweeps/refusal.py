"""One refusal for all jobs of a sweep: each problem once, with the settings it comes from."""

from collections.abc import Mapping, Sequence

from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.secret_scan import looks_like

Words = Mapping[str, str]
"""Fields and their values, as they are typed."""

FIX_AND_REPEAT = "fix the problems above and run the sweep again"


def refusal(
    settings: Sequence[Words],
    errors: Mapping[int, OrchestratorError],
) -> OrchestratorError:
    """Return the error that says what is wrong with the jobs: `errors` by their number among all `settings`.

    A problem of every job is reported without settings; one of all jobs with rank=0 once, with `rank=0` before it.
    """
    problems: list[Problem] = []
    for problem, numbers in _jobs_by_problem(errors).items():
        problems += _with_settings(problem, numbers, settings)
    count = counted(len(problems), "problem")
    kind = _common_kind(errors)
    refused = kind(
        f"The sweep has {count}; nothing was started.",
        problems=problems,
        next_step=_common_next_step(errors),
    )
    for error in errors.values():
        refused.add_warnings(error.warnings)
    return refused


def label(settings: Words) -> str:
    """Return settings as they are typed, on one line."""
    return " ".join(f"{field}={value}" for field, value in settings.items())


def _jobs_by_problem(
    errors: Mapping[int, OrchestratorError],
) -> dict[Problem, list[int]]:
    """Return the numbers of the jobs that have each problem."""
    jobs: dict[Problem, list[int]] = {}
    for number, error in errors.items():
        without_problems = Problem(where="job", what=error.message)
        for problem in error.problems or [without_problems]:
            numbers = jobs.setdefault(problem, [])
            numbers.append(number)
    return jobs


def _common_kind(
    errors: Mapping[int, OrchestratorError],
) -> type[OrchestratorError]:
    """Return the class of all errors, or SpecError when they have several: it decides the exit code."""
    kinds = {type(error) for error in errors.values()}
    if len(kinds) == 1:
        return kinds.pop()
    return SpecError


def _common_next_step(
    errors: Mapping[int, OrchestratorError],
) -> str:
    """Return what to do next: what every error says, or else what helps in any case."""
    next_steps = {error.next_step for error in errors.values()}
    if len(next_steps) == 1:
        return next_steps.pop()
    return FIX_AND_REPEAT


def _with_settings(
    problem: Problem,
    numbers: Sequence[int],
    settings: Sequence[Words],
) -> list[Problem]:
    """Return a problem of some jobs with the settings it comes from.

    It is reported once if no other job has all the settings that these jobs share, and else once for each job.
    """
    having = [settings[number] for number in numbers]
    shared = _shared(having)
    count = 0
    for words in settings:
        if shared.items() <= words.items():
            count += 1
    if count == len(having):
        return [_labelled(problem, shared)]
    return [_labelled(problem, words) for words in having]


def _shared(settings: Sequence[Words]) -> Words:
    """Return the fields that have one value in all settings, in their order."""
    first, *others = settings
    shared = dict(first)
    for other in others:
        for field, value in first.items():
            if other.get(field) != value:
                shared.pop(field, None)
    return shared


def _labelled(problem: Problem, settings: Words) -> Problem:
    """Return a problem with settings before its field; a value that looks like a secret is not printed."""
    if not settings:
        return problem
    shown = {}
    for field, value in settings.items():
        hidden = looks_like(value)
        shown[field] = "..." if hidden else value
    where = f"{label(shown)}: {problem.where}"
    return problem.model_copy(update={"where": where})
