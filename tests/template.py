"""infra/stack.yaml as a value."""

from typing import Any

import yaml

from orchestrator.resources import STACK_TEMPLATE


class _Template(yaml.SafeLoader):
    """Reads a template's short functions (`!Ref`) as what stands behind them."""


def _plain(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


_Template.add_multi_constructor("!", _plain)


def template() -> dict[str, Any]:
    """Return the template with each function replaced by its argument."""
    loaded: dict[str, Any] = yaml.load(STACK_TEMPLATE.read_text(), Loader=_Template)  # noqa: S506  (a SafeLoader)
    return loaded
