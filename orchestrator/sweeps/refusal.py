"""One refusal for all jobs of a sweep: each problem once, with the settings it comes from."""

from collections.abc import Mapping, Sequence

from orchestrator.contract.problem import Problem
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.secret_scan import looks_like

Words = Mapping[str, str]


def refusal(settings: Sequence[Words], errors: Mapping[int, OrchestratorError]) -> OrchestratorError:
    """Return the error that says what is wrong with the jobs: `errors` by their number among all `settings`.

    A problem of every job is reported without settings; one of all jobs with rank=0 once, with `rank=0` before it.
    """
    problems: list[Problem] = []
    for problem, numbers in _jobs_by_problem(errors).items():
        problems += _with_settings(problem, numbers, settings)
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    kind = _common_kind(errors)
    return kind(
        f"The sweep has {count}; nothing was started.",
        problems=problems,
        next_step=_common_next_step(errors),
    )


def label(settings: Words) -> str:
    """Return settings as they are typed, on one line."""
    return " ".join(f"{field}={value}" for field, value in settings.items())


def _jobs_by_problem(errors: Mapping[int, OrchestratorError]) -> dict[Problem, list[int]]:
    """Return the numbers of the jobs that have each problem."""
    jobs: dict[Problem, list[int]] = {}
    for number, error in errors.items():
        problems = error.problems or [Problem(where="job", what=error.message)]
        for problem in problems:
            jobs.setdefault(problem, []).append(number)
    return jobs


def _common_kind(errors: Mapping[int, OrchestratorError]) -> type[OrchestratorError]:
    kinds = {type(error) for error in errors.values()}
    return kinds.pop() if len(kinds) == 1 else SpecError


def _common_next_step(errors: Mapping[int, OrchestratorError]) -> str:
    next_steps = {error.next_step for error in errors.values()}
    if len(next_steps) == 1:
        return next_steps.pop()
    return "fix the problems above and run the sweep again"


def _with_settings(problem: Problem, numbers: Sequence[int], settings: Sequence[Words]) -> list[Problem]:
    """Return a problem once if the settings that its jobs share single them out, and else once for each job."""
    shared = _shared([settings[number] for number in numbers])
    jobs_with_shared = []
    for number, words in enumerate(settings):
        if shared.items() <= words.items():
            jobs_with_shared.append(number)
    if jobs_with_shared == list(numbers):
        return [_labelled(problem, shared)]
    return [_labelled(problem, settings[number]) for number in numbers]


def _shared(settings: Sequence[Words]) -> dict[str, str]:
    """Return the fields that have one value in all settings, in their order."""
    first, *others = settings
    shared = dict(first)
    for other in others:
        shared = {field: value for field, value in shared.items() if other.get(field) == value}
    return shared


def _labelled(problem: Problem, settings: Words) -> Problem:
    if not settings:
        return problem
    shown = {}
    for field, value in settings.items():
        shown[field] = "..." if looks_like(value) else value  # a secret is not printed
    return problem.model_copy(update={"where": f"{label(shown)}: {problem.where}"})
