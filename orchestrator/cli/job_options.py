"""The options that `submit` and `sweep` share: what the job is, and where it runs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import field_names, files, folders, recipes_and_files
from orchestrator.targets.names import LOCAL_TARGETS, TARGET_NAMES, TargetName

if TYPE_CHECKING:
    from orchestrator.targets.local.queue import Turn

_COMPUTE = ("instance_type", "spot")
_SECTIONS = ("compute.", "budget.")
_INSTANCES = "-s compute.instance_count"
_FOR_SAGEMAKER = (*_COMPUTE, "max_usd", "fallback", "wait_minutes")
_BASE_MODEL = click.option(
    "--base-model",
    metavar="MODEL",
    shell_complete=folders,
    help="builtin, a folder, or a Hugging Face id.",
)
_SCORER = click.option(
    "--scorer",
    metavar="FOLDER",
    shell_complete=folders,
    help="A CLIP that measures the figures; else the base model's own.",
)
_INSTANCE_TYPE = click.option(
    "--instance-type",
    metavar="TYPE",
    help="On SageMaker: ml.g5.xlarge, ...; chosen when left out.",
)
_SPOT = click.option(
    "--spot",
    is_flag=True,
    default=None,
    help="On SageMaker: spot instances, which are cheaper and can be interrupted.",
)
_WAIT = click.option(
    "--wait",
    type=click.Choice(("hold", "release")),
    help="While people label (reward human): end the job until they have, the default, or keep it running.",
)
_FOR_THIS_MACHINE = ("queue", "together")
_WHAT = click.argument("what", metavar="RECIPE|JOB.yaml", shell_complete=recipes_and_files)
_IMAGES = click.option(
    "--images",
    metavar="DIR",
    shell_complete=folders,
    help="Folder with your images; the built-in sample subject when left out.",
)
_PROMPTS = click.option(
    "--prompts",
    metavar="FILE",
    shell_complete=files,
    help="For rlhf: a file with a prompt on each line; those of the package when left out.",
)


def turn_options(function: Any) -> Any:  # click's decorators take any function
    """Decorate a command that starts a job on this machine with what it does while another one runs."""
    queue = click.option(
        "--queue",
        is_flag=True,
        help="On this machine: start after all jobs before it have ended.",
    )
    together = click.option(
        "--together",
        is_flag=True,
        help="On this machine: start at once, also beside other jobs.",
    )
    return queue(together(function))


def turn_of(*, queue: bool, together: bool) -> "Turn":
    """Return when a job on this machine starts."""
    from orchestrator.targets.local.queue import Turn

    if queue and together:
        raise click.UsageError("--queue starts a job after the others and --together beside them: choose one.")
    if queue:
        return Turn.QUEUED
    if together:
        return Turn.TOGETHER
    return Turn.ALONE


def job_options(*, setting: str, sets: str, max_usd: str) -> Callable[[Any], Any]:
    """Return the decorator that adds the options of a job; the help of `-s` and `--max-usd` differs by command."""
    options = (
        _WHAT,
        _IMAGES,
        _PROMPTS,
        click.option("--prompt", help='What the images show, with the rare token: "a photo of sks dog".'),
        _BASE_MODEL,
        _SCORER,
        click.option("--name", help="Name of the adapter; the job's name when left out."),
        click.option(
            "-s",
            "--set",
            "pairs",
            metavar=setting,
            shell_complete=field_names,
            multiple=True,
            help=sets,
        ),
        click.option(
            "--target",
            type=click.Choice(TARGET_NAMES),
            default=TargetName.LOCAL.value,
            help="Where to train: a process of this machine, a container on it, or SageMaker.",
        ),
        _WAIT,
        _INSTANCE_TYPE,
        _SPOT,
        click.option("--max-usd", metavar="USD", help=max_usd),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_target(target: str, given: Mapping[str, Any]) -> None:
    """Raise SpecError for options and settings that the chosen target would ignore."""
    if target in LOCAL_TARGETS:
        settings = _section_settings(given.get("pairs", ()))
        if target == TargetName.CONTAINER:  # each instance is a container
            settings = [setting for setting in settings if setting != _INSTANCES]
        typed = _flags_in(given, _FOR_SAGEMAKER) + settings
        _refuse(typed, "a job on SageMaker", "add --target sagemaker, or leave it out")
    else:
        typed = _flags_in(given, _FOR_THIS_MACHINE)
        _refuse(typed, "a job on this machine", "leave it out: jobs on SageMaker run at once")


def _flags_in(given: Mapping[str, Any], options: Sequence[str]) -> list[str]:
    """Return those of the options that were given, as they were typed."""
    typed = []
    for name in options:
        if given.get(name):
            flag = name.replace("_", "-")
            typed.append(f"--{flag}")
    return typed


def _section_settings(pairs: Sequence[str]) -> list[str]:
    """Return the settings of machines and money among those that were typed as FIELD=VALUE."""
    typed = []
    for pair in pairs:
        field = pair.partition("=")[0]
        if field.startswith(_SECTIONS):
            typed.append(f"-s {field}")
    return typed


def _refuse(typed: Sequence[str], where: str, next_step: str) -> None:
    """Raise SpecError if anything was typed that is for another target."""
    from orchestrator.errors import SpecError

    if typed:
        flags = " and ".join(typed)
        raise SpecError(f"{flags} can only be given for {where}; nothing was started.", next_step=next_step)


def ask_to_spend(question: str, *, yes: bool, capped: bool, what: str = "A job", cap: str = "--max-usd") -> None:
    """Ask before money is spent; without a terminal, require a cap (`capped`) instead. Raises SpecError or Exit.

    `cap` is the option that sets one; empty for what has none.
    """
    from orchestrator.errors import SpecError

    if yes:
        return
    if sys.stdin.isatty():
        if not click.confirm(question, default=False, err=True):
            click.echo("Nothing was started.", err=True)
            raise click.exceptions.Exit(1)
    elif not capped:
        cost = "costs money"
        next_step = "add --yes"
        if cap:
            cost = "may cost money without a cap"
            next_step = f"add {cap} USD, or --yes"
        message = f"{what} that {cost} has to be confirmed, and there is no terminal to ask on."
        raise SpecError(f"{message} Nothing was started.", next_step=next_step)


def spec_fields(what: str, given: dict[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields for `build_spec`: those of the job file, overridden by the options that were given.

    Raises SpecError when the file, or the options and the `overrides` (-s), set one field twice.
    """
    from orchestrator.specs.building import require_said_once
    from orchestrator.specs.job_file import read_job_file

    fields: dict[str, Any] = {"recipe": what}
    if what.endswith((".yaml", ".yml")):
        fields = read_job_file(Path(what))
        settings = fields.get("settings")
        if isinstance(settings, dict):
            require_said_once(fields.get("recipe"), fields, settings)
    typed = {key: value for key, value in given.items() if value is not None}
    require_said_once(fields.get("recipe"), typed, overrides)
    compute = {key: typed.pop(key) for key in _COMPUTE if key in typed}
    budget = {}
    if "max_usd" in typed:
        budget["max_usd"] = typed.pop("max_usd")
    for name, part in (("compute", compute), ("budget", budget)):
        in_file = fields.get(name) or {}
        if part and isinstance(in_file, dict):  # any other value is refused with the other problems of the file
            typed[name] = {**in_file, **part}
    return {**fields, **typed}
