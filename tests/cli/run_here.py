"""A command line in this process: quicker than a program of its own, and it sees what a test has put in the way."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from orchestrator.__main__ import main


class Said(NamedTuple):
    """What a command said."""

    code: int
    output: str
    errors: str


Run = Callable[..., Said]


def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *last: str) -> Run:
    """Return what runs a command line; the words `last` end each of them."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *words, *last])
        code = main()
        return Said(code, *capsys.readouterr())

    return run
