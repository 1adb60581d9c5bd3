"""Writes what the images and local mode install, exactly and by hash: the requirements*.txt of this folder.

`python containers/lock.py` has uv resolve them for the images' Python with the versions of constraints.txt, and needs a
network; with --check it fails, without one, when a file has drifted from pyproject.toml or constraints.txt.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
CONTAINERS = ROOT / "containers"
LOCAL_MODE = CONTAINERS / "local_mode" / "requirements.txt"
SDK = "sagemaker-core>=2.27,<3"
"""The part of the SageMaker SDK that has local mode; its versions contradict ours, so it gets an environment alone."""
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""Where the builds of torch without CUDA are."""
_OF_THE_CONTRACT = {"pillow", "pydantic"}  # of the client's own requirements, what the code of a job imports too
_FOR_GPUS = re.compile(r"(nvidia|cuda)-|(triton|bitsandbytes)==")
_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
_NOTICE = "# Everything {} installs. Written by containers/lock.py; `make lock-image` renews it.\n"
_CPU_NOTICE = "# The same for machines without a GPU: torch without CUDA, and nothing that only GPUs need.\n"


class Image(NamedTuple):
    """What an image installs."""

    name: str
    """Its folder."""
    extras: tuple[str, ...]
    """Extras of pyproject.toml."""
    left_out: frozenset[str] = frozenset()
    """Requirements of these extras that its code does not import."""

    @property
    def locked(self) -> Path:
        """Its requirements."""
        return CONTAINERS / self.name / "requirements.txt"

    @property
    def locked_for_cpu(self) -> Path:
        """Its requirements for machines without a GPU."""
        return CONTAINERS / self.name / "requirements-cpu.txt"

    def wanted(self) -> list[Requirement]:
        """Return what has to be in the image: that of its extras, and what the contract imports."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        found = []
        for extra in self.extras:
            found += [one for one in _extra(project, extra) if one.name not in self.left_out]
        for text in project["dependencies"]:
            requirement = Requirement(text)
            if requirement.name in _OF_THE_CONTRACT:
                found.append(requirement)
        return found


IMAGES = (
    Image("training", ("train", "evaluation", "gpu")),
    Image("inference", ("serve",), frozenset({"prodigyopt", "tensorboardx"})),
)


def _extra(project: dict[str, Any], name: str) -> Iterator[Requirement]:
    """Yield what an extra asks for, those of the project's own extras that it names included."""
    for requirement in map(Requirement, project["optional-dependencies"][name]):
        if requirement.name == project["name"]:
            for own in sorted(requirement.extras):
                yield from _extra(project, own)
        else:
            yield requirement


def pins(path: Path) -> dict[str, str]:
    """Return the exact version of each package a file pins."""
    return {str(canonicalize_name(name)): version for name, version in _PIN.findall(path.read_text())}


def resolve(wanted: str, *options: str) -> str:
    """Return pinned requirements, with their hashes, as of today."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--python-version", PYTHON, "--generate-hashes"]
    quiet = ["--no-header", "--no-annotate", "--quiet"]
    return subprocess.run(
        [*command, *quiet, *options], input=wanted, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def resolve_image(image: Image) -> str:
    """Return what an image installs, for the GPU instances of SageMaker."""
    wanted = "\n".join(map(str, image.wanted()))
    options = ["--constraint", str(CONSTRAINTS), "--python-platform", PLATFORM, "--only-binary", ":all:"]
    return _NOTICE.format(f"the {image.name} image") + resolve(wanted, *options)


def without_gpu(locked: str) -> str:
    """Return the requirements of an image for machines without a GPU, from those of the same image with one."""
    kept = []
    for block in re.split(r"\n(?=\S)", locked.strip()):
        if block.startswith("torch=="):
            version = _PIN.findall(block)[0][1]
            kept.append(f"torch=={version}+cpu \\\n    --hash=sha256:{_cpu_wheel_sha256(version)}")
        elif not _FOR_GPUS.match(block):
            kept.append(block)
    notice, *blocks = kept
    return "\n".join([notice, _CPU_NOTICE.strip(), *blocks, ""])


def _cpu_wheel_sha256(version: str) -> str:
    """Return the hash of the wheel of torch without CUDA."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["download", f"torch=={version}+cpu", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        platform = ["--python-version", PYTHON, "--platform", "manylinux_2_28_x86_64"]
        source = ["--extra-index-url", CPU_WHEELS, "--quiet"]
        subprocess.run([sys.executable, "-m", "pip", *words, *platform, *source], check=True)
        [wheel] = Path(folder).iterdir()
        with wheel.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def problems() -> Iterator[str]:
    """Yield where the files have drifted."""
    constrained = pins(CONSTRAINTS)
    for image in IMAGES:
        locked = pins(image.locked)
        for requirement in image.wanted():
            version = locked.get(canonicalize_name(requirement.name))
            if version is None or version not in requirement.specifier:
                yield f"pyproject.toml wants {requirement}, and the {image.name} image gets {version or 'none'}"
        for name, version in locked.items():
            if constrained.get(name, version) != version:
                yield f"constraints.txt has {name} {constrained[name]}, and the {image.name} image gets {version}"
        for name, version in pins(image.locked_for_cpu).items():
            if locked.get(name) != version.removesuffix("+cpu"):
                yield f"the {image.name} image has {name} {locked.get(name)}, and without a GPU {version}"


def main() -> int:
    """Write the files, or with --check compare them."""
    if "--check" not in sys.argv:
        for image in IMAGES:
            image.locked.write_text(resolve_image(image))
            image.locked_for_cpu.write_text(without_gpu(image.locked.read_text()))
        LOCAL_MODE.write_text(_NOTICE.format("`--target container`") + resolve(SDK, "--universal"))
        return 0
    drifted = list(problems())
    if drifted:
        print("\n".join(["Files in containers/ have drifted; run: make lock-image", *drifted]))
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
