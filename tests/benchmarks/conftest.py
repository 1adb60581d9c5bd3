"""The tiny base models of the training tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "entrypoints"))  # tiny.py
