"""Where things lie on this machine."""

import os
from pathlib import Path

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import MachineError

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
        try:
            return cls(home=expanded(chosen) if chosen else user_data_path("orchestrator"))
        except ValueError as error:
            message = f"{HOME_VARIABLE} is no folder: {error}."
            raise MachineError(message, next_step=f"set {HOME_VARIABLE} to a folder of yours") from error

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


def expanded(path: str | Path) -> Path:
    """Return an absolute path with `~` written out; raises ValueError for the home of a user there is not."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
