"""Writes containers/training/requirements.txt: everything the training image installs, exactly and by hash.

`python containers/lock.py` has uv resolve it for the image's Python with the versions of constraints.txt, and needs a
network; with --check it fails, without one, when the file has drifted from pyproject.toml or constraints.txt.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
LOCKED = ROOT / "containers" / "training" / "requirements.txt"
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"
_OF_THE_CONTRACT = {"pillow", "pydantic"}  # of the client's own requirements, what the code of a job imports too
_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
_NOTICE = "# Everything the training image installs. Written by containers/lock.py; `make lock-image` renews it.\n"


def wanted() -> list[Requirement]:
    """Return what has to be in the image: the extras `train`, `evaluation` and `gpu`, and what the contract imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = [one for text in project["dependencies"] if (one := Requirement(text)).name in _OF_THE_CONTRACT]
    return [*_extra(project, "train"), *_extra(project, "evaluation"), *_extra(project, "gpu"), *own]


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


def resolve() -> str:
    """Return the file's content as of today."""
    options = ["--python-version", PYTHON, "--python-platform", PLATFORM, "--only-binary", ":all:", "--generate-hashes"]
    quiet = ["--no-header", "--no-annotate", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--constraint", str(CONSTRAINTS), *options, *quiet]
    lines = "\n".join(map(str, wanted()))
    return _NOTICE + subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True).stdout


def problems() -> Iterator[str]:
    """Yield where the file has drifted."""
    locked, constrained = pins(LOCKED), pins(CONSTRAINTS)
    for requirement in wanted():
        version = locked.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            yield f"pyproject.toml wants {requirement}, and the image gets {version or 'none'}"
    for name, version in locked.items():
        if constrained.get(name, version) != version:
            yield f"constraints.txt has {name} {constrained[name]}, and the image gets {version}"


def main() -> int:
    """Write the file, or with --check compare it."""
    if "--check" not in sys.argv:
        LOCKED.write_text(resolve())
        return 0
    drifted = list(problems())
    if drifted:
        print("\n".join(["containers/training/requirements.txt has drifted; run: make lock-image", *drifted]))
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
