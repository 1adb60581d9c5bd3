"""Look at the pictures before anything is spent on them, and hand training a clean copy.

`prepare` reads every file of a folder once, reports all that is wrong together, and writes what training gets:
upright, 8-bit sRGB, without metadata, captions in one file. Pillow is imported only when a picture is opened.
"""

from orchestrator.datasets.dataset import Dataset, Picture
from orchestrator.datasets.preparation import prepare

__all__ = ["Dataset", "Picture", "prepare"]
