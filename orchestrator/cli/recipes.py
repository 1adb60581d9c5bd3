"""`recipes`: what can be trained, and with which settings."""

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from orchestrator.contract.recipe import Recipe


@click.group()
def recipes() -> None:
    """Show the recipes and their settings."""


@recipes.command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """List the recipes."""
    from orchestrator.contract.recipe import recipe_class, recipe_names

    summaries = {name: recipe_class(name).summary for name in recipe_names()}
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in summaries.items()])
        return
    print_table(("RECIPE", "WHAT IT MAKES"), list(summaries.items()))


@recipes.command("show")
@click.argument("name")
@json_option
def show_recipe(name: str, as_json: bool) -> None:
    """Show every setting of a recipe, its default and what it does."""
    from orchestrator.specs.building import declaration

    recipe = declaration(name)
    if as_json:
        print_json(recipe.model_json_schema())
        return
    click.echo(f"{recipe.recipe_name()}: {recipe.summary}\nSet a field with -s FIELD=VALUE.\n")
    print_table(("FIELD", "DEFAULT", "WHAT IT DOES"), setting_rows(recipe))


def setting_rows(recipe: "type[Recipe]") -> list[tuple[str, str, str]]:
    """Return name, default on the built-in model, and meaning of each field; a recipe's own fields come first."""
    from orchestrator.contract.families import STABLE_DIFFUSION

    own = set(recipe.__annotations__)
    builtin = recipe.defaults({}, STABLE_DIFFUSION)
    rows = []
    for name in sorted(recipe.model_fields, key=lambda name: name not in own):
        description = recipe.model_fields[name].description or ""
        rows.append((name, _default(recipe, name, builtin), description))
    return rows


def _default(recipe: "type[Recipe]", name: str, builtin: dict[str, Any]) -> str:
    field = recipe.model_fields[name]
    if field.is_required():
        return "required"
    value = builtin.get(name, field.default)
    if value in (None, "", ()):
        return "-"
    return str(value)
