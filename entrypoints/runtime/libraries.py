"""What libraries are told before they are imported, and what is kept out of the log of what they say."""

import logging
import os
import sys
import warnings
from io import TextIOWrapper

# Libraries read these when they are imported. cuBLAS rounds the same in every run only with a fixed workspace. OpenMP's
# threads wait for one another by spinning: fastest on an idle machine, but where another process needs one of the cores
# a step takes up to twenty times as long. With a small count they spin briefly and then sleep.
SETTINGS = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "GOMP_SPINCOUNT": "2000",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}


def apply_settings() -> None:
    """Set the variables that libraries read when they are imported, except those that are set already.

    Events go to stdout in UTF-8, whatever the locale of the machine: whoever reads them knows no other encoding.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def quieten() -> None:
    """Keep progress bars, notices and deprecation warnings of libraries out of the log."""
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
