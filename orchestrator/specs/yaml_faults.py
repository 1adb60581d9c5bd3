"""What the YAML library finds wrong with a text, in words for people who do not know its terms."""

from typing import NamedTuple

import yaml

QUOTE = 'put quotes around such a text, as in prompt: "a photo of sks: a dog"'
_CLOSE_QUOTE = "close it with the same mark; a text with an apostrophe in it goes into double quotes"
_ONE_JOB = "write each job into a file of its own"


class Fault(NamedTuple):
    """Why a text is no YAML."""

    words: str
    """Part of what the library says."""
    reason: str
    """What it means."""
    remedy: str = QUOTE
    """What to do."""
    is_shown_where_it_begins: bool = False
    """Whether its line is the one where it begins; the library notices it only later."""


DOCUMENT_END = Fault(
    "<document start>",
    'the document ended before this line ("...")',
    _ONE_JOB,
)
DIRECTIVE = Fault(
    "directive",
    'a line that begins with "%" is an order to YAML, not a field',
)
_FAULTS = (
    Fault(
        "scanning an alias",
        'a text cannot begin with "*", which in YAML repeats the value of a name',
    ),
    Fault(
        "scanning an anchor",
        'a text cannot begin with "&", which in YAML gives a name to a value',
    ),
    Fault(
        "ing a tag",  # scanning or parsing
        'a text cannot begin with "!", which in YAML gives a value its type',
    ),
    Fault(
        "undefined tag",
        'a text cannot begin with "!", which in YAML gives a value its type',
    ),
    Fault(
        "scanning a block scalar",
        'a text cannot begin with "|" or ">", which in YAML stand before lines of text',
    ),
    Fault(
        "mapping keys are not allowed",
        'a text cannot begin with "?", which in YAML stands before the name of a field',
    ),
    DIRECTIVE,
    Fault(
        "incompatible YAML",
        "it says that it is of a version of YAML that is not known",
        'leave the line out that begins with "%YAML"',
    ),
    Fault(
        "scanning a quoted scalar found unexpected",
        "a quotation mark that opens here is not closed",
        _CLOSE_QUOTE,
        is_shown_where_it_begins=True,
    ),
    Fault(
        "parsing a flow",
        "a bracket that opens here is not closed, or a comma is missing behind it",
        f"close it, or {QUOTE}",
        is_shown_where_it_begins=True,
    ),
    Fault(
        "found another document",
        'a second document begins here ("---")',
        _ONE_JOB,
    ),
    DOCUMENT_END,
    Fault(
        "escape",
        "within double quotes, a backslash and what follows it stand for another character",
        "write the backslash twice, or put single quotes around the text",
    ),
    Fault(
        "mapping values are not allowed",
        "a colon stands where none can be: within a text, or in a line that is indented unlike those around it",
        f"indent the line like its neighbours, or {QUOTE}",
    ),
    Fault(
        "could not find expected ':'",
        "a line before this one is not `field: value`",
        f"write a colon and a space behind the name of the field, or {QUOTE}",
    ),
    Fault(
        "cannot start any token",
        "a text cannot begin with this character",
    ),
    Fault(
        "<block end>",
        "something stands behind a closing quote or bracket, or a line is indented unlike those around it",
        f"indent the line like its neighbours, or {QUOTE}",
    ),
    Fault(
        "expected the node content",
        "a text cannot begin with this bracket or sign",
    ),
)


def fault_of(error: yaml.MarkedYAMLError) -> Fault:
    """Return the fault that an error stands for; one that is not known keeps the library's words."""
    said = f"{error.context} {error.problem}"
    for fault in _FAULTS:
        if fault.words in said:
            return fault
    return Fault(said, error.problem or "it is not YAML")
