"""Services that follow a run when they are asked for, and what each needs on the machine that trains."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

WANDB: Literal["wandb"] = "wandb"
MLFLOW: Literal["mlflow"] = "mlflow"
TrackerName = Literal["wandb", "mlflow"]

_PACKAGES: Mapping[str, str] = {WANDB: "wandb", MLFLOW: "mlflow-skinny"}
"""What `pip install` takes; the module has the tracker's name."""
_WANDB_KEY = "WANDB_API_KEY"
_WANDB_SITE = "https://api.wandb.ai"
_WITHOUT_KEY = ("offline", "disabled", "dryrun")
"""Modes of W&B that send nothing."""


class Fault(NamedTuple):
    """Why a tracker cannot be used."""

    what: str
    """What is missing."""
    fix: str
    """What to do about it, as a command."""


def tracker_fault(name: str) -> Fault | None:
    """Return why a tracker cannot be used on this machine; None when it has what it needs."""
    if find_spec(name) is None:
        return Fault(f"its package is not installed (module {name})", f"pip install {_PACKAGES[name]}")
    if name == WANDB and not _has_wandb_key():
        return Fault(f"no key is known ({_WANDB_KEY}, or what `wandb login` saves)", "wandb login")
    return None


def _has_wandb_key() -> bool:
    """Whether W&B would find a key, or needs none. The key is looked for where it lies, and goes nowhere."""
    if os.environ.get("WANDB_MODE") in _WITHOUT_KEY or os.environ.get(_WANDB_KEY):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _WANDB_SITE)).hostname
    file = os.environ.get("NETRC", Path.home() / ".netrc")
    try:
        return host in netrc(str(file)).hosts
    except (OSError, ValueError, NetrcParseError):
        return False
