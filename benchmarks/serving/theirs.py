"""Plain diffusers as a server would use it: adapters loaded and unloaded for each request, or all resident."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from benchmarks.serving.materials import Model
from benchmarks.serving.ours import Request
from orchestrator.contract.adapter import LORA_LOADING

LOADED = "one"


class Plain:
    """A pipeline, one request after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.pipeline = DiffusionPipeline.from_pretrained(model.folder)
        self.pipeline.set_progress_bar_config(disable=True)

    def call(self, request: Request) -> Image.Image:
        """Draw with the adapters that are active."""
        model = self.model
        generator = torch.Generator("cpu").manual_seed(request.seed)
        image: Image.Image = self.pipeline(
            request.prompt,
            num_inference_steps=model.steps,
            guidance_scale=model.guidance,
            height=model.size,
            width=model.size,
            generator=generator,
        ).images[0]
        return image

    def load(self, folder: Path, name: str = LOADED) -> None:
        """Load an adapter from disk."""
        self.pipeline.load_lora_weights(str(folder), adapter_name=name, **LORA_LOADING)

    def unload(self) -> None:
        """Take all adapters out."""
        self.pipeline.unload_lora_weights()


class LoadUnload(Plain):
    """Each request loads its adapter from disk and unloads it afterwards."""

    def __init__(self, model: Model, folders: Sequence[Path]) -> None:
        super().__init__(model)
        self.folders = folders

    def draw(self, requests: Sequence[Request]) -> list[Image.Image]:
        """Draw one after the other; adapters are named by their numbers."""
        images = []
        for request in requests:
            self.load(self.folders[int(str(request.adapter))])
            images.append(self.call(request))
            self.unload()
        return images


class AllResident(Plain):
    """All adapters are loaded beforehand; each request activates its own."""

    def __init__(self, model: Model, folders: Sequence[Path]) -> None:
        super().__init__(model)
        for number, folder in enumerate(folders):
            self.load(folder, f"adapter_{number}")

    def draw(self, requests: Sequence[Request]) -> list[Image.Image]:
        """Draw one after the other; adapters are named by their numbers."""
        images = []
        for request in requests:
            self.pipeline.set_adapters([f"adapter_{request.adapter}"], [request.weight])
            images.append(self.call(request))
        return images
