"""The command line, one module for each noun. Functions import what they need, so that `--help` stays fast."""

import click

from orchestrator import __version__
from orchestrator.cli.adapters import adapters
from orchestrator.cli.completion import completion
from orchestrator.cli.deploy import deploy
from orchestrator.cli.endpoints import endpoints
from orchestrator.cli.evaluate import evaluate
from orchestrator.cli.generate import generate
from orchestrator.cli.infra import infra
from orchestrator.cli.jobs import jobs
from orchestrator.cli.label import label
from orchestrator.cli.models import models
from orchestrator.cli.recipes import recipes
from orchestrator.cli.submit import submit
from orchestrator.cli.sweep import sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrator")
def cli() -> None:
    """Personalise image models: photos and a prompt in, an adapter out.

    Start with `submit dreambooth`: it needs no account, no GPU and no download.
    """


cli.add_command(submit)
cli.add_command(sweep)
cli.add_command(adapters)
cli.add_command(evaluate)
cli.add_command(deploy)
cli.add_command(endpoints)
cli.add_command(generate)
cli.add_command(label)
cli.add_command(jobs)
cli.add_command(models)
cli.add_command(recipes)
cli.add_command(infra)
cli.add_command(completion)
