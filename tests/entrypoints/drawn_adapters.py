"""Adapters of the tiny model to draw with, without any training."""

from pathlib import Path

import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.loading import load_base_model
from orchestrator.contract.adapter import AdapterManifest


def write_adapters(channel: Path, base_folder: Path) -> Path:
    """Write two LoRAs and a learned word, far enough from the base model to be seen, and return their folder."""
    for seed, name in enumerate(("dog", "ink", "word")):
        base = load_base_model(base_folder, "tiny", None, torch.device("cpu"))
        tuner: Tuner = Lora(base, rank=2, alpha=2, text_encoder=True, seed=0)
        if name == "word":
            tuner = Embedding(base, placeholder="<word>", initializer="dog", vectors=2)
        random = torch.Generator().manual_seed(seed)
        for parameter in tuner.parameters.values():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
        (channel / name).mkdir()
        tuner.save(channel / name, {"format": "pt"})
        AdapterManifest(
            kind=tuner.kind,
            parts=tuner.parts,
            recipe="dreambooth",
            config={},
            base_model=base.reference,
            dataset_sha256="",
            bundle_sha256="",
            trigger="<word>" if name == "word" else None,
            libraries={},
        ).write(channel / name)
    return channel


def sha256_of(adapters: Path, name: str) -> str:
    """Return the hash of an adapter's files."""
    return AdapterManifest.read(adapters / name).files_sha256
