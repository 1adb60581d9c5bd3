"""What evaluations left: on this machine, or in the bucket beside the adapters."""

from typing import NamedTuple

from pydantic import ValidationError

from orchestrator.adapters.registry import made_again
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.batch_result import DrawnImages
from orchestrator.contract.evaluation_result import EVALUATION_FILE, MOST_BYTES, EvaluationResult
from orchestrator.errors import JobError, MissingError, OrchestratorError
from orchestrator.storage import Store
from orchestrator.storage.folder import location_of
from orchestrator.storage.uris import folder_name


class Outcome(NamedTuple):
    """What lies in the folder that a job has filled: an adapter, the evaluation of one, or images."""

    manifest: AdapterManifest | None = None
    """The manifest of the adapter; None when there is none that can be read."""
    problem: OrchestratorError | None = None
    """Why it cannot be used; None when all files are there with their sizes."""
    evaluation: EvaluationResult | None = None
    """What was measured; None for a job that does not."""
    images: DrawnImages | None = None
    """What was drawn; None for a job that draws no batch."""


def inspect_evaluation(store: Store, prefix: str, job: str) -> Outcome:
    """Read the result of an evaluation below a prefix, and look whether its files are there with their sizes."""
    prefix = folder_name(prefix)
    name = f"{prefix}{EVALUATION_FILE}"
    file = location_of(store.uri(name))
    try:
        text = store.get_bytes(name)
        if len(text) > MOST_BYTES:
            raise JobError(f"{file} has {len(text)} bytes; at most {MOST_BYTES} are read.", next_step=made_again(job))
        result = EvaluationResult.model_validate_json(text)
    except MissingError:
        return Outcome(problem=JobError(f"{file} is missing.", next_step=made_again(job)))
    except ValidationError:
        message = f"{file} cannot be read; it was changed, or written by a newer version."
        return Outcome(problem=JobError(message, next_step=made_again(job)))
    except OrchestratorError as error:
        return Outcome(problem=error)
    listed = store.list_prefix(prefix)
    for relative, digest in sorted(result.files.items()):
        found = listed.get(f"{prefix}{relative}")
        if found is None or found.size != digest.size:
            folder = location_of(store.uri(prefix))
            message = f"The evaluation in {folder} is damaged: {relative} is missing or was changed."
            return Outcome(problem=JobError(message, next_step=made_again(job)), evaluation=result)
    return Outcome(evaluation=result)
