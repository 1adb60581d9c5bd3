"""What a run computes on: equal work ends in equal bytes only where all of this is equal."""

from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from entrypoints.runtime.failures import TrainingError

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""Is there, in a container too, where the machine has a GPU of NVIDIA's with a driver."""
LIBRARIES = ("torch", "diffusers", "peft", "transformers", "safetensors", "pillow")


class Machine(BaseModel):
    """What rounding depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str
    """Kind of device and what it can do: "cpu (AVX2)", "cuda (NVIDIA H100)"."""
    threads: int
    """CPU threads: other numbers of them sum in another order."""
    libraries: dict[str, str]
    """Version of each library that computes."""

    def differences(self, now: "Machine") -> list[str]:
        """Return in words what is another `now`."""
        facts = {"device": (self.device, now.device), "threads": (self.threads, now.threads)}
        for name in sorted({*self.libraries, *now.libraries}):
            facts[name] = (self.libraries.get(name, "none"), now.libraries.get(name, "none"))
        return [f"{name} (was {then}, is {here})" for name, (then, here) in facts.items() if then != here]


def require_gpu(driver: Path = NVIDIA_DRIVER) -> None:
    """Raise TrainingError("driver") where there is a GPU that torch cannot use.

    Torch warns and goes on on the CPU, many times as slowly, and the GPU is paid for all the same.
    """
    if not driver.exists() or torch.cuda.is_available():
        return
    raise TrainingError(
        "driver",
        f"The machine has a GPU, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it. "
        f"Its driver may be too old: {driver.read_text().splitlines()[0]}",
        "Submit again with another --instance-type: newer ones have newer drivers.",
    )


def this_machine(device: torch.device) -> Machine:
    """Describe the machine that this process computes on."""
    cuda = device.type == "cuda"
    kind = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    return Machine(device=f"{device.type} ({kind})", threads=torch.get_num_threads(), libraries=library_versions())


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a result depends on."""
    return {name: version(name) for name in LIBRARIES}
