"""YAML and JSON, read with distrust: a few lines can stand for a billion values, or say one thing and mean another."""

import json
from pathlib import Path
from typing import Any, TextIO

import yaml

from reid_done_right.artifacts import read_regular

MOST_VALUES, DEEPEST = 100_000, 30
"""Of parameters: values in all, each as often as it is referred to, and levels of sections."""
MOST_BYTES = 2**22
TOO_MANY = f"more than {MOST_VALUES} values, or {DEEPEST} levels; write them out without aliases"


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which counts values before it makes anything of them, and takes each key once.

    A value counts as often as aliases and merge keys refer to it.
    """

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.composed = 0
        self.extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node. Raises ValueError for one that refers to itself, and for too many values."""
        self.composed += 1
        refers = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if not refers:
            self.extents[id(node)] = self._extent(node)
        elif id(node) not in self.extents:
            raise ValueError("a value contains itself; write it out without aliases")
        values, depth = self.extents[id(node)]
        if max(self.composed, values) > MOST_VALUES or depth > DEEPEST:
            raise ValueError(TOO_MANY)
        return node

    def _extent(self, node: Any) -> tuple[int, int]:
        """Return the values that a node stands for, itself included, and its levels."""
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
            return 1, 0
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        extents = [self.extents[id(part)] for part in inner]
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        return 1 + sum(values for values, _ in extents), 1 + max((depth for _, depth in extents), default=0)


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Raise ValueError for what YAML 1.1 takes for a number of base 60, and nobody means."""
    if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and ":" in node.value:
        raise ValueError(f"line {node.start_mark.line + 1}: {node.value} is a number of base 60 in YAML; quote it")


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is there twice; leave one out")
            seen.add((key.tag, key.value))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises OSError, yaml.YAMLError, ValueError and what PyYAML's types raise."""
    loader = _Loader(read_regular(path, MOST_BYTES))
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parse_json(stream: TextIO) -> Any:
    """Return the JSON of a stream. Raises ValueError, also for a key that is there twice and for too many values."""
    content = json.loads(stream.read(MOST_BYTES), object_pairs_hook=_once)
    todo, seen = [(content, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            raise ValueError(TOO_MANY)
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        todo += [(each, depth + 1) for each in inner]
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice; leave one out")
    return content
