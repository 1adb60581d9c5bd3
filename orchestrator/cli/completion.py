"""`completion`: how a shell completes commands, and the names of jobs, adapters, endpoints, recipes and fields.

Names are those of this machine: completing asks no service.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from orchestrator.cli.program import SCRIPT

COMPLETE_VARIABLE = "_ORCHESTRATOR_COMPLETE"
"""Set by the shell when it asks for completions."""
_SHELLS = ("bash", "zsh", "fish")


class _Bash(BashComplete):
    """Completion for bash, without a space after `FIELD=`."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)",
        "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace",
    )


add_completion_class(_Bash)


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete `orchestrator`: commands, options, and names on this machine.

    Add the line to the shell's start-up file.

    \b
    eval "$(orchestrator completion bash)"      # ~/.bashrc
    eval "$(orchestrator completion zsh)"       # ~/.zshrc, after compinit
    orchestrator completion fish | source       # ~/.config/fish/config.fish
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    chosen = get_completion_class(shell)
    if chosen is None:
        raise click.UsageError(f"click has no completion for {shell}.")
    root = click.get_current_context().find_root().command
    script = chosen(root, {}, SCRIPT, COMPLETE_VARIABLE)
    click.echo(script.source())


def job_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of this machine's jobs that begin so."""
    names: list[str] = []
    with _silently():
        from orchestrator.settings import Settings
        from orchestrator.targets.local.opening import open_local
        from orchestrator.targets.names import LOCAL_TARGETS

        settings = Settings.from_environment()
        for target in sorted(LOCAL_TARGETS):
            names += open_local(target, settings).names()
    return _beginning(incomplete, names)


def adapter_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of this machine's adapters that begin so."""
    names = []
    with _silently():
        from orchestrator.contract.adapter import MANIFEST_FILE
        from orchestrator.settings import Settings

        for manifest in Settings.from_environment().adapters.glob(f"*/{MANIFEST_FILE}"):
            names.append(manifest.parent.name)
    return _beginning(incomplete, sorted(names))


def endpoint_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of this machine's endpoints that begin so."""
    names: list[str] = []
    with _silently():
        from orchestrator.endpoints.local.host import LocalHost
        from orchestrator.settings import Settings

        names = LocalHost(Settings.from_environment()).names()
    return _beginning(incomplete, names)


def adapters_of_endpoint(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the adapters that begin so, of the endpoint of this machine that was typed before."""
    names: list[str] = []
    with _silently():
        from orchestrator.endpoints.local.host import LocalHost
        from orchestrator.settings import Settings

        host = LocalHost(Settings.from_environment())
        endpoint = context.params.get("name")
        if endpoint is not None:
            names = list(host.deployment(endpoint).adapters)
    return _beginning(incomplete, names)


def adapter_lists(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of this machine's adapters for the last word of a list that is separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in adapter_names(context, parameter, last)]


def recipe_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of recipes that begin so."""
    from orchestrator.contract import recipe

    return _beginning(incomplete, recipe.recipe_names())


def recipes_and_files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem[str]]":
    """Return the names of recipes that begin so, and let the shell add files."""
    items = [CompletionItem(incomplete, type="file")]
    for name in recipe_names(context, parameter, incomplete):
        items.append(CompletionItem(name))
    return items


def folders(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Let the shell complete a folder."""
    return [CompletionItem(incomplete, type="dir")]


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Let the shell complete a file."""
    return [CompletionItem(incomplete, type="file")]


def field_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return `FIELD=` for the fields that begin so: of the recipe that was typed before, else of all recipes."""
    from orchestrator.contract import recipe

    recipes = recipe.recipe_names()
    for word in [context.params.get("what"), *context.args]:  # not yet assigned while an option lacks its value
        if word in recipes:
            recipes = [word]
    fields: dict[str, None] = {}  # a set that keeps its order
    for name in recipes:
        for field in recipe.recipe_class(name).model_fields:
            fields[f"{field}="] = None
    return _beginning(incomplete, fields)


def _beginning(start: str, names: "list[str] | dict[str, None]") -> list[str]:
    return [name for name in names if name.startswith(start)]


@contextmanager
def _silently() -> Iterator[None]:
    """Leave out what cannot be read: a message would end up in the line that a person types."""
    from orchestrator.errors import OrchestratorError

    with suppress(OrchestratorError, OSError):
        yield
