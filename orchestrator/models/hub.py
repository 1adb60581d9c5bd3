"""The one door to the Hugging Face Hub: which commit a revision is, and the files a run reads of a model.

Who may read a gated model is told from the token that `hf auth login` left on this machine or from HF_TOKEN. The
library reads it and sends it to the Hub; nothing here has it in hand, and no message repeats the Hub's own words.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from json import JSONDecodeError
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.families import HUB_FILES, HUB_OTHER_VARIANTS
from orchestrator.errors import HubError, MachineError, OrchestratorError, ServiceError, SpecError

DEFAULT_REVISION = "main"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HubModel(BaseModel):
    """A model at one commit, as the Hub describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """Its name, as it was asked for: "org/model"."""
    commit: str
    """Hash of the commit."""
    sizes: dict[str, int]
    """Bytes of each file that a run reads, by its relative path."""

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(self.sizes.values())


def look_up(model_id: str, revision: str) -> HubModel:
    """Ask the Hub for a model's commit and files; raises SpecError, HubError, MachineError or ServiceError."""
    with _asking(model_id, revision):
        from huggingface_hub import HfApi

        found = HfApi().model_info(model_id, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or []}
        read = {name: size for name, size in sizes.items() if _is_read(name)}
        return HubModel(id=model_id, commit=str(found.sha), sizes=read)


def _is_read(name: str) -> bool:
    return any(fnmatchcase(name, kind) for kind in HUB_FILES) and not any(
        fnmatchcase(name, kind) for kind in HUB_OTHER_VARIANTS
    )


def fetch_file(model: HubModel, name: str) -> Path:
    """Return one file of a model, from the cache when it is there; raises as `look_up` does."""
    with _asking(model.id, model.commit):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(model.id, name, revision=model.commit))


def fetch(model: HubModel) -> Path:
    """Return the folder with all that a run reads of a model, from the cache what is there; raises as `look_up` does.

    On a terminal the library draws a bar.
    """
    with _asking(model.id, model.commit):
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                model.id,
                revision=model.commit,
                allow_patterns=[*HUB_FILES],
                ignore_patterns=[*HUB_OTHER_VARIANTS],
            )
        )
    _require_all(model, folder)
    return folder


def _require_all(model: HubModel, folder: Path) -> None:
    """Raise ServiceError for a folder without all of a model: where the Hub fails, the library gives what is cached."""
    there = {name: (folder / name).stat().st_size for name in model.sizes if (folder / name).is_file()}
    if there != model.sizes:
        message = f"The Hugging Face Hub did not give out all of {model.id}."
        raise ServiceError(message, next_step="try again in a few minutes; what was fetched is kept")


@contextmanager
def _asking(model_id: str, revision: str) -> Iterator[None]:
    """Raise what goes wrong as one of our errors; what nobody foresaw stays what it is."""
    _settle()
    try:
        yield
    except ImportError as error:
        message = "The package that talks to the Hugging Face Hub is not installed."
        raise MachineError(message, next_step="pip install 'orchestrator[hub]'") from error
    except Exception as error:
        foreseen = _of_access(error, model_id) or _of_name(error, model_id, revision) or _of_machine(error)
        foreseen = foreseen or _of_network(error)
        if foreseen is None:
            raise
        # The library's own error quotes addresses and answers; it is left out of ours on purpose.
        raise foreseen from None


def _settle() -> None:
    """Say how the library is to behave, which it reads when it is imported; what a person has set stands."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _of_access(error: Exception, model_id: str) -> OrchestratorError | None:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    page = f"https://huggingface.co/{model_id}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, GatedRepoError):
        if status == 401:  # noqa: PLR2004  (Unauthorized: without a token)
            message = f'"{model_id}" is gated, and this machine is not signed in to the Hugging Face Hub.'
            return HubError(message, next_step=f"accept its terms at {page}, then: hf auth login")
        message = f'"{model_id}" is gated, and who is signed in here has not been given access to it.'
        return HubError(message, next_step=f"accept its terms at {page}, wait until access is granted, then try again")
    if status == 401 and not isinstance(error, RepositoryNotFoundError):  # noqa: PLR2004
        return HubError("The Hugging Face Hub does not accept this machine's token.", next_step="hf auth login")
    if status == 403:  # noqa: PLR2004  (Forbidden: a token of narrow rights, or a model that was disabled)
        message = f'The Hugging Face Hub does not let this machine\'s token read "{model_id}".'
        return HubError(message, next_step=f"look at {page}, then sign in with a token that may: hf auth login")
    return None


def _of_name(error: Exception, model_id: str, revision: str) -> OrchestratorError | None:
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/{model_id}"
    if isinstance(error, RevisionNotFoundError):
        message = f'"{model_id}" has no branch, tag or commit "{revision}".'
        return SpecError(message, next_step=f"choose one of those at {page}/tree/{DEFAULT_REVISION}")
    if isinstance(error, RepositoryNotFoundError):
        message = f'The Hugging Face Hub has no model "{model_id}", or it is private and not for this machine\'s eyes.'
        return SpecError(message, next_step="check the name; if the model is private: hf auth login")
    if isinstance(error, HFValidationError):
        return SpecError(f'"{model_id}" is no name of a model.', next_step="write it as the Hub does: org/model")
    return None


def _of_machine(error: Exception) -> OrchestratorError | None:
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import OfflineModeIsEnabled

    if any(isinstance(one, OfflineModeIsEnabled) for one in (error, error.__cause__)):
        message = "The Hugging Face Hub is not asked, because HF_HUB_OFFLINE is set."
        return MachineError(message, next_step="unset HF_HUB_OFFLINE, then try again")
    # the library's other way to download is not in Python and raises what it likes
    if getattr(error, "errno", None) in _FULL or "no space left on device" in str(error).lower():
        message = f"The disk is full: the model does not fit into {HF_HUB_CACHE}."
        return MachineError(message, next_step="free some space, or set HF_HOME to a folder on another disk")
    return None


def _of_network(error: Exception) -> OrchestratorError | None:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        message = f"The Hugging Face Hub answers with an error ({error.response.status_code})."
        return ServiceError(message, next_step="try again in a few minutes")
    # HTTPError is that of the HTTP library below, which changes its name with the years.
    transport: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    # What is not in the cache cannot be had now; or somebody else answers, as the gate of a hotel's network does.
    if isinstance(error, (transport, errors.LocalEntryNotFoundError, errors.FileMetadataError, JSONDecodeError)):
        message = "The Hugging Face Hub cannot be reached from this machine."
        return ServiceError(message, next_step="check the network, its proxy and HF_ENDPOINT, then try again")
    return None
