"""Puts within reach what these tests import."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # stack.py
sys.path.insert(0, str(Path(__file__).parents[1] / "entrypoints"))  # tiny.py
sys.path.insert(0, str(Path(__file__).parents[2]))  # entrypoints: reached by path, never installed
