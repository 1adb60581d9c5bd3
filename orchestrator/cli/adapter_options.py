"""What every command takes that draws with an adapter."""

from typing import Any

import click

from orchestrator.cli.completion import adapter_names

_WEIGHT = click.option(
    "--weight", type=float, help="Strength of the adapter; 1 when left out, and 0 is the base model alone."
)
_BASE_MODEL = click.option(
    "--base-model", metavar="MODEL", help="Where the base model is, if not where it was in training."
)


def adapter_options(function: Any) -> Any:  # click's decorators take any function
    """Decorate a command with the adapter, its strength, and the place of its base model."""
    argument = click.argument("adapter", metavar="NAME|FOLDER", shell_complete=adapter_names)
    return argument(_WEIGHT(_BASE_MODEL(function)))
