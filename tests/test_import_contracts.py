"""The import rules hold, each of them breaks when it is violated, and ARCHITECTURE.md draws them as they are."""

import configparser
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import orchestrator

ROOT = Path(orchestrator.__file__).parents[1]
PLANTED = {
    "1. Packages import downwards": ("orchestrator/errors.py", "import orchestrator.jobs.job"),
    "2. The container knows the client by its contract alone": (
        "entrypoints/runtime/stop.py",
        "import orchestrator.planning.pricing",
    ),
    "3. The client never imports what runs with torch": ("orchestrator/terminal.py", "import torch"),
    "4. One door each": ("orchestrator/storage/names.py", "import boto3"),
    "5. Planning makes no call": ("orchestrator/planning/pricing.py", "import orchestrator.aws.client"),
    "6. Targets do not know one another": (
        "orchestrator/targets/local/publication.py",
        "import orchestrator.targets.sagemaker.attempts",
    ),
    "6. Recipes do not know one another": (
        "entrypoints/recipes/dreambooth.py",
        "import entrypoints.recipes.textual_inversion",
    ),
    "6. Families do not know one another": (
        "entrypoints/models/stable_diffusion.py",
        "import entrypoints.models.sdxl",
    ),
    "7. Recipes build on training": ("entrypoints/runtime/ranks.py", "import entrypoints.training.loop"),
    "The contract needs pydantic and the standard library only": (
        "orchestrator/contract/digest.py",
        "import click",
    ),
}


def verdicts(folder: Path) -> dict[str, str]:
    """Return what the linter says of each contract, by its name."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
    text = " ".join(output.split())
    found = {}
    for rule in PLANTED:
        said = re.search(rf"{re.escape(rule)}[^A-Z]*(?:[A-Z][a-z][^A-Z]*)* (KEPT|BROKEN)", text)
        found[rule] = said[1] if said else "missing"
    return found


def copy_of_the_tree(folder: Path) -> Path:
    folder.mkdir()
    for top in ("orchestrator", "entrypoints"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_a_forbidden_import_breaks_its_rule(tmp_path: Path) -> None:
    assert verdicts(copy_of_the_tree(tmp_path / "clean")) == dict.fromkeys(PLANTED, "KEPT")
    tree = copy_of_the_tree(tmp_path / "planted")
    for file, line in PLANTED.values():
        path = tree / file
        path.write_text(path.read_text() + f"\n{line}\n")
    assert verdicts(tree) == dict.fromkeys(PLANTED, "BROKEN")


def test_every_rule_of_the_page_is_a_contract() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    rules = re.findall(r"^(\d)\. (.+)$", page, re.MULTILINE)
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    names = [contracts[section]["name"] for section in contracts.sections() if "contract:" in section]
    assert [number for number, _ in rules] == list("1234567")
    for number, _ in rules:
        assert any(name.startswith(f"{number}. ") for name in names), number


def test_the_floors_that_are_drawn_are_those_of_the_rule() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    text = contracts["importlinter:contract:layers"]["layers"].strip()
    floors = [re.findall(r"orchestrator\.(\w+)", line) for line in text.splitlines()]
    page = (ROOT / "ARCHITECTURE.md").read_text()
    figure = re.sub(r"\w+\[(\w+)\]", r"\1", page.partition("```mermaid")[2].partition("```")[0])
    drawn = set()
    for line in figure.splitlines():
        ends = [[name.strip() for name in part.split("&")] for part in line.split("-->")]
        for upper, lower in pairwise(ends):
            drawn |= {(one, other) for one in upper for other in lower}
    for upper, lower in pairwise(floors):
        for one in upper:
            for other in lower:
                assert (one, other) in drawn, f"{one} --> {other} is not drawn"


@pytest.mark.parametrize("top", ["orchestrator", "entrypoints"])
def test_every_package_is_in_the_tree_and_has_a_paragraph(top: str) -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    tree = page.partition("```text")[2].partition("```")[0]
    for package in (ROOT / top).iterdir():
        if (package / "__init__.py").is_file():
            assert f" {package.name}/" in tree, package
            assert f"**`{package.name}/`**" in page, package


def test_every_file_that_is_named_is_there() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    there = {path.name for top in ("orchestrator", "entrypoints") for path in (ROOT / top).rglob("*.py")}
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)", page))
    assert named - there == {"NAME.py"}  # a recipe's
