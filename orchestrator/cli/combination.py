"""Which adapters, ControlNets and embeddings an image is drawn with, and where on this machine they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.adapters.registry import Registry
from orchestrator.adapters.usage import control_kinds, own_word
from orchestrator.cli.chosen_adapter import ChosenAdapter, choose_adapter
from orchestrator.cli.controls import OPTION, Words
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, MANIFEST_FILE, AdapterManifest
from orchestrator.contract.control_fit import is_control
from orchestrator.contract.problem import Problem
from orchestrator.contract.words import NewWord
from orchestrator.datasets.findings import unusable
from orchestrator.errors import SpecError
from orchestrator.settings import typed_path


class Combination:
    """The adapter that is drawn with, and the ControlNets and embeddings beside it, by name."""

    def __init__(self, chosen: ChosenAdapter, registry: Registry, scratch: Path) -> None:
        self.chosen = chosen
        self.registry = registry
        self.scratch = scratch
        self.is_control = chosen.manifest.kind == CONTROLNET
        self.folders = {chosen.typed: chosen.folder}
        self.words: list[NewWord] = []
        self._add_word(chosen.manifest)

    def _add_word(self, manifest: AdapterManifest) -> None:
        word = own_word(manifest)
        if word is not None:
            self.words.append(word)

    def learned(self, embeddings: Sequence[str]) -> list[str]:
        """Keep the folders and the words of embeddings, and return their names; raises SpecError for other kinds.

        The adapter that is drawn with is left out: its own word is known.
        """
        names = []
        for name in dict.fromkeys(embeddings):
            embedding = choose_adapter(name, self.registry, self.scratch)
            kind = embedding.manifest.kind
            if kind != EMBEDDING:
                raise SpecError(
                    f'"{name}" is an adapter of the kind "{kind}" and no learned word. Nothing was drawn.',
                    next_step="draw with it as the adapter, and name words with --embedding",
                )
            if embedding.folder == self.chosen.folder:
                continue
            names.append(name)
            self.folders[name] = embedding.folder
            self._add_word(embedding.manifest)
        return names

    def name_of(self, words: Words) -> str:
        """Return the name of the ControlNet of a control, and keep its folder; raises UnusableError without one."""
        named = words.network
        if not named:
            if self.is_control:
                return self.chosen.typed
            raise unusable(
                f"names no ControlNet, and {self.chosen.name} is an adapter of another kind",
                "add one: ,net=NAME or ,net=./FOLDER",
            )
        if named not in self.folders:
            self.folders[named] = self._folder_of(named)
        return named

    def _folder_of(self, named: str) -> Path:
        """Return the folder of a ControlNet: one of diffusers as it is, or that of an adapter."""
        if "/" in named:
            folder = typed_path(named)
            if is_control(folder) and not (folder / MANIFEST_FILE).exists():
                return folder
        return choose_adapter(named, self.registry, self.scratch).folder

    def adapters(self, weight: float) -> list[dict[str, Any]]:
        """Return what the adapter that is drawn with changes in the base model: a ControlNet changes nothing."""
        if self.is_control:
            return []
        return [{"name": self.chosen.typed, "weight": weight}]

    def problems(self, typed: Mapping[str, Any]) -> list[Problem]:
        """Return what does not go with a ControlNet."""
        if not self.is_control:
            return []
        problems = []
        kinds = control_kinds(self.chosen.manifest) or ["KIND"]
        if not typed.get("control"):
            what = f"{self.chosen.name} is a ControlNet, and no picture is named for it to follow"
            options = " or ".join(f"{OPTION} {kind}=PICTURE" for kind in kinds)
            problems.append(Problem(where=OPTION, what=what, fix=f"add {options}"))
        if "weight" in typed:
            fix = f"give it a scale instead: {OPTION} {kinds[0]}=PICTURE:0.8"
            problems.append(Problem(where="--weight", what=f"{self.chosen.name} is a ControlNet", fix=fix))
        return problems
