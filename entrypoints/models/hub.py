"""Base models of the Hugging Face Hub: fetched once, and at one commit for all of a run."""

import json
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError

from entrypoints.models.loading import NEXT_STEP
from entrypoints.runtime.failures import TrainingError, failure_of
from orchestrator.contract.command_line import PROGRAM
from orchestrator.contract.families import HUB_FILES, HUB_OTHER_VARIANTS

PIN_FILE = "base_model.json"
_TO_A_GATED_MODEL = (
    "accept its terms at https://huggingface.co/{model}, sign in with: hf auth login; then submit again "
    f"on this machine, or for SageMaker first: {PROGRAM} models mirror {{model}}"
)


def fetch_pinned(model_id: str, revision: str | None, checkpoints: Path) -> tuple[Path, str]:
    """Return the folder and the commit of a Hub model as it was at the run's first attempt.

    A branch moves on while a run is interrupted. The commit therefore lies with the checkpoints and goes where they go.
    Raises TrainingError("base-model") when it cannot be had.
    """
    pin = checkpoints / PIN_FILE
    asked = {"base_model": model_id, "base_revision": revision}
    if (pinned := _pinned_commit(pin, asked)) is not None:
        return fetch_from_hub(model_id, pinned)
    folder, commit = fetch_from_hub(model_id, revision)
    _write(pin, json.dumps({**asked, "commit": commit}, indent=2) + "\n")
    return folder, commit


def _pinned_commit(pin: Path, asked: dict[str, str | None]) -> str | None:
    """Return the commit that `asked` was resolved to before, None without one.

    A damaged file counts as none: a checkpoint knows the model it belongs to.
    """
    try:
        pinned = json.loads(pin.read_text(encoding="utf-8"))
        commit = str(pinned.pop("commit"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return commit if pinned == asked else None


def _write(path: Path, text: str) -> None:
    """Write a file that is whole or absent, on the disk itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def fetch_from_hub(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder and the commit of a Hub model, from the local cache when it is there (or offline).

    Raises TrainingError("base-model") when it cannot be had, "gated-model" when its terms stand in the way.
    """
    try:
        folder = Path(
            snapshot_download(
                model_id, revision=revision, allow_patterns=[*HUB_FILES], ignore_patterns=[*HUB_OTHER_VARIANTS]
            )
        )
    except GatedRepoError as error:
        message = f'"{model_id}" is gated on the Hugging Face Hub, and the job has no token that may read it.'
        raise TrainingError("gated-model", message, _TO_A_GATED_MODEL.format(model=model_id)) from error
    except Exception as error:  # of the Hub, of the network below it, of the name
        if failure_of(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        wanted = model_id if revision is None else f"{model_id} at {revision}"
        # A path with a slip of the pen can look like an id.
        message = f'There is no folder "{model_id}", and Hugging Face does not give out {wanted}: {reason}'
        raise TrainingError("base-model", message, NEXT_STEP) from error
    return folder, folder.name  # the cache names a snapshot by its commit
