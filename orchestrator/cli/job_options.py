"""What a person says of a job on the command line: the same flags for one job and for several."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

_COMPUTE = ("instance_type", "spot")
_FOR_SAGEMAKER = (*_COMPUTE, "max_usd", "fallback", "wait_minutes")


def job_options(*, setting: str, sets: str, max_usd: str) -> Callable[[Any], Any]:
    """Return the decorator that gives a command a job's flags; `-s` and `--max-usd` mean what the command says."""
    options = (
        click.argument("what", metavar="RECIPE|JOB.yaml"),
        click.option(
            "--images", metavar="DIR", help="Folder with your pictures; the built-in sample subject when left out."
        ),
        click.option("--prompt", help='What is on them, with the rare token: "a photo of sks dog".'),
        click.option("--base-model", metavar="MODEL", help="builtin, a folder, or a Hugging Face id."),
        click.option("--name", help="Name of the adapter; the job's name when left out."),
        click.option("-s", "--set", "pairs", metavar=setting, multiple=True, help=sets),
        click.option("--target", type=click.Choice(["local", "sagemaker"]), default="local", help="Where to train."),
        click.option("--instance-type", metavar="TYPE", help="On SageMaker: ml.g5.xlarge, ...; chosen when left out."),
        click.option(
            "--spot", is_flag=True, default=None, help="On SageMaker: spare capacity, cheaper and interruptible."
        ),
        click.option("--max-usd", metavar="USD", help=max_usd),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def insist_on_sagemaker(target: str, given: Mapping[str, Any]) -> None:
    """Raise SpecError for flags of SageMaker that were typed for a job of this machine: it would not heed them."""
    from orchestrator.errors import SpecError

    typed = [f"--{name.replace('_', '-')}" for name in _FOR_SAGEMAKER if given.get(name)]
    if target == "local" and typed:
        raise SpecError(
            f"{' and '.join(typed)} can only be said of a job on SageMaker; nothing was started.",
            next_step="add --target sagemaker, or leave it out",
        )


def ask_to_spend(question: str, *, yes: bool, capped: bool) -> None:
    """Ask before money is spent; where nobody can be asked, a cap stands for the answer. Raises SpecError or Exit."""
    from orchestrator.errors import SpecError

    if yes:
        return
    if sys.stdin.isatty():
        if not click.confirm(question, default=False, err=True):
            click.echo("Nothing was started.", err=True)
            raise click.exceptions.Exit(1)
    elif not capped:
        message = "What may cost money without a cap has to be agreed to, and there is no terminal to ask on."
        raise SpecError(f"{message} Nothing was started.", next_step="add --max-usd USD, or --yes")


def spec_fields(what: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `specs.build_spec`: those of the job file, and over them what was typed."""
    from orchestrator.specs.job_file import read_job_file

    fields: dict[str, Any] = read_job_file(Path(what)) if what.endswith((".yaml", ".yml")) else {"recipe": what}
    said = {key: value for key, value in given.items() if value is not None}
    compute = {key: said.pop(key) for key in _COMPUTE if key in said}
    budget = {"max_usd": said.pop("max_usd")} if "max_usd" in said else {}
    for name, part in (("compute", compute), ("budget", budget)):
        own = fields.get(name) or {}
        if part and isinstance(own, dict):  # what is none is refused with the other problems of the file
            said[name] = {**own, **part}
    return {**fields, **said}
