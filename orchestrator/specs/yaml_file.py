"""Read a YAML file as it looks: a value is the text that stands there, or it is refused with what to quote.

As on the command line, the field that a text is for decides whether it is a number. YAML 1.1 by itself would read 010
as 8, 12:30 as 750, 1_0 as 10, and the words no and on as truth values.
https://yaml.org/type/
"""

from pathlib import Path
from typing import Any

import yaml

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError

MAX_BYTES = 2**18
MAX_DEPTH = 20
QUOTE = 'put quotes around such a text, as in prompt: "a photo of sks: a dog"'
_STANDARD = "tag:yaml.org,2002:"
_NULL = f"{_STANDARD}null"
_TEXT = f"{_STANDARD}str"
_KINDS = ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge", "value")
_PLAIN_TAGS = {f"{_STANDARD}{kind}" for kind in _KINDS}
"""Tags that YAML gives by itself, or that change nothing when they are written."""


def read_yaml(path: Path) -> Any:
    """Return the mappings, lists, texts and None of a file; raises SpecError with everything that looks otherwise."""
    text = _read(path)
    root = _compose(path, text)
    if root is None:
        return None
    reading = _Reading(text)
    value = reading.value(root, "")
    if reading.repeated:
        next_step = "leave one of each, then submit again"
        raise SpecError(f"{path} has keys twice.", problems=reading.repeated, next_step=next_step)
    if reading.problems:
        message = f"YAML reads {path} otherwise than it looks."
        raise SpecError(message, problems=reading.problems, next_step=QUOTE)
    return value


class _Reading:
    """Turns nodes into values, and collects what cannot be meant."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Problem] = []
        self.repeated: list[Problem] = []

    def value(self, node: yaml.Node, where: str) -> Any:
        """Return the value of a node."""
        if node.tag not in _PLAIN_TAGS:
            self._add(node, where, f"begins with a tag ({node.tag})", "put quotes around it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{where}[{number}]") for number, item in enumerate(node.value)]
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if is_plain and node.tag == _NULL:
            return None
        if is_plain and node.tag == _TEXT:
            self._check_comment(node, where)
        return node.value

    def _mapping(self, node: yaml.MappingNode, where: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._add(key, where, "is not `field: value`", "write the name of a field before the colon")
                continue
            name = key.value
            line = key.start_mark.line + 1
            if name in lines:
                what = f"is in line {lines[name]} and again in line {line}"
                self.repeated.append(Problem(where=name, what=what))
            else:
                lines[name] = line
            path = f"{where}.{name}".strip(".")
            values[name] = self.value(value, path)
        return values

    def _check_comment(self, node: yaml.Node, where: str) -> None:
        """Report a text that ends at "#3" or the like: a comment has a space behind its sign."""
        line = self.text[node.end_mark.index :].partition("\n")[0]
        rest = line.lstrip()
        if rest.startswith("#") and rest[1:2].strip(" #"):
            what = f'ends before "{rest.strip()}", which YAML takes for a comment'
            self._add(node, where, what, 'put quotes around the whole, or a space behind the "#" of a comment')

    def _add(self, node: yaml.Node, where: str, what: str, fix: str) -> None:
        line = node.start_mark.line + 1
        place = f"line {line}"
        if where:
            place = f"{place}, {where}"
        self.problems.append(Problem(where=place, what=what, fix=fix))


def _read(path: Path) -> str:
    """Return the text of a file; raises SpecError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            message = f"{path} is larger than {MAX_BYTES // 2**10} KB, so no job file."
            raise SpecError(message, next_step="check the path; examples/ has files to copy")
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        next_step = "check the path; examples/ has files to copy"
        raise SpecError(f"There is no file {path}.", next_step=next_step) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} cannot be read: it is not UTF-8 text.", next_step="save it as UTF-8") from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise SpecError(message, next_step="name a file that you may read") from error


def _compose(path: Path, text: str) -> yaml.Node | None:
    """Return the root node; raises SpecError for what is no YAML, and for values that are named or repeated."""
    depth = 0
    try:
        event: Any  # the marks of its class are optional, and what is read from a text has them
        for event in yaml.parse(text, yaml.SafeLoader):
            if getattr(event, "anchor", None) is not None:
                raise _anchor_error(path, event)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise SpecError(f"{path} cannot be read: it is nested too deep.", next_step=QUOTE)
        root: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(path, text, error) from error
    except yaml.YAMLError as error:
        first_line = str(error).splitlines()[0]
        raise SpecError(f"{path} cannot be read: {first_line}.", next_step="save it as plain text in UTF-8") from error
    return root


def _anchor_error(path: Path, event: Any) -> SpecError:
    """Return the error for a name that YAML gives to a value, or for a value that it repeats by such a name."""
    meaning = f'"&{event.anchor}" gives a name to the value behind it'
    if isinstance(event, yaml.AliasEvent):
        meaning = f'"*{event.anchor}" repeats the value of that name'
    line = event.start_mark.line + 1
    return SpecError(
        f"{path}, line {line}: in YAML, {meaning}.", next_step=f"{QUOTE}; repeat a value by writing it out"
    )


def _syntax_error(path: Path, text: str, error: yaml.MarkedYAMLError) -> SpecError:
    """Return the error for a text that is no YAML, with its line and what mostly helps."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return SpecError(f"{path} cannot be read: {error.problem}.", next_step=QUOTE)
    next_step = QUOTE
    where = f"{path}, line {mark.line + 1}"
    if text[mark.index : mark.index + 1] == "\t":
        next_step = "indent with spaces, not with tabs"
    return SpecError(f"{where} cannot be read: {error.problem}.", next_step=next_step)
