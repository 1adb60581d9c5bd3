"""Read a YAML file as it looks: a value is the text that stands there, or it is refused with what to quote.

As on the command line, the field that a text is for decides whether it is a number. YAML 1.1 by itself would read 010
as 8, 12:30 as 750, 1_0 as 10, and the words no and on as truth values.
https://yaml.org/type/
"""

import re
from pathlib import Path
from typing import Any

import yaml

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.specs.yaml_faults import DIRECTIVE, DOCUMENT_END, QUOTE, fault_of

MAX_BYTES = 2**18
MAX_DEPTH = 20
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_STANDARD = "tag:yaml.org,2002:"
_NULL = f"{_STANDARD}null"
_TEXT = f"{_STANDARD}str"
_KINDS = (
    "map",
    "seq",
    "str",
    "null",
    "bool",
    "int",
    "float",
    "timestamp",
    "merge",
    "value",
)
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
        message = f"{path} does not say in YAML what it seems to say."
        raise SpecError(message, problems=reading.problems, next_step=QUOTE)
    return value


class _Reading:
    """Turns nodes into values, and collects what cannot be meant."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Problem] = []
        self.repeated: list[Problem] = []

    def value(self, node: yaml.Node, where: str) -> Any:
        """Return the value of a node: a mapping, a list, a text or None.

        `where` is the path of its field, such as "compute.instance_type" or "tags[0]"; empty for the whole file.
        """
        if node.tag not in _PLAIN_TAGS:
            what = f"begins with a tag ({node.tag})"
            self._add(node, where, what, "put quotes around it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, where)
        is_quoted = not isinstance(node, yaml.ScalarNode) or node.style is not None
        if is_quoted:
            return node.value
        if node.tag == _TEXT or not node.value:
            self._check_comment(node, where)
        if node.tag == _NULL:
            return None
        return node.value

    def _sequence(self, node: yaml.SequenceNode, where: str) -> list[Any]:
        """Return the values of a list."""
        values = []
        for number, item in enumerate(node.value):
            path = f"{where}[{number}]"
            values.append(self.value(item, path))
        return values

    def _mapping(self, node: yaml.MappingNode, where: str) -> dict[str, Any]:
        """Return the fields of a mapping; report keys that are no text, and those that are there twice."""
        values: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._add(key, where, "is not `field: value`", "write the name of a field before the colon")
                continue
            name = key.value
            line = _line_of(key)
            if name in first_lines:
                first = first_lines[name]
                what = f"is in line {first} and again in line {line}"
                self.repeated.append(Problem(where=name, what=what))
            else:
                first_lines[name] = line
            path = name
            if where:
                path = f"{where}.{name}"
            values[name] = self.value(value, path)
        return values

    def _check_comment(self, node: yaml.Node, where: str) -> None:
        """Report a text, maybe an empty one, that ends at "#3" or the like: a comment has a space behind its sign."""
        behind = self.text[node.end_mark.index :]
        line, _, _ = behind.partition("\n")
        comment = line.strip()
        is_comment = comment.startswith("#")
        has_space = comment[1:2] in ("", " ", "#")
        if is_comment and not has_space:
            verb = "ends"
            if not node.value:
                verb = "has no value"
            what = f'{verb} before "{comment}", which YAML takes for a comment'
            fix = 'put quotes around the whole, or a space behind the "#" of a comment'
            self._add(node, where, what, fix)

    def _add(
        self,
        node: yaml.Node,
        where: str,
        what: str,
        fix: str,
    ) -> None:
        """Report what is wrong with a node, with its line and the path of its field."""
        line = _line_of(node)
        place = f"line {line}"
        if where:
            place = f"{place}, {where}"
        problem = Problem(where=place, what=what, fix=fix)
        self.problems.append(problem)


def _line_of(node: Any) -> int:
    """Return the line where a node or an event begins, counted from one."""
    line: int = node.start_mark.line
    return line + 1


def _read(path: Path) -> str:
    """Return the text of a file; raises SpecError."""
    check_path = "check the path; examples/ has files to copy"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        message = f"There is no file {path}."
        raise SpecError(message, next_step=check_path) from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise SpecError(message, next_step="name a file that you may read") from error
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // 2**10
        message = f"{path} is larger than {limit} KB, so no job file."
        raise SpecError(message, next_step=check_path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} cannot be read: it is not UTF-8 text."
        raise SpecError(message, next_step="save it as UTF-8") from error


def _compose(path: Path, text: str) -> yaml.Node | None:
    """Return the root node; raises SpecError for what is no YAML, and for values that are named or repeated."""
    try:
        _check_events(path, text)
        root: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(path, text, error) from error
    except yaml.YAMLError as error:
        first_line, *_ = str(error).splitlines()
        message = f"{path} cannot be read: {first_line}."
        raise SpecError(message, next_step="save it as plain text in UTF-8") from error
    return root


def _check_events(path: Path, text: str) -> None:
    """Raise SpecError for names of values, and for nesting so deep that the reader would run out of stack."""
    depth = 0
    event: Any  # the marks of its class are optional, and what is read from a text has them
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise _anchor_error(path, event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = _line_of(event)
            message = f"{path}, line {line} cannot be read: lists and fields are nested more than {MAX_DEPTH} deep."
            raise SpecError(message, next_step="write it without the inner ones; examples/ has files to copy")


def _anchor_error(path: Path, event: Any) -> SpecError:
    """Return the error for a name that YAML gives to a value, or for a value that it repeats by such a name."""
    name = event.anchor
    meaning = f'"&{name}" gives a name to the value behind it'
    if isinstance(event, yaml.AliasEvent):
        meaning = f'"*{name}" repeats the value of that name'
    line = _line_of(event)
    message = f"{path}, line {line}: in YAML, {meaning}."
    return SpecError(message, next_step=f"{QUOTE}; repeat a value by writing it out")


def _syntax_error(path: Path, text: str, error: yaml.MarkedYAMLError) -> SpecError:
    """Return the error for a text that is no YAML, with its line and what mostly helps."""
    where = f"{path}"
    fault = fault_of(error)
    mark = error.problem_mark or error.context_mark
    if fault.is_shown_where_it_begins and error.context_mark is not None:
        mark = error.context_mark
    if mark is not None:
        lines_before = mark.line
        directive = _DIRECTIVE.search(text, 0, mark.index)
        if fault is DOCUMENT_END and directive is not None:
            fault = DIRECTIVE
            lines_before = text.count("\n", 0, directive.start())
        where = f"{path}, line {lines_before + 1}"
        if text.startswith("\t", mark.index):
            fault = fault._replace(remedy="indent with spaces, not with tabs")
    message = f"{where} cannot be read: {fault.reason}."
    return SpecError(message, next_step=fault.remedy)
