"""Writes docs/commands.md and docs/recipes.md from the command line's help and the recipes' fields.

`python docs/generate.py` writes them; with --check it fails when they have drifted from the code.
"""

import sys
from pathlib import Path

import click

from orchestrator.cli import cli
from orchestrator.cli.recipes import setting_rows
from orchestrator.contract.recipe import recipe_class, recipe_names

DOCS = Path(__file__).parent
HELP = cli.context_settings["help_option_names"]
_PROGRAM = "python -m orchestrator"
_NOTICE = "<!-- Written by docs/generate.py; `make docs` renews it. -->\n"


def commands_page() -> str:
    """Return the help text of every command."""
    sections = [f"## `{path}`\n\n```text\n{text}\n```\n" for path, text in _help_texts(cli, _PROGRAM)]
    return "\n".join([_NOTICE, "# Commands\n", *sections])


def _help_texts(command: click.Command, path: str) -> list[tuple[str, str]]:
    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=HELP)
    texts = [(path, command.get_help(context))]
    for name, child in sorted(getattr(command, "commands", {}).items()):
        texts += _help_texts(child, f"{path} {name}")
    return texts


def recipes_page() -> str:
    """Return a table of the settings of every recipe."""
    return "\n".join([_NOTICE, "# Recipes\n", *(_recipe_section(name) for name in recipe_names())])


def _recipe_section(name: str) -> str:
    recipe = recipe_class(name)
    title = f"## {name}\n\n{recipe.summary.capitalize()}.\n"
    head = "| field | default (built-in model) | what it does |\n| --- | --- | --- |"
    rows = [f"| `{field}` | {default} | {meaning} |" for field, default, meaning in setting_rows(recipe)]
    return "\n".join([title, head, *rows]) + "\n"


def main() -> int:
    """Write the pages, or with --check compare them."""
    pages = {DOCS / "commands.md": commands_page(), DOCS / "recipes.md": recipes_page()}
    if "--check" not in sys.argv:
        for path, text in pages.items():
            path.write_text(text)
        return 0
    drifted = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if drifted:
        print(f"docs/{', docs/'.join(drifted)} drifted from the code; run: make docs")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
