"""Train with trl's DDPOTrainer on minus the kilobytes of images; run by a Python that has trl 0.23.1.

It imports nothing of this project: that Python has other versions of all libraries. A line of JSON for each round goes
to stdout.
"""

import argparse
import io
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image
from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

QUALITY = 95


def main() -> None:
    """Train, and save the adapter."""
    grammar = argparse.ArgumentParser(description=__doc__)
    grammar.add_argument("--base", required=True)
    grammar.add_argument("--prompts", type=Path, required=True, help="one a line")
    grammar.add_argument("--output", type=Path, required=True)
    grammar.add_argument("--rounds", type=int, required=True)
    grammar.add_argument("--batches", type=int, required=True, help="of a round")
    grammar.add_argument("--batch-size", type=int, required=True)
    grammar.add_argument("--updates", type=int, required=True, help="optimizer steps of a round")
    grammar.add_argument("--steps", type=int, required=True)
    grammar.add_argument("--guidance", type=float, required=True)
    grammar.add_argument("--learning-rate", type=float, required=True)
    grammar.add_argument("--clip-range", type=float, required=True)
    grammar.add_argument("--weight-decay", type=float, required=True)
    grammar.add_argument("--advantage-clip", type=float, required=True)
    grammar.add_argument("--memory", type=int, required=True)
    grammar.add_argument("--seed", type=int, default=0)
    grammar.add_argument("--resume-from", default="")
    chosen = grammar.parse_args()
    torch.set_num_threads(1)
    PartialState()  # accelerate asks for it before anything is logged
    prompts = chosen.prompts.read_text(encoding="utf-8").splitlines()
    pipeline = DefaultDDPOStableDiffusionPipeline(chosen.base, use_lora=True)
    config = DDPOConfig(
        seed=chosen.seed,
        num_epochs=chosen.rounds,
        save_freq=1,
        mixed_precision="no",
        allow_tf32=False,
        resume_from=chosen.resume_from,
        project_kwargs={"project_dir": str(chosen.output), "automatic_checkpoint_naming": True, "total_limit": 5},
        sample_num_steps=chosen.steps,
        sample_eta=1.0,
        sample_guidance_scale=chosen.guidance,
        sample_batch_size=chosen.batch_size,
        sample_num_batches_per_epoch=chosen.batches,
        train_batch_size=chosen.batch_size,
        train_gradient_accumulation_steps=chosen.batches // chosen.updates,
        train_learning_rate=chosen.learning_rate,
        train_adam_weight_decay=chosen.weight_decay,
        train_clip_range=chosen.clip_range,
        train_adv_clip_max=chosen.advantage_clip,
        train_cfg=True,
        per_prompt_stat_tracking=True,
        per_prompt_stat_tracking_buffer_size=chosen.memory,
        per_prompt_stat_tracking_min_count=chosen.memory,
    )
    dice = random.Random(chosen.seed)  # noqa: S311  (which prompts are drawn)
    began = time.monotonic()
    scores: list[float] = []

    def prompt() -> tuple[str, dict[str, Any]]:
        return dice.choice(prompts), {}

    def reward(images: torch.Tensor, _prompts: Any, _metadata: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        found = [-kilobytes(image) for image in images]
        scores.extend(found)
        images_of_round = chosen.batches * chosen.batch_size
        if len(scores) == images_of_round:
            mean = sum(scores) / len(scores)
            print(json.dumps({"reward": mean, "seconds": time.monotonic() - began}), flush=True)
            scores.clear()
        return torch.tensor(found), {}

    trainer = DDPOTrainer(config, reward, prompt, pipeline)
    trainer.train()
    adapter = chosen.output / "adapter"
    pipeline.save_pretrained(str(adapter))


def kilobytes(image: torch.Tensor) -> float:
    """Return the size of an image, (3, height, width) from 0 to 1, as a JPEG in thousands of bytes."""
    levels = (image * 255).round().clamp(0, 255).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).cpu().numpy()).save(file, format="JPEG", quality=QUALITY)
    return len(file.getvalue()) / 1000


if __name__ == "__main__":
    main()
