"""Inspect a folder of images before anything is spent on it, and hand training a clean copy.

`prepare` reads every file of a folder once, reports all problems together, and writes what training gets:
upright, 8-bit sRGB, without metadata, captions in one file. Pillow is imported only when an image is opened.
"""

from orchestrator.datasets.conditions import has_conditions
from orchestrator.datasets.dataset import Dataset, InspectedImage
from orchestrator.datasets.preparation import prepare

__all__ = ["Dataset", "InspectedImage", "has_conditions", "prepare"]
