"""What a server is told when it starts: its base model, its adapters, where it listens, how much it may hold.

It says on stdout what becomes of it, as events: `Listening` with its port, `Phase("loading")`, `Phase("serving")`, and
`Failed` before it ends because it cannot serve. Over HTTP, each request with `Authorization: Bearer TOKEN`:

    GET /ping       200 when it serves, 503 while it loads, ends or is stuck; needs no token
    GET /readyz     200 when another request would be taken
    GET /status     {"phase": "loading" | "serving" | "ending", "admitted": requests that are being answered,
                    "waiting": images in the queue, "drawing": images that are drawn, "drawn": images in all,
                    "last_used": seconds since a request was last answered, or since the start; 0 while one is,
                    "adapters": how many are known}; 200 while it loads, too
    GET /metrics    figures for Prometheus
    POST /invocations, POST /v1/images/generations      draws; with "stream": true, or Accept: text/event-stream, as
                    server-sent events `preview`, then `result` or `error`
    POST /adapters {"name": ..., "src": folder or .tar.gz below `root`}, GET /adapters, GET and DELETE /adapters/NAME

Refusals are {"error": {"message": ..., "code": status, "next": what to do}}: 422 for what a request says, 424 for an
adapter that cannot be used, 413 for a body that is too large, 408 for one that comes too slowly, 406, 429 for a full
queue and for too many bodies or registrations at once, 503 while it loads or ends, both with Retry-After, 504 for a
request that is late, 507 for want of memory or disk space, 500 for a fault of the server. A request's time runs from
when it comes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

ORDER_FILE = "server.json"
"""In the folder of the model, in a container: `/opt/ml/model/server.json`."""
BASE_MODEL_FOLDER = "base_model"
ADAPTERS_FOLDER = "adapters"
"""In the folder of the model."""
SOURCES_FOLDER = "additional-model-data-sources"
"""Beside the folder of the model, in a container: SageMaker lays the further sources of a model there."""
CODE_SOURCE = "code"
"""The source that is the server's bundle; the base model's is BASE_MODEL_FOLDER."""
EVERYWHERE = "0.0.0.0"  # noqa: S104 - of a container, which only SageMaker reaches
PORT = 8080
"""Of SageMaker's hosting contract."""
LOCALHOST = "127.0.0.1"


class ServerOrder(BaseModel):
    """Everything that a server depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    """The base model, as messages name it."""
    base_folder: Path | None = None
    """Its folder; None to fetch it from the Hugging Face Hub, or take it from its cache."""
    base_revision: str | None = None
    """Commit or branch of a model of the Hub."""
    adapters: Mapping[str, Path] = {}
    """Folder of each adapter that is known from the start, by its name."""
    root: Path
    """Below which adapters lie that are registered later, by their paths."""
    host: str = LOCALHOST
    """Address to listen on."""
    port: int = Field(PORT, ge=0, le=65535)
    """Port to listen on; 0 for any that is free."""
    token: str | None = Field(None, min_length=16, repr=False)
    """That every request has to carry; None where something else checks who calls."""
    slots: int = Field(16, ge=1, le=1024)
    """Adapters of each rank that can be drawn with at the same time."""
    memory_bytes: int = Field(2**31, ge=0)
    """Of adapters that are kept in main memory."""
    slot_bytes: int = Field(2**32, ge=0)
    """Of slots, on the device that draws."""
    disk_bytes: int = Field(2**33, ge=0)
    """Of archives of adapters that are kept unpacked."""
    rows: int | None = Field(None, ge=2, le=1024)
    """Rows of a batch at the base model's own size, an image with guidance has two; measured when left out."""
    deadline_seconds: float = Field(55.0, gt=0, le=3600)
    """That a request may take: SageMaker gives up after 60, with asynchronous endpoints after up to 3600."""
    most_waiting: int = Field(64, ge=1, le=100_000)
    """Images that may wait; requests above that are refused."""
    safety_checker: bool = True
    """Whether the base model's safety checker, where its folder has one, says of each image whether it flags it."""

    def read_from(self, folder: Path) -> Self:
        """Return the order with its relative paths below `folder`, in which its file lies."""
        base_folder = self.base_folder
        if base_folder is not None:
            base_folder = folder / base_folder
        adapters = {name: folder / path for name, path in self.adapters.items()}
        changes = {"base_folder": base_folder, "adapters": adapters, "root": folder / self.root}
        return self.model_copy(update=changes)
