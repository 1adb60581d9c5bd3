"""What is trained of a base model, and the files it becomes.

A tuner changes the model in place when it is made; `parameters` are then the only ones with gradients.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from entrypoints.diffusion.failures import TrainingError
from entrypoints.diffusion.families import BaseModel
from entrypoints.diffusion.randomness import keyed_seed
from entrypoints.diffusion.weights import save_weights

UNET_PROJECTIONS = ["to_k", "to_out.0", "to_q", "to_v"]
TEXT_PROJECTIONS = ["k_proj", "out_proj", "q_proj", "v_proj"]
WEIGHT_FILES = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}
EMBEDDINGS_FILE = "learned_embeds.safetensors"


class Tuner(Protocol):
    """What the training loop and the adapter need to know of a way to tune."""

    parameters: dict[str, nn.Parameter]
    """What is trained, by a name that is the same in every run."""
    trains_text_encoder: bool
    """Whether prompt embeddings change while it trains."""

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write the adapter's files; `header` goes into the safetensors' metadata."""


class Lora:
    """Low-rank adapters on the attention projections (LoRA, arXiv 2106.09685), through PEFT."""

    def __init__(self, base: BaseModel, *, rank: int, alpha: float, text_encoder: bool, seed: int) -> None:
        self.base = base
        self.trains_text_encoder = text_encoder
        torch.manual_seed(keyed_seed(seed, "lora"))  # PEFT draws the first factor from the global generator
        self.configs = {"unet": _lora_config(rank, alpha, UNET_PROJECTIONS)}
        base.unet.add_adapter(self.configs["unet"])
        if text_encoder:
            self.configs["text_encoder"] = _lora_config(rank, alpha, TEXT_PROJECTIONS)
            base.text_encoder.add_adapter(self.configs["text_encoder"])
        self.parameters = trainable(self._modules())

    def _modules(self) -> dict[str, nn.Module]:
        return {part: getattr(self.base, part) for part in self.configs}

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `pytorch_lora_weights.safetensors` as diffusers does; its metadata carries rank and alpha."""

        def write(tensors: dict[str, Tensor], path: str) -> None:
            save_weights(tensors, Path(path), {**header, LORA_ADAPTER_METADATA_KEY: self._metadata()})

        layers = {
            f"{part}_lora_layers": convert_state_dict_to_diffusers(get_peft_model_state_dict(module))
            for part, module in self._modules().items()
        }
        StableDiffusionPipeline.save_lora_weights(folder, save_function=write, **layers)

    def _metadata(self) -> str:
        """Return the arguments of `LoraConfig` from which a loader rebuilds the layers, sorted."""
        fields = ("r", "lora_alpha", "target_modules")
        values = {f"{part}.{name}": getattr(config, name) for part, config in self.configs.items() for name in fields}
        return json.dumps(values, sort_keys=True, default=sorted)  # PEFT turns the list of modules into a set


def _lora_config(rank: int, alpha: float, projections: list[str]) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=projections)


class Full:
    """Every weight of the denoiser, and of the text encoder when asked for."""

    def __init__(self, base: BaseModel, *, text_encoder: bool) -> None:
        self.base = base
        self.trains_text_encoder = text_encoder
        parts = ["unet", "text_encoder"] if text_encoder else ["unet"]
        self.modules: dict[str, nn.Module] = {part: getattr(base, part) for part in parts}
        for module in self.modules.values():
            module.requires_grad_(True)
        self.parameters = trainable(self.modules)

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write a folder for each model in the layout of diffusers and transformers."""
        for part, module in self.modules.items():
            (folder / part).mkdir()
            shutil.copyfile(self.base.folder / part / "config.json", folder / part / "config.json")
            save_weights(module.state_dict(), folder / part / WEIGHT_FILES[part], header)


class NewRows(nn.Module):
    """A token embedding whose last rows are parameters of their own, so that nothing can change the others."""

    def __init__(self, known: nn.Embedding, first_id: int, rows: Tensor) -> None:
        super().__init__()
        self.known = known
        self.first_id = first_id
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> Tensor:
        """The known rows: what the model's code asks about device and width."""
        return self.known.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids: (batch, tokens) to (batch, tokens, width)."""
        fresh = ids >= self.first_id
        vectors = self.known(ids.masked_fill(fresh, 0))
        added = nn.functional.embedding((ids - self.first_id).clamp(min=0), self.rows)
        return torch.where(fresh.unsqueeze(-1), added, vectors)


class Embeddings:
    """The embedding rows of one new word (textual inversion, arXiv 2208.01618)."""

    trains_text_encoder = True  # its input; its weights stay

    def __init__(self, base: BaseModel, *, placeholder: str, initializer: str, vectors: int) -> None:
        self.placeholder = placeholder
        known = base.text_encoder.get_input_embeddings()
        start = known.weight[single_token(base, initializer)].detach().clone().repeat(vectors, 1)
        first_id = add_word(base, placeholder, vectors)
        self.embedding = NewRows(known, first_id, start)
        base.text_encoder.set_input_embeddings(self.embedding)
        self.parameters = {"rows": self.embedding.rows}

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `learned_embeds.safetensors` as diffusers reads it: the placeholder's rows, (vectors, width)."""
        save_weights({self.placeholder: self.embedding.rows}, folder / EMBEDDINGS_FILE, header)


def single_token(base: BaseModel, word: str) -> int:
    """Return the id of a word that is one token; raises TrainingError("token")."""
    ids = base.tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == base.tokenizer.unk_token_id:
        pieces = " ".join(base.tokenizer.convert_ids_to_tokens(ids))
        raise TrainingError(
            "token",
            f'The initializer "{word}" is {len(ids)} tokens of this model ({pieces}); it must be one.',
            "Choose a plain word near to the subject, for example initializer_token=toy.",
        )
    return int(ids[0])


def add_word(base: BaseModel, placeholder: str, vectors: int) -> int:
    """Add the tokens "<x>", "<x>_1", ... to the tokenizer, as diffusers does, and return the first id."""
    words = [placeholder, *(f"{placeholder}_{number}" for number in range(1, vectors))]
    vocabulary = base.tokenizer.get_vocab()
    taken = [word for word in words if {word, word.lower(), f"{word.lower()}</w>"} & vocabulary.keys()]
    if taken:
        raise TrainingError(
            "token",
            f'The placeholder "{taken[0]}" is in the vocabulary of this model already.',
            f'Choose a new word, for example placeholder_token="<my-{taken[0].strip("<>")}>".',
        )
    base.tokenizer.add_tokens(words)
    _insist_on_reading(base, placeholder, words)
    return int(base.tokenizer.convert_tokens_to_ids(placeholder))


def _insist_on_reading(base: BaseModel, placeholder: str, words: list[str]) -> None:
    """Raise TrainingError("token") unless a prompt with the placeholder is read as exactly the new tokens."""
    prompt = base.pipeline.maybe_convert_prompt(placeholder, base.tokenizer)
    read = base.tokenizer(prompt, add_special_tokens=False).input_ids
    if read != base.tokenizer.convert_tokens_to_ids(words):
        raise TrainingError(
            "token",
            f'This model does not read "{placeholder}" as a word of its own.',
            f'Write it in lower case and angle brackets: placeholder_token="<{placeholder.strip("<>").lower()}>".',
        )


def trainable(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters that have gradients, named by module and place."""
    return {
        f"{part}.{name}": parameter
        for part, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
