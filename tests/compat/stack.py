"""What a pipeline computes with an adapter, in whichever versions of diffusers and transformers import this.

As a script it runs in an environment of old versions: it reads the cases from a JSON file and writes what each computes
beside it. It knows nothing of this project: an adapter is loaded by the lines that its user is shown.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor

DRAWING = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "latent"}


@torch.no_grad()
def outputs(pipe: Any, prompt: str) -> dict[str, Tensor]:
    """Return what the text encoders and the denoiser make of a prompt, and the latents of a drawing in two steps."""
    hidden, _, *pooled = pipe.encode_prompt(
        prompt,
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    found = {"hidden": hidden}
    added = None
    if pooled:
        found["pooled"] = pooled[0]
        sizes = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]])
        added = {"text_embeds": pooled[0], "time_ids": sizes}
    side = pipe.unet.config.sample_size
    channels = pipe.unet.config.in_channels
    noisy = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    found["predicted"] = pipe.unet(
        noisy,
        torch.tensor([500]),
        encoder_hidden_states=hidden,
        added_cond_kwargs=added,
    ).sample
    pixels = side * pipe.vae_scale_factor
    found["drawn"] = pipe(prompt, height=pixels, width=pixels, latents=noisy, **DRAWING).images
    return {name: tensor.contiguous() for name, tensor in found.items()}


def open_pipeline(base: str) -> Any:
    """Return the pipeline in a folder, in float32."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main(cases_file: Path) -> None:
    """Write `NAME.safetensors` for each case, or `NAME.error` with a traceback, and the versions as JSON."""
    import peft
    import transformers

    folder = cases_file.parent
    versions = {library.__name__: library.__version__ for library in (diffusers, peft, transformers)}
    (folder / "versions.json").write_text(json.dumps(versions))
    torch.set_num_threads(1)
    for name, case in json.loads(cases_file.read_text()).items():
        try:
            pipe = open_pipeline(case["base"])
            exec("\n".join(case["lines"]), {"pipe": pipe})  # noqa: S102 - the lines that a user copies
            save_file(outputs(pipe, case["prompt"]), folder / f"{name}.safetensors")
        except Exception:  # noqa: BLE001 - the other cases have to run
            (folder / f"{name}.error").write_text(traceback.format_exc())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
