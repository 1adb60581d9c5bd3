"""Base models of the Hugging Face Hub: fetched once, and at one commit for all of a run."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError

from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from orchestrator.contract.command_line import PROGRAM
from orchestrator.contract.model_layout import HUB_FILES, HUB_VARIANTS, lacks_weights

PIN_FILE = "base_model.json"
_TO_A_GATED_MODEL = (
    "accept its terms at https://huggingface.co/{model}, sign in with: hf auth login; then submit again "
    f"on this machine, or for SageMaker first: {PROGRAM} models mirror {{model}}"
)


def fetch_pinned(model_id: str, revision: str | None, checkpoints: Path) -> tuple[Path, str]:
    """Return the folder and the commit of a Hub model as it was at the run's first attempt.

    A branch may get new commits while a run is interrupted. The commit is therefore kept with the checkpoints and is
    copied wherever they are copied. Raises TrainingError as `fetch_from_hub` does.
    """
    pin = checkpoints / PIN_FILE
    reference = {"base_model": model_id, "base_revision": revision}
    pinned = pinned_commit(pin, reference)
    if pinned is not None:
        return fetch_from_hub(model_id, pinned)
    folder, commit = fetch_from_hub(model_id, revision)
    text = json.dumps({**reference, "commit": commit}, indent=2)
    write_durably(pin, text + "\n")
    return folder, commit


def pinned_commit(pin: Path, reference: dict[str, str | None]) -> str | None:
    """Return the commit that `reference` was resolved to before, None without one.

    A damaged file counts as none: the checkpoint's identity still guards against another model.
    """
    try:
        pinned = json.loads(pin.read_text(encoding="utf-8"))
        commit = str(pinned.pop("commit"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    if pinned != reference:
        return None
    return commit


def write_durably(path: Path, text: str) -> None:
    """Write a file that is whole or absent, even after a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def fetch_from_hub(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder and the commit of a Hub model, from the local cache when it is there (or offline).

    Raises TrainingError: "gated-model" when its terms must be accepted first, "hub" when it cannot be fetched for
    another reason.
    """
    try:
        folder = _fetch(model_id, revision, ignored=HUB_VARIANTS)
        if lacks_weights(folder):  # of plain precision: then whatever there is
            folder = _fetch(model_id, folder.name, ignored=())
    except GatedRepoError as error:
        raise TrainingError(
            "gated-model",
            f'"{model_id}" is gated on the Hugging Face Hub, and there is no token here that may read it.',
            _TO_A_GATED_MODEL.format(model=model_id),
        ) from error
    except Exception as error:  # of the Hub, of the network below it, of the name
        if failure_of(error):
            raise
        wanted = model_id
        if revision is not None:
            wanted = f"{model_id} at {revision}"
        # A mistyped path can look like an id, so the message speaks of both.
        raise TrainingError(
            "hub",
            f'There is no folder "{model_id}", and {wanted} cannot be fetched from Hugging Face: {first_line(error)}',
            f"Check the name and the network, then: {PROGRAM} jobs retry JOB",
        ) from error
    return folder, folder.name  # the cache names a snapshot by its commit


def _fetch(model_id: str, revision: str | None, ignored: Sequence[str]) -> Path:
    snapshot = snapshot_download(
        model_id,
        revision=revision,
        allow_patterns=[*HUB_FILES],
        ignore_patterns=[*ignored],
    )
    return Path(snapshot)
