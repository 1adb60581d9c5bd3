"""What YAML itself does not say of a job file."""

from yaml import MappingNode, Node, SafeLoader, ScalarNode, compose

from orchestrator.contract.problem import Problem


def doubled_keys(text: str) -> list[Problem]:
    """Find keys that stand twice in the file or in its `settings`: YAML would silently take the last."""
    root = compose(text, SafeLoader)
    blocks = [root, *(value for _, value in root.value)] if isinstance(root, MappingNode) else []
    return [problem for block in blocks for problem in _doubled_in(block)]


def _doubled_in(block: Node) -> list[Problem]:
    keys = [key for key, _ in block.value if isinstance(key, ScalarNode)] if isinstance(block, MappingNode) else []
    first = {key.value: key for key in reversed(keys)}
    return [_problem(key, first[key.value]) for key in keys if key is not first[key.value]]


def _problem(key: ScalarNode, first: ScalarNode) -> Problem:
    line, earlier = key.start_mark.line + 1, first.start_mark.line + 1
    return Problem(where=key.value, what=f"stands in line {earlier} and again in line {line}")
