"""`adapters`: what was trained, here and in the account."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import json_option, print_facts, print_json, print_table
from orchestrator.contract.command_line import command

if TYPE_CHECKING:
    from orchestrator.adapters.registry import Adapter, Registry


@click.group()
def adapters() -> None:
    """List, show and fetch finished adapters."""


@adapters.command("list")
@json_option
def list_adapters(as_json: bool) -> None:
    """List the adapters of this machine and of the account, the newest of each name."""
    from orchestrator.storage.folder import place_of

    found = _registry().newest()
    if as_json:
        print_json([_as_json(adapter) for adapter in found])
        return
    if not found:
        click.echo(f"No adapters yet. Begin with: {command('submit', 'dreambooth')}")
        return
    rows = []
    for adapter in found:
        size = f"{adapter.bytes / 1e6:.2f} MB"
        rows.append((adapter.name, adapter.manifest.recipe, size, place_of(adapter.uri)))
    print_table(("ADAPTER", "RECIPE", "SIZE", "WHERE"), rows)


@adapters.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what an adapter is made from and how to use it."""
    from orchestrator.storage.folder import place_of

    adapter = _registry().find(name)
    if as_json:
        print_json(_as_json(adapter))
        return
    manifest = adapter.manifest
    base = manifest.base_model
    facts = [
        ("adapter", adapter.name),
        ("where", place_of(adapter.uri)),
        ("recipe", manifest.recipe),
        ("say", f'"{manifest.trigger}"' if manifest.trigger else "any prompt"),
        ("base model", f"{base.id} {base.revision or ''} ({base.fingerprint[:12]})"),
        ("pictures", manifest.dataset_sha256[:12]),
        ("code", manifest.bundle_sha256[:12]),
    ]
    for metric, figure in manifest.metrics.items():
        facts.append((metric.replace("_", " "), f"{figure:.3f}"))
    for file, digest in manifest.files.items():
        facts.append((f"file {file}", f"{digest.size} bytes, sha256 {digest.sha256}"))
    print_facts(facts)


@adapters.command()
@click.argument("name")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    help="New folder; the adapter's name when left out.",
)
@json_option
def pull(name: str, folder: Path | None, as_json: bool) -> None:
    """Bring an adapter here: each file is verified, and the folder is whole or absent."""
    registry = _registry()
    adapter = registry.find(name)
    folder = folder or Path(name)
    registry.pull(adapter, folder.resolve())
    if as_json:
        print_json({**_as_json(adapter), "folder": str(folder.resolve())})
        return
    loading = [("load", line) for line in adapter.manifest.loading(str(folder))]
    print_facts([("adapter", str(folder)), *loading])


def _as_json(adapter: "Adapter") -> dict[str, Any]:
    return adapter.model_dump(mode="json", exclude={"prefix"})


def _registry() -> "Registry":
    from orchestrator.adapters.registry import Registry
    from orchestrator.settings import Settings
    from orchestrator.targets.opening import open_targets

    targets = open_targets(Settings.from_environment())
    return Registry([target.store for target in targets])
