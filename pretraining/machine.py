"""The machine that trains: its GPU where there is one, else its processor, and the arithmetic that is fastest there."""

import os
import platform
from pathlib import Path

import torch


def device() -> torch.device:
    """Return the device that networks train on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """Return the context in which a forward pass computes in bfloat16 where that is safe; weights stay float32."""
    return torch.autocast(device().type, torch.bfloat16)


def machine_name() -> str:
    """Return the GPU's name, or the processor's with the number of cores: what the model card states."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = os.cpu_count() or 1
    return f"{cores} cores of {processor_name()}, no GPU"


def processor_name() -> str:
    """Return the processor's name as Linux states it, else as Python does."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
