"""`recipes`: the ways to train an adapter, and their settings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import recipe_names
from orchestrator.cli.output import json_option, print_json, print_table, setting_text
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from orchestrator.contract.recipe import Recipe


@click.group()
def recipes() -> None:
    """Show the recipes and their settings."""


@recipes.command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """List the recipes."""
    from orchestrator.contract import recipe

    found = []
    rows = []
    for name in recipe.recipe_names():
        summary = recipe.recipe_class(name).summary
        found.append({"name": name, "summary": summary})
        rows.append((name, summary))
    if as_json:
        print_json(found)
        return
    print_table(("RECIPE", "WHAT IT MAKES"), rows, wraps=["WHAT IT MAKES"])


@recipes.command("show")
@click.argument("name", shell_complete=recipe_names)
@click.option("--base-model", metavar="MODEL", help="Show the defaults for this model; builtin when left out.")
@click.option(
    "-s", "--set", "pairs", metavar="FIELD=VALUE", multiple=True, help="Show the defaults beside this setting."
)
@json_option
def show_recipe(name: str, base_model: str | None, pairs: tuple[str, ...], as_json: bool) -> None:
    """Show every setting of a recipe, its default and what it does.

    \b
    recipes show dreambooth
    recipes show dreambooth --base-model stabilityai/stable-diffusion-xl-base-1.0 -s tuner=full
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.specs.building import declaration, defaults_of, require_said_once
    from orchestrator.specs.job_file import parse_overrides

    recipe = declaration(name)
    chosen = parse_overrides(pairs)
    require_said_once(name, {"base_model": base_model}, chosen)
    if base_model is not None:
        chosen["base_model"] = base_model
    defaults = defaults_of(recipe, chosen)
    if as_json:
        print_json(_schema(recipe, defaults))
        return
    click.echo(f"{recipe.recipe_name()}: {recipe.summary}")
    beside = ", ".join(f"{field}={value}" for field, value in chosen.items()) or "the built-in model"
    click.echo(printable(f"Set a field with -s FIELD=VALUE. The defaults are those for {beside}."))
    click.echo()
    rows = setting_rows(recipe, defaults)
    print_table(("FIELD", "DEFAULT", "WHAT IT DOES"), rows, wraps=["DEFAULT", "WHAT IT DOES"])


def _schema(recipe: "type[Recipe]", defaults: Mapping[str, object]) -> dict[str, Any]:
    """Return the JSON schema of a recipe with these defaults."""
    schema = recipe.model_json_schema()
    for field, value in defaults.items():
        schema["properties"][field]["default"] = value
    return schema


def setting_rows(recipe: "type[Recipe]", defaults: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Return name, default and meaning of each field; a recipe's own fields come first."""
    own_rows = []
    inherited_rows = []
    for name, field in recipe.model_fields.items():
        default = "required"
        if name in defaults or not field.is_required():
            default = _text(defaults.get(name, field.default))
        row = (name, default, field.description or "")
        if name in recipe.__annotations__:
            own_rows.append(row)
        else:
            inherited_rows.append(row)
    return own_rows + inherited_rows


def _text(value: object) -> str:
    if value in (None, "", ()):
        return "-"
    return setting_text(value)
