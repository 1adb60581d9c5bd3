"""Look at the pictures before anything is spent on them, then hand training a clean copy.

`inspect` reads every file of a folder and reports all that is wrong at once; `prepare` writes what training gets:
upright, 8-bit sRGB, without metadata, captions in one file. Pillow is imported only when a picture is opened.
"""

from orchestrator.datasets.dataset import Dataset, Picture
from orchestrator.datasets.inspection import inspect
from orchestrator.datasets.preparation import prepare

__all__ = ["Dataset", "Picture", "inspect", "prepare"]
