#!/opt/libraries/bin/python -I
"""Starts what runs in both images: `start-job python -m entrypoints.launch`, and `start-endpoint serve`.

Before it does, it checks that each input holds exactly what was submitted or deployed, and lets CUDA run on a host
whose driver is older than the image. It is a part of the images and imports nothing of the code, which it has not
checked yet; `-I` keeps Python itself from importing it (PYTHONPATH, sitecustomize). The standard library only.
"""

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT_VARIABLE = "ORCHESTRATOR_ML_ROOT"
INPUTS_VARIABLE = "ORCHESTRATOR_INPUTS"
"""The hash of each input's tree, as the client set it in the request: "code=0123... training=4567..."."""
SERVE = ["serve"]
"""What SageMaker calls the container of an endpoint with."""
SERVER = ["python", "-m", "entrypoints.serve", "serve"]
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""Exists, in a container too, on a host with a driver: "NVRM version: ... x86_64 Kernel Module  535.183.01 ..."."""
CUDA_COMPAT = Path("/usr/local/cuda/compat")
"""NVIDIA's user-mode driver for CUDA 13, which runs on the kernel modules of earlier drivers of data-center GPUs.

https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html
"""
_VERSION = re.compile(r"\b(\d{3,})\.(\d+)(?:\.(\d+))?\b")
_FAILED = 1
_STOPPED = 143  # 128 + SIGTERM


def main(command: Sequence[str]) -> int:
    """Check the inputs and become the command; return an exit status only when it cannot start."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))  # the first process of a container ignores it else
    if not command:
        sys.stderr.write("No command is given: start-job COMMAND [ARGUMENTS], or start-endpoint serve\n")
        return _FAILED
    root = Path(os.environ.get(ROOT_VARIABLE, "/opt/ml"))
    serves = command == SERVE
    if serves:
        command = SERVER
    try:
        changed = changed_inputs(os.environ.get(INPUTS_VARIABLE, ""), root, serves=serves)
    except OSError as error:
        report_unreadable(root, error)
        return _FAILED
    if changed:
        report_changed(root, changed)
        return _FAILED
    environment = {**os.environ, **loader_variables(os.environ, NVIDIA_DRIVER, CUDA_COMPAT)}
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606  (the command is the request's own)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error}\n")
        return _FAILED


def changed_inputs(expected: str, root: Path, *, serves: bool) -> dict[str, str]:
    """Return the inputs whose content is not the one that was submitted, with the hash of what was.

    Raises OSError when a file or a folder cannot be read.
    """
    changed = {}
    for pair in expected.split():
        name, _, sha256 = pair.partition("=")
        if tree_sha256(folder_of(name, root, serves=serves)) != sha256:
            changed[name] = sha256
    return changed


def folder_of(name: str, root: Path, *, serves: bool) -> Path:
    """Return where the service lays an input: a channel of a job, or a source of the model of an endpoint."""
    if not serves:
        return root / "input" / "data" / name
    if name == "model":
        return root / "model"
    return root / "additional-model-data-sources" / name


def tree_sha256(folder: Path) -> str:
    """Return one hash over the names and bytes of all files, as `orchestrator.contract.digest`, but byte code too."""
    lines = {}
    for place, _, names in os.walk(folder, onerror=_require_listing):
        for name in names:
            path = Path(place, name)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                lines[path.relative_to(folder).as_posix()] = (digest, file.tell())
    whole = hashlib.sha256()
    for name, (digest, size) in sorted(lines.items()):
        whole.update(f"{digest} {size} {name}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _require_listing(error: OSError) -> None:
    """Let a folder that cannot be listed not pass for an empty one; one that is gone is empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def report_unreadable(root: Path, error: OSError) -> None:
    """Say that the inputs cannot be checked."""
    next_step = (
        "Retry the job, which fetches its inputs anew: python -m orchestrator jobs retry JOB; if it fails again, look "
        "at the disk of the machine."
    )
    report(root, "unreadable-input", f"The inputs of the job cannot be read: {error}", next_step)


def report_changed(root: Path, changed: Mapping[str, str]) -> None:
    """Say which inputs are not those that were submitted, and how to have them uploaded again."""
    names = ", ".join(changed)
    message = f"The input {names} is not what was submitted: files in the bucket were changed, added or removed."
    # A tree with a manifest is not uploaded again: both have the hash in their names, and both have to go.
    patterns = " ".join(f"--include '*{sha256}*'" for sha256 in changed.values())
    next_step = (
        "The bucket's owner looks who wrote there and deletes what is stored of it: "
        f"aws s3 rm s3://BUCKET --recursive --exclude '*' {patterns}; then submit again with --restart."
    )
    report(root, "changed-input", message, next_step)


def report(root: Path, kind: str, message: str, next_step: str) -> None:
    """Say why the job does not start: as an event in the log, and in the file that becomes its FailureReason."""
    event = {"event": "failed", "kind": kind, "message": message, "next_step": next_step}
    sys.stdout.write(f"{json.dumps(event)}\n")
    failure = root / "output" / "failure"
    with suppress(OSError):  # the event has been told
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(f"{message}\nNext: {next_step}", encoding="utf-8", errors="replace")


def loader_variables(environment: Mapping[str, str], driver: Path, compat: Path) -> dict[str, str]:
    """Return LD_LIBRARY_PATH with the image's user-mode driver in front where the host's is older, else nothing.

    In front of a newer driver it would hide that one's functions.
    """
    host = version_in(driver)
    own = max((version_of(path.name) for path in compat.glob("libcuda.so.*.*")), default=())
    if not host or not own or host >= own:
        return {}
    paths = [str(compat), *filter(None, [environment.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": ":".join(paths)}


def version_in(driver: Path) -> tuple[int, ...]:
    """Return the version of the host's driver; empty without a driver."""
    try:
        return version_of(driver.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ()


def version_of(text: str) -> tuple[int, ...]:
    """Return the first version number in a text: "535.183.01" as (535, 183, 1); empty without one."""
    found = _VERSION.search(text)
    if found is None:
        return ()
    return tuple(int(part) for part in found.groups(default="0"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
