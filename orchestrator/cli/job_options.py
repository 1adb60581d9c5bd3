"""The options that `submit` and `sweep` share: what the job is, and where it runs."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from orchestrator.targets.names import TARGET_NAMES, TargetName

_COMPUTE = ("instance_type", "spot")
_SECTIONS = ("compute.", "budget.")
_FOR_SAGEMAKER = (*_COMPUTE, "max_usd", "fallback", "wait_minutes")


def job_options(*, setting: str, sets: str, max_usd: str) -> Callable[[Any], Any]:
    """Return the decorator that adds the options of a job; the help of `-s` and `--max-usd` differs by command."""
    options = (
        click.argument("what", metavar="RECIPE|JOB.yaml"),
        click.option(
            "--images",
            metavar="DIR",
            help="Folder with your images; the built-in sample subject when left out.",
        ),
        click.option("--prompt", help='What the images show, with the rare token: "a photo of sks dog".'),
        click.option(
            "--base-model",
            metavar="MODEL",
            help="builtin, a folder, or a Hugging Face id.",
        ),
        click.option("--name", help="Name of the adapter; the job's name when left out."),
        click.option(
            "-s",
            "--set",
            "pairs",
            metavar=setting,
            multiple=True,
            help=sets,
        ),
        click.option(
            "--target",
            type=click.Choice(TARGET_NAMES),
            default=TargetName.LOCAL.value,
            help="Where to train.",
        ),
        click.option(
            "--instance-type",
            metavar="TYPE",
            help="On SageMaker: ml.g5.xlarge, ...; chosen when left out.",
        ),
        click.option(
            "--spot",
            is_flag=True,
            default=None,
            help="On SageMaker: spot instances, which are cheaper and can be interrupted.",
        ),
        click.option("--max-usd", metavar="USD", help=max_usd),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def require_sagemaker(target: str, given: Mapping[str, Any]) -> None:
    """Raise SpecError for options of SageMaker that are given for a local job, which would ignore them."""
    from orchestrator.errors import SpecError

    typed = []
    for name in _FOR_SAGEMAKER:
        if given.get(name):
            flag = name.replace("_", "-")
            typed.append(f"--{flag}")
    for pair in given.get("pairs", ()):
        field = pair.partition("=")[0]
        if field.startswith(_SECTIONS):
            typed.append(f"-s {field}")
    if typed and target != TargetName.SAGEMAKER:
        flags = " and ".join(typed)
        raise SpecError(
            f"{flags} can only be given for a job on SageMaker; nothing was started.",
            next_step="add --target sagemaker, or leave it out",
        )


def ask_to_spend(question: str, *, yes: bool, capped: bool) -> None:
    """Ask before money is spent; without a terminal, require a cap (`capped`) instead. Raises SpecError or Exit."""
    from orchestrator.errors import SpecError

    if yes:
        return
    if sys.stdin.isatty():
        if not click.confirm(question, default=False, err=True):
            click.echo("Nothing was started.", err=True)
            raise click.exceptions.Exit(1)
    elif not capped:
        message = "A job that may cost money without a cap has to be confirmed, and there is no terminal to ask on."
        raise SpecError(f"{message} Nothing was started.", next_step="add --max-usd USD, or --yes")


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
