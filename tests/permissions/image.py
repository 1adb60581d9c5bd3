"""What the jobs of these tests run in place of Python: trains nothing, and leaves all that training leaves.

The first attempt writes two checkpoints and waits to be stopped; the next one lets go of the older and ends well.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

root = Path(os.environ["ORCHESTRATOR_ML_ROOT"])
LARGE = 9 * 2**20  # bytes; more than the service sends in one piece


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def checkpoint(step: int) -> None:
    folder = root / "checkpoints" / f"step-{step:08d}"
    folder.mkdir()
    (folder / "tensors.safetensors").write_text("")
    (folder / "checkpoint.json").write_text("{}")
    with (root / "checkpoints" / "history.jsonl").open("a") as history:
        history.write(json.dumps({"step": step}) + "\n")
    figures = {"step": step, "of": 3, "loss": 0.5, "learning_rate": 1e-4, "seconds_per_step": 0.1}
    say(json.dumps({"event": "step", **figures}))


def finish(weights: bytes) -> None:
    (root / "model" / "pytorch_lora_weights.safetensors").write_bytes(weights)
    digest = {"sha256": hashlib.sha256(weights).hexdigest(), "size": len(weights)}
    manifest = {
        "recipe": "dreambooth",
        "config": {},
        "base_model": {"id": "builtin", "fingerprint": "f", "family": "sd"},
        "dataset_sha256": "d",
        "trigger": "sks",
        "bundle_sha256": "b",
        "libraries": {},
        "files": {"pytorch_lora_weights.safetensors": digest},
    }
    (root / "model" / "adapter.json").write_text(json.dumps(manifest))
    (root / "output" / "data" / "report.html").write_text("<!doctype html>")
    (root / "output" / "tensorboard").mkdir()
    (root / "output" / "tensorboard" / "events.out.tfevents.1").touch()


def draw() -> None:
    """Leave what a job that draws a batch leaves."""
    samples = json.loads((root / "input" / "data" / "samples" / "samples.json").read_text())["samples"]
    (root / "model" / "images").mkdir()
    for sample in samples:
        (root / "model" / "images" / f"{sample['id']}.png").write_bytes(b"picture")
        sample["digest"] = {"sha256": hashlib.sha256(b"picture").hexdigest(), "size": len(b"picture")}
    index = {
        "host": 0,
        "hosts": 1,
        "total": len(samples),
        "samples_sha256": "s",
        "base_model": {"id": "builtin", "fingerprint": "f", "family": "sd"},
        "libraries": {},
        "images": samples,
    }
    (root / "model" / "index-1-of-1.json").write_text(json.dumps(index))


settings = json.loads((root / "input" / "config" / "hyperparameters.json").read_text())
if settings.get("recipe") == '"generate"':
    draw()
    sys.exit(0)
earlier = root / "checkpoints" / "step-00000001" / "checkpoint.json"
if earlier.exists():
    earlier.unlink()
    checkpoint(3)
    finish(b"weights")
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    checkpoint(1)
    checkpoint(2)
    if os.environ["TRAINING_JOB_NAME"].startswith("large"):
        finish(bytes(LARGE))
    say("waits to be stopped")
    while True:
        signal.pause()
