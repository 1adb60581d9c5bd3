"""One refusal for all jobs of a sweep: each problem once, with the settings it comes from."""

from collections.abc import Mapping, Sequence

from orchestrator.contract.problem import Problem
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.secret_scan import looks_like

Words = Mapping[str, str]


def refusal(settings: Sequence[Words], errors: Mapping[int, OrchestratorError]) -> OrchestratorError:
    """Return the error that says what is wrong with the jobs: `errors` by their number among all `settings`.

    A problem of every job is said plainly; one of all jobs with rank=0 is said once, with `rank=0` before it.
    """
    jobs_with: dict[Problem, list[int]] = {}
    for number, error in errors.items():
        for problem in error.problems or [Problem(where="job", what=error.message)]:
            jobs_with.setdefault(problem, []).append(number)
    problems = [found for problem, numbers in jobs_with.items() for found in _said(problem, numbers, settings)]
    first = next(iter(errors.values()))
    kind = type(first) if len({type(error) for error in errors.values()}) == 1 else SpecError
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    next_steps = {error.next_step for error in errors.values()}
    return kind(
        f"The sweep has {count}; nothing was started.",
        problems=problems,
        next_step=first.next_step if len(next_steps) == 1 else "mend what is named above and sweep again",
    )


def label(settings: Words) -> str:
    """Return settings as they are typed, on one line."""
    return " ".join(f"{field}={value}" for field, value in settings.items())


def _said(problem: Problem, numbers: Sequence[int], settings: Sequence[Words]) -> list[Problem]:
    shared = dict(set.intersection(*(set(settings[number].items()) for number in numbers)))
    having = [number for number, words in enumerate(settings) if shared.items() <= words.items()]
    if having == list(numbers):
        return [_with(problem, {field: shared[field] for field in settings[0] if field in shared})]
    return [_with(problem, settings[number]) for number in numbers]


def _with(problem: Problem, settings: Words) -> Problem:
    shown = {field: "..." if looks_like(value) else value for field, value in settings.items()}  # a secret stays one
    return problem.model_copy(update={"where": f"{label(shown)}: {problem.where}"}) if settings else problem
