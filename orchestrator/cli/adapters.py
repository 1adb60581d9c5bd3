"""`adapters`: finished adapters, of this machine and of the account."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import adapter_names
from orchestrator.cli.output import json_option, print_facts, print_json, print_table, say
from orchestrator.contract.command_line import command

if TYPE_CHECKING:
    from orchestrator.adapters.registry import Adapter, Registry
    from orchestrator.errors import OrchestratorError


@click.group()
def adapters() -> None:
    """List, show and fetch finished adapters."""


@adapters.command("list")
@json_option
def list_adapters(as_json: bool) -> None:
    """List the adapters of this machine and of the account, the newest of each name."""
    from orchestrator.storage.folder import location_of

    found = _registry().newest(_warn)
    if as_json:
        print_json([_as_json(adapter) for adapter in found])
        return
    if not found:
        say(f"No adapters yet. Begin with: {command('submit', 'dreambooth')}")
        return
    rows = []
    for adapter in found:
        size = f"{adapter.bytes / 1e6:.2f} MB"
        rows.append((adapter.name, adapter.manifest.recipe, size, location_of(adapter.uri)))
    print_table(("ADAPTER", "RECIPE", "SIZE", "LOCATION"), rows)


@adapters.command()
@click.argument("name", shell_complete=adapter_names)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what an adapter is made from and how to use it."""
    from orchestrator.cli.results import prompt_words
    from orchestrator.storage.folder import location_of

    adapter = _registry().find(name)
    if as_json:
        print_json(_as_json(adapter))
        return
    manifest = adapter.manifest
    base = manifest.base_model
    revision = base.revision or ""
    fingerprint = base.fingerprint[:12]
    facts = [
        ("adapter", adapter.name),
        ("location", location_of(adapter.uri)),
        ("recipe", manifest.recipe),
        ("prompt with", prompt_words(manifest)),
        ("base model", f"{base.id} {revision} ({fingerprint})"),
        ("images", manifest.dataset_sha256[:12]),
        ("code", manifest.bundle_sha256[:12]),
    ]
    for metric, figure in manifest.metrics.items():
        label = metric.replace("_", " ")
        facts.append((label, f"{figure:.3f}"))
    if manifest.scorer_sha256 is not None:
        facts.append(("measured by CLIP", manifest.scorer_sha256[:12]))
    for file, digest in manifest.files.items():
        facts.append((f"file {file}", f"{digest.size} bytes, sha256 {digest.sha256}"))
    print_facts(facts)


@adapters.command()
@click.argument("name", shell_complete=adapter_names)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    help="New folder; the adapter's name when left out.",
)
@json_option
def pull(name: str, folder: Path | None, as_json: bool) -> None:
    """Download an adapter: each file is verified, and the folder is complete or absent."""
    registry = _registry()
    adapter = registry.find(name)
    folder = folder or Path(name)
    absolute = folder.resolve()
    registry.pull(adapter, absolute)
    if as_json:
        print_json({**_as_json(adapter), "folder": str(absolute)})
        return
    facts = [("adapter", str(folder))]
    for line in adapter.manifest.loading(str(folder)):
        facts.append(("load", line))
    print_facts(facts)


def _warn(error: "OrchestratorError") -> None:
    text = f"Warning: {error.message}"
    if error.next_step:
        text += f" Next: {error.next_step}"
    say(text, err=True)


def _as_json(adapter: "Adapter") -> dict[str, Any]:
    return adapter.model_dump(mode="json", exclude={"prefix"})


def _registry() -> "Registry":
    from orchestrator.adapters.registry import Registry
    from orchestrator.settings import Settings
    from orchestrator.targets.opening import open_targets

    settings = Settings.from_environment()
    targets = open_targets(settings)
    return Registry([target.store for target in targets])
