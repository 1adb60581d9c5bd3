"""Durations as they are typed: 30m, 8h, 2d."""

import re

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FORM = re.compile(r"(\d{1,6})([smhd])")
NEVER = "never"


class Duration(click.ParamType[int]):
    """Seconds, typed as a number with its unit; 0 for `never`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds of a text."""
        if isinstance(value, int):
            return value
        if value == NEVER:
            return 0
        match = _FORM.fullmatch(str(value))
        if match is None:
            self.fail(f'"{value}" is no duration; write 30m, 8h, 2d, or {NEVER}', param, ctx)
        return int(match[1]) * _UNITS[match[2]]


DURATION = Duration()
