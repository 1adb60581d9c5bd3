"""A model of a few thousand random weights of each family, in the layout of a real one, and jobs that train it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from entrypoints.models.ddpm import Ddpm
from entrypoints.runtime.stop import StopFlag
from orchestrator.contract.datasets import PROMPTS
from orchestrator.contract.environment import Environment
from orchestrator.contract.preferences import PREFERENCES_FILE
from orchestrator.contract.prompt_file import PROMPTS_FILE
from orchestrator.contract.recipe import Recipe, to_hyperparameters
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.recipes.lora import CaptionedLora
from orchestrator.contract.recipes.rlhf import Rlhf
from orchestrator.contract.recipes.textual_inversion import TextualInversion

PROMPTS_TO_LEARN = ("a photo of a dog", "a red dog", "a toy on red", "a dog on a toy", "a photo of a red toy")
WORDS = ["a", "photo", "of", "toy", "dog", "on", "red", "background"]
SIDE = 32
MAX_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write a tokenizer that has a token for each of `WORDS`, and pieces for anything else."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    merges = []
    for word in WORDS:
        *head, last = word
        pieces = [*head, last + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    merges = list(dict.fromkeys(merges))
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(dict.fromkeys(tokens))}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in merges) + "\n")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_LENGTH, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return CLIPTokenizer.from_pretrained(folder)


def write_base_model(folder: Path, *, prediction_type: str = "v_prediction", clip: bool = True) -> Path:
    """Write a tiny Stable Diffusion to `folder` and return it."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder / "tokenizer")
    text = text_config(tokenizer, width=16)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": SIDE, "patch_size": 8, "projection_dim": 16}
    pipeline = StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)).eval(),
        tokenizer=tokenizer,
        unet=unet(cross_attention_dim=16),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            rescale_betas_zero_snr=prediction_type == "v_prediction",
            timestep_spacing="trailing",
            clip_sample=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    if clip:
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(
            folder / "clip"
        )
    return folder


def write_sdxl(folder: Path) -> Path:
    """Write a tiny SDXL to `folder` and return it."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = write_tokenizer(folder / "tokenizer"), write_tokenizer(folder / "tokenizer_2")
    first, second = text_config(tokenizer, width=16), text_config(tokenizer_2, width=24)
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**first)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**second)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet(
            cross_attention_dim=16 + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
            transformer_layers_per_block=(1, 2),
        ),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1),
    )
    pipeline.save_pretrained(folder)
    return folder


def text_config(tokenizer: CLIPTokenizer, *, width: int) -> dict[str, Any]:
    """Return the configuration of a text encoder that fits a tokenizer."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    text = {"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2}
    return text | {"num_attention_heads": 2, "max_position_embeddings": MAX_LENGTH, "projection_dim": width, **ids}


def autoencoder() -> AutoencoderKL:
    """Return an autoencoder of two levels."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    )


def unet(**fields: Any) -> UNet2DConditionModel:
    """Return a U-Net of two levels, the lower with attention."""
    return UNet2DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        **fields,
    ).eval()


def control_network(base: Any, seed: int = 0) -> ControlNetModel:
    """Return a ControlNet of random weights that fits a loaded base model, and does a lot."""
    torch.manual_seed(seed)
    halvings = base.pipeline.vae_scale_factor.bit_length() - 1
    network = ControlNetModel.from_unet(
        base.denoiser,
        conditioning_embedding_out_channels=[4] * (halvings + 1),
    )
    for name, weight in network.named_parameters():
        if name.startswith(("controlnet_", "controlnet_cond_embedding.conv_out")):  # zeros until it is trained
            weight.data = torch.randn_like(weight) * 0.2
    return network.requires_grad_(False).eval()


def random_image(seed: int) -> Image.Image:
    """Return a square picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_pictures(folder: Path, count: int = 3, *, captioned: bool = False) -> Path:
    """Write some pictures of noise, each different and all but one wider than tall, with captions if asked to."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (SIDE, SIDE + 8 * number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    if captioned:
        rows = []
        for number, thing in zip(range(count), ("dog", "toy", "red dog"), strict=False):
            rows.append(json.dumps({"file_name": f"{number}.png", "text": f"a {thing}, red, photo"}))
        (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def write_conditions(folder: Path) -> None:
    """Write a condition beside each picture of a folder: its left half white."""
    (folder / "conditions").mkdir()
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            condition = Image.new("RGB", picture.size)
        condition.paste("white", (0, 0, condition.width // 2, condition.height))
        condition.save(folder / "conditions" / path.name)


def write_masks(folder: Path, left: int = 8) -> None:
    """Write a mask for each picture, white to the right of a column."""
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            mask = Image.new("L", picture.size, 0)
        mask.paste(255, (left, 0, *mask.size))
        mask.save(path.with_name(f"{path.stem}-masklabel.png"))


def dreambooth(**fields: Any) -> DreamBooth:
    """Return the shortest DreamBooth that still goes through every part."""
    small = {"instance_prompt": "a photo of sks dog", "resolution": SIDE, "steps": 4, "batch_size": 2}
    small |= {"rank": 2, "inference_steps": 2, "evaluation_prompts": 1, "evaluation_seeds": 1}
    small |= {"targets": "attention", "lr_schedule": "constant", "class_images": 2}
    small["prior_preservation"] = not fields.get("output_preservation", False)
    return DreamBooth(**{**small, "learning_rate": 1e-2, **fields})


def textual_inversion(**fields: Any) -> TextualInversion:
    """Return the shortest textual inversion that still goes through every part."""
    small = {"placeholder_token": "<my-dog>", "initializer_token": "dog", "resolution": SIDE, "steps": 3}
    small |= {
        "vectors": 2,
        "hold_initializer": False,
        "inference_steps": 2,
        "evaluation_prompts": 1,
        "evaluation_seeds": 1,
    }
    return TextualInversion(**{**small, "batch_size": 2, "learning_rate": 1e-1, **fields})


def captioned_lora(**fields: Any) -> CaptionedLora:
    """Return the shortest LoRA on captioned pictures that still goes through every part."""
    small = {"resolution": SIDE, "steps": 4, "batch_size": 2, "rank": 2, "inference_steps": 2}
    small |= {"evaluation_prompts": 1, "evaluation_seeds": 1}
    return CaptionedLora(**{**small, "learning_rate": 1e-2, **fields})


def controlnet(**fields: Any) -> ControlNet:
    """Return the shortest ControlNet that still goes through every part."""
    small = {"resolution": SIDE, "steps": 4, "batch_size": 2, "inference_steps": 2, "watched_images": 3}
    small |= {"evaluation_prompts": 2, "evaluation_seeds": 1, "validation_steps": 2, "obeyed_by": 1000}
    return ControlNet(**{**small, "learning_rate": 1e-2, **fields})


def rlhf(**fields: Any) -> Rlhf:
    """Return the shortest reinforcement learning that still goes through every part: two rounds of two steps."""
    small = {"resolution": SIDE, "rounds": 2, "prompts_per_round": 2, "group_size": 4, "updates": 2, "batch_size": 4}
    small |= {
        "rank": 2,
        "targets": "attention",
        "inference_steps": 2,
        "sampler_steps": 3,
        "held_out_prompts": 1,
        "inner_epochs": 1,
    }
    small |= {"evaluation_prompts": 1, "evaluation_seeds": 1, "validation_steps": 2, "guidance_scale": 2.0}
    return Rlhf(**{**small, "learning_rate": 1e-2, **fields})


def lay_out(root: Path, recipe: Recipe, base_model: Path | None) -> Environment:
    """Lay out a job's folders as the service does."""
    environment = Environment(root=root)
    if recipe.learns_from.has_preferences:
        folder = write_pictures(root / "input" / "data" / "training", captioned=True)
        rows = []
        for chosen, rejected, prompt in ((0, 1, "a dog"), (2, 1, "a toy"), (0, 2, "a red dog")):
            rows.append(json.dumps({"chosen": f"{chosen}.png", "rejected": f"{rejected}.png", "prompt": prompt}))
        (folder / PREFERENCES_FILE).write_text("\n".join(rows))
    elif PROMPTS in recipe.learns_from.inputs:
        prompts = root / "input" / "data" / recipe.dataset.inputs[PROMPTS]
        prompts.mkdir(parents=True, exist_ok=True)
        (prompts / PROMPTS_FILE).write_text("\n".join(PROMPTS_TO_LEARN))
    else:
        captioned = recipe.dataset.needs_captions or recipe.dataset.has_conditions
        folder = write_pictures(root / "input" / "data" / "training", captioned=captioned)
        if recipe.reads_conditions:
            write_conditions(folder)
    environment.hyperparameters_file.parent.mkdir(parents=True, exist_ok=True)
    environment.hyperparameters_file.write_text(json.dumps(to_hyperparameters(recipe)))
    if base_model:
        (root / "input" / "data" / "base_model").symlink_to(base_model, target_is_directory=True)
    return environment


class StopAfter(io.StringIO):
    """A log whose reader asks the job to end as soon as it reads of a step."""

    def __init__(self, step: int, stop: StopFlag) -> None:
        super().__init__()
        self.step, self.stop = step, stop

    def write(self, text: str) -> int:
        event = json.loads(text)
        self.stop.asked |= event["event"] == "step" and event["step"] == self.step
        return super().write(text)


def ddpm(prediction_type: str = "v_prediction") -> Ddpm:
    """Return the noise of the tiny base model."""
    return Ddpm.of_scheduler(
        {"beta_schedule": "scaled_linear", "prediction_type": prediction_type}, torch.device("cpu")
    )
