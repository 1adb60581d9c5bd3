"""Where things lie on this machine."""

import os
from pathlib import Path

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict

HOME_VARIABLE = "ORCHESTRATOR_HOME"


class Settings(BaseModel):
    """The folders this installation works in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    home: Path
    """Holds everything below; ORCHESTRATOR_HOME, or the platform's data folder."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the settings of this process."""
        chosen = os.environ.get(HOME_VARIABLE)
        return cls(home=Path(chosen).expanduser().resolve() if chosen else user_data_path("orchestrator"))

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.home / "jobs"

    @property
    def adapters(self) -> Path:
        """One folder an adapter."""
        return self.home / "adapters"

    @property
    def store(self) -> Path:
        """Data sets and code bundles, by their hash."""
        return self.home / "store"

    @property
    def cache(self) -> Path:
        """Can be deleted at any time."""
        return self.home / "cache"
