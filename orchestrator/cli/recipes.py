"""`recipes`: the ways to train an adapter, and their settings."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.completion import recipe_names
from orchestrator.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

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
@json_option
def show_recipe(name: str, as_json: bool) -> None:
    """Show every setting of a recipe, its default and what it does."""
    from orchestrator.specs.building import declaration

    recipe = declaration(name)
    if as_json:
        print_json(recipe.model_json_schema())
        return
    click.echo(f"{recipe.recipe_name()}: {recipe.summary}")
    click.echo("Set a field with -s FIELD=VALUE.\n")
    print_table(("FIELD", "DEFAULT", "WHAT IT DOES"), setting_rows(recipe), wraps=["DEFAULT", "WHAT IT DOES"])


def setting_rows(recipe: "type[Recipe]") -> list[tuple[str, str, str]]:
    """Return name, default on the built-in model, and meaning of each field; a recipe's own fields come first."""
    from orchestrator.contract.families import STABLE_DIFFUSION

    builtin = recipe.defaults({}, STABLE_DIFFUSION)
    own_rows = []
    inherited_rows = []
    for name, field in recipe.model_fields.items():
        row = (
            name,
            _default(field, builtin.get(name, field.default)),
            field.description or "",
        )
        if name in recipe.__annotations__:
            own_rows.append(row)
        else:
            inherited_rows.append(row)
    return own_rows + inherited_rows


def _default(field: "FieldInfo", value: object) -> str:
    if field.is_required():
        return "required"
    if value in (None, "", ()):
        return "-"
    return str(value)
