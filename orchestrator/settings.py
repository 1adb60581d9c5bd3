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
        named = f'{HOME_VARIABLE} is set to "{chosen}"' if chosen else f"{HOME_VARIABLE} is not set"
        next_step = f"export {HOME_VARIABLE}=~/orchestrator"
        try:
            home = expanded(chosen) if chosen else user_data_path("orchestrator")
            obstacle = _obstacle(home)
        except (ValueError, OSError) as error:
            raise MachineError(f"{named}, which is no folder: {error}.", next_step=next_step) from error
        if obstacle:
            raise MachineError(f"{named}, and {obstacle}.", next_step=next_step)
        return cls(home=home)

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


def _obstacle(home: Path) -> str:
    """Return why nothing can be kept in `home`, a folder that is there or has to be made, or an empty text."""
    there = next(path for path in (home, *home.parents) if path.exists())
    if not there.is_dir():
        return f"{there} is a file"
    return "" if os.access(there, os.R_OK | os.W_OK | os.X_OK) else f"{there} cannot be written"


def expanded(path: str | Path) -> Path:
    """Return an absolute path with `~` written out; raises ValueError for the home of a user there is not."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
