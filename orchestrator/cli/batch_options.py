"""Options of a batch: what its lines leave out, and how its job is run where there is no endpoint to draw it."""

from collections.abc import Mapping
from typing import Any

import click

from orchestrator.cli.completion import folders
from orchestrator.cli.job_options import turn_options
from orchestrator.targets.names import TARGET_NAMES, TargetName

DEFAULT_SEED = 0
"""Of a line that says none, whoever draws it: the same line draws the same image again."""
_OF_LINES = {
    "seed": "--seed",
    "number": "-n",
    "steps": "--steps",
    "guidance": "--guidance",
    "size": "--size",
    "width": "--width",
    "height": "--height",
    "scheduler": "--scheduler",
    "negative": "--negative",
}
"""Options whose values lines have that do not say them."""
_FIELDS = {"number": "n", "negative": "negative_prompt"}
"""Fields of a line whose options are called otherwise."""
_NOT_OF_LINES = {
    "prompts": "--prompt",
    "controls": "--control",
    "image": "--image",
    "strength": "--strength",
    "mask": "--mask",
}
"""Options that a batch does not take."""
_OF_A_JOB = {
    "base_model": "--base-model",
    "target": "--target",
    "instances": "--instances",
    "instance_type": "--instance-type",
    "spot": "--spot",
    "max_usd": "--max-usd",
    "restart": "--restart",
    "dry_run": "--dry-run",
    "yes": "--yes",
    "detach": "--detach",
    "queue": "--queue",
    "together": "--together",
}
_JOB = (
    click.option(
        "--base-model",
        metavar="MODEL",
        shell_complete=folders,
        help="Batch without NAME: where the base model is, if not where it was in training.",
    ),
    click.option(
        "--target",
        type=click.Choice(TARGET_NAMES),
        help="Batch without NAME: where to draw; on this machine when left out.",
    ),
    click.option(
        "--instances",
        metavar="N",
        type=int,
        help="Batch without NAME: share the images among N instances; on this machine, N processes.",
    ),
    click.option("--instance-type", metavar="TYPE", help="On SageMaker: ml.g5.xlarge, ...; chosen when left out."),
    click.option("--spot", is_flag=True, default=None, help="On SageMaker: spot instances."),
    click.option("--max-usd", metavar="USD", help="On SageMaker: what the job may cost; sets its time limit."),
    click.option("--restart", is_flag=True, help="Start the same job again from its beginning."),
    click.option("--dry-run", is_flag=True, help="Show what would be started and start nothing."),
    click.option("--yes", is_flag=True, help="On SageMaker: do not ask before spending."),
    click.option("--detach", is_flag=True, help="Return at once; `jobs wait` watches the job."),
)


def batch_job_options(function: Any) -> Any:  # click's decorators take any function
    """Decorate a command with how the job of a batch is run."""
    function = turn_options(function)
    for option in reversed(_JOB):
        function = option(function)
    return function


def taken_job_options(given: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a job out of all that were given, with their defaults."""
    taken = {name: given.pop(name) for name in _OF_A_JOB}
    taken["target"] = taken["target"] or TargetName.LOCAL.value
    if taken["instances"] is None:
        taken["instances"] = 1
    return taken


def typed_job_options(given: Mapping[str, Any]) -> list[str]:
    """Return the options of a job that were typed."""
    typed = []
    for name, option in _OF_A_JOB.items():
        if given[name] is not None and given[name] is not False:
            typed.append(option)
    return typed


def require_lines_say_it(given: Mapping[str, Any]) -> None:
    """Raise SpecError for options that say what the lines of a file have to say."""
    from orchestrator.contract.command_line import command
    from orchestrator.errors import SpecError

    typed = [option for name, option in _NOT_OF_LINES.items() if given[name]]
    if typed:
        listed = " and ".join(typed)
        raise SpecError(
            f"--batch draws what the lines of its file say, and {listed} goes with no file. Nothing was drawn.",
            next_step=f"leave it out; fields of a line: {command('generate', '--help')}",
        )


def chosen_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of lines that do not say them; raises SpecError for those that cannot be."""
    from orchestrator.contract.command_line import command
    from orchestrator.errors import SpecError
    from orchestrator.specs.batch_line import check_chosen

    chosen: dict[str, Any] = {"seed": DEFAULT_SEED, "n": 1}
    options = {}
    for name, option in _OF_LINES.items():
        field = _FIELDS.get(name, name)
        options[field] = option
        if given[name] is not None:
            chosen[field] = given[name]
    problems = []
    for problem in check_chosen(chosen):
        option = options.get(problem.where, problem.where)
        at_option = problem.model_copy(update={"where": option})
        problems.append(at_option)
    if problems:
        raise SpecError(
            "The batch cannot be drawn as asked. Nothing was started.",
            problems=problems,
            next_step=command("generate", "--help"),
        )
    return chosen
