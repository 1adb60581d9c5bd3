"""The only module that calls the Hugging Face Hub: the commit of a revision, and the files a run reads of a model.

Gated models need the token that `hf auth login` saved on this machine, or HF_TOKEN. The library reads it and sends it
to the Hub; this module never handles it, and no message repeats the Hub's answers.
"""

import errno
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.families import INDEX_FILE
from orchestrator.contract.model_layout import files_read
from orchestrator.errors import HubError, MachineError, OrchestratorError, ServiceError, SpecError

DEFAULT_REVISION = "main"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNAUTHORIZED = 401  # no token, or an invalid one
_FORBIDDEN = 403  # a token without the right, or a model that was disabled


class HubModel(BaseModel):
    """A model at one commit, as the Hub describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Name as requested: "org/model"."""
    commit: str
    """Hash of the commit."""
    sizes: dict[str, int]
    """Bytes of each file that a run reads, by its relative path."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.sizes.values())


def look_up(model_id: str, revision: str) -> HubModel:
    """Return a model's commit and files, from the Hub; raises SpecError, HubError, MachineError or ServiceError."""
    with _asking(model_id, revision):
        from huggingface_hub import HfApi

        found = HfApi().model_info(
            model_id,
            revision=revision,
            files_metadata=True,
        )
        sizes = {}
        for file in found.siblings or []:
            sizes[file.rfilename] = file.size or 0
        names = [INDEX_FILE, *files_read(sizes)]
        return HubModel(
            id=model_id,
            commit=str(found.sha),
            sizes={name: sizes[name] for name in names if name in sizes},
        )


def fetch(model: HubModel, names: Collection[str]) -> Path:
    """Download these files of a model, unless they are cached; return the folder of the model.

    Raises as `look_up` does. On a terminal the library shows a progress bar.
    """
    with _asking(model.id, model.commit):
        from huggingface_hub import snapshot_download

        path = snapshot_download(
            model.id,
            revision=model.commit,
            allow_patterns=list(names),
        )
    folder = Path(path)
    _require_all_files(model, names, folder)
    return folder


def _require_all_files(model: HubModel, names: Collection[str], folder: Path) -> None:
    """Raise ServiceError when files are missing: if the Hub fails, the library returns what is cached."""
    for name in names:
        path = folder / name
        is_complete = path.is_file() and path.stat().st_size == model.sizes[name]
        if not is_complete:
            message = f"The Hugging Face Hub did not send all files of {model.id}."
            raise ServiceError(message, next_step="try again in a few minutes; downloaded files are kept")


@contextmanager
def _asking(model_id: str, revision: str) -> Iterator[None]:
    """Raise the library's errors as ours; an unexpected one stays as it is."""
    _configure()
    try:
        yield
    except ImportError as error:
        message = "The package that talks to the Hugging Face Hub is not installed."
        raise MachineError(message, next_step="pip install 'orchestrator[hub]'") from error
    except Exception as error:
        expected = (
            _access_error(error, model_id)
            or _name_error(error, model_id, revision)
            or _machine_error(error)
            or _network_error(error)
        )
        if expected is None:
            raise
        # The library's own error quotes addresses and answers, so it is not chained.
        raise expected from None


def _configure() -> None:
    """Set what the library reads from the environment when it is imported; a person's own values stay."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _access_error(error: Exception, model_id: str) -> OrchestratorError | None:
    """Return our error for one of signing in, or None."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    page = f"https://huggingface.co/{model_id}"
    status = 0
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
    if isinstance(error, GatedRepoError):
        if status == _UNAUTHORIZED:
            message = f'"{model_id}" is gated, and this machine is not signed in to the Hugging Face Hub.'
            return HubError(message, next_step=f"accept its terms at {page}, then: hf auth login")
        message = f'"{model_id}" is gated, and the signed-in account has not been granted access to it.'
        return HubError(message, next_step=f"accept its terms at {page}, wait until access is granted, then try again")
    is_missing = isinstance(error, RepositoryNotFoundError)  # 401 too, for who is not signed in
    if status == _UNAUTHORIZED and not is_missing:
        message = "The Hugging Face Hub does not accept this machine's token."
        return HubError(message, next_step="hf auth login")
    if status == _FORBIDDEN:
        message = f'The Hugging Face Hub does not let this machine\'s token read "{model_id}".'
        return HubError(message, next_step=f"look at {page}, then sign in with a token that may: hf auth login")
    return None


def _name_error(
    error: Exception,
    model_id: str,
    revision: str,
) -> OrchestratorError | None:
    """Return our error for a model or a revision that does not exist, or None."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/{model_id}"
    if isinstance(error, RevisionNotFoundError):
        message = f'"{model_id}" has no branch, tag or commit "{revision}".'
        branches = f"{page}/tree/{DEFAULT_REVISION}"
        return SpecError(message, next_step=f"choose one of those at {branches}")
    if isinstance(error, RepositoryNotFoundError):
        message = f'The Hugging Face Hub has no model "{model_id}", or it is private and this machine has no access.'
        return SpecError(message, next_step="check the name; if the model is private: hf auth login")
    if isinstance(error, HFValidationError):
        message = f'"{model_id}" is not the name of a model.'
        return SpecError(message, next_step="write it as on the Hub: org/model")
    return None


def _machine_error(error: Exception) -> OrchestratorError | None:
    """Return our error for one of this machine: its settings, its disk; or None."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import OfflineModeIsEnabled

    is_offline = isinstance(error, OfflineModeIsEnabled)
    was_offline = isinstance(error.__cause__, OfflineModeIsEnabled)
    if is_offline or was_offline:
        message = "The Hugging Face Hub was not contacted, because HF_HUB_OFFLINE is set."
        return MachineError(message, next_step="unset HF_HUB_OFFLINE, then try again")
    # The library's downloader in Rust raises errors without an errno.
    number = getattr(error, "errno", None)
    text = str(error).lower()
    if number in _DISK_FULL or "no space left on device" in text:
        message = f"The disk is full: the model does not fit into {HF_HUB_CACHE}."
        return MachineError(message, next_step="free some space, or set HF_HOME to a folder on another disk")
    return None


def _network_error(error: Exception) -> OrchestratorError | None:
    """Return our error for a Hub that fails or cannot be reached, or None."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        message = f"The Hugging Face Hub answers with an error ({status})."
        return ServiceError(message, next_step="try again in a few minutes")
    unreachable: tuple[type[Exception], ...] = (
        errors.HTTPError,  # type: ignore[attr-defined]  # of its HTTP library, requests or httpx by version
        errors.LocalEntryNotFoundError,
        errors.FileMetadataError,  # something else answers, such as the login page of a hotel's network
        JSONDecodeError,
    )
    if isinstance(error, unreachable):
        message = "The Hugging Face Hub cannot be reached from this machine."
        return ServiceError(message, next_step="check the network, its proxy and HF_ENDPOINT, then try again")
    return None
