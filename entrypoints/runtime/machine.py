"""What a run computes on: the same job ends in the same bytes only where all of this is the same."""

from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.environment import NVIDIA_DRIVER

LIBRARIES = ("torch", "diffusers", "peft", "transformers", "safetensors", "pillow")


class Machine(BaseModel):
    """What rounding depends on."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
    )

    device: str
    """Kind of device and what it can do: "cpu (AVX2)", "cuda (NVIDIA H100)"."""
    threads: int
    """CPU threads: each sums a part, so another number of them rounds differently."""
    libraries: dict[str, str]
    """Version of each library that computes."""

    def facts(self) -> dict[str, str]:
        """Return all fields as text, by name."""
        return {
            "device": self.device,
            "threads": str(self.threads),
            **self.libraries,
        }

    def differences(self, now: "Machine") -> list[str]:
        """Return what differs between this machine and `now`, each as "threads (was 4, is 2)"."""
        before = self.facts()
        after = now.facts()
        found = []
        for name in sorted(before.keys() | after.keys()):
            then = before.get(name, "none")
            here = after.get(name, "none")
            if then != here:
                found.append(f"{name} (was {then}, is {here})")
        return found


def require_gpu(instance_type: str, driver: Path = NVIDIA_DRIVER) -> None:
    """Raise TrainingError("driver") on an instance with GPUs that torch cannot use.

    Torch only warns and trains on the CPU: many times slower, at the price of the GPU.
    """
    if torch.cuda.is_available():
        return
    seen = "and the container sees no driver"
    if driver.exists():
        driver_version = driver.read_text().splitlines()[0]
        seen = f"whose driver may be too old: {driver_version}"
    raise TrainingError(
        "driver",
        f"{instance_type} has a GPU, {seen}. Torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it.",
        "Renew the image (python -m orchestrator infra up && python -m orchestrator infra image) and submit again with "
        "--restart; if that does not help, with another --instance-type.",
    )


def this_machine(device: torch.device) -> Machine:
    """Describe the machine that this process computes on."""
    kind = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    return Machine(
        device=f"{device.type} ({kind})",
        threads=torch.get_num_threads(),
        libraries=library_versions(),
    )


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a result depends on."""
    return {name: version(name) for name in LIBRARIES}
