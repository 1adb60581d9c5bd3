"""What came of a sweep, as it is shown to people, given to scripts, and kept."""

from pydantic import BaseModel, ConfigDict

from orchestrator.targets.base import JobStatus

SHEET_FILE = "contact_sheet.png"
RECORD_FILE = "sweep.json"


class JobResult(BaseModel):
    """What became of one job of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, str]
    """What tells it from the others."""
    job: str
    """Its name."""
    region: str | None = None
    """AWS region it ran in; None on this machine."""
    status: JobStatus | None
    """How it ended; None when it was not started or cannot be looked at."""
    why: str = ""
    """What happened, unless it is complete."""
    next_step: str = ""
    """What to type next, unless it is complete."""
    adapter: str | None = None
    """Where its adapter is."""
    metrics: dict[str, float] = {}
    """Figures measured on the finished adapter."""
    usd: float | None = None
    """What all its attempts cost by the list price; None on this machine."""

    @property
    def is_complete(self) -> bool:
        """Whether there is an adapter."""
        return self.adapter is not None


class SweepRecord(BaseModel):
    """A sweep and what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    """Version of this layout."""
    name: str
    """The adapters' common name, or the recipe's, and ten digits of a hash of the jobs' names: same jobs, same name."""
    recipe: str
    """Name of the recipe."""
    max_usd: str | None
    """The total that was divided among the jobs, in dollars."""
    folder: str
    """Where this and the contact sheet are kept."""
    jobs: list[JobResult]
    """Every job, in the order of the grid."""
    contact_sheet: str | None = None
    """The picture of all adapters side by side."""
    remarks: list[str] = []
    """What the contact sheet leaves out."""

    @property
    def file(self) -> str:
        """Where this is kept."""
        return f"{self.folder}/{RECORD_FILE}"
