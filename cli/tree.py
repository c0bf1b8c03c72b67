"""A composition as a tree, for people."""

from __future__ import annotations

from collections.abc import Iterator

from ..composition import Average, BatchSplit, Fuse, Node, Split


def tree(node: Node, head: str = "") -> Iterator[str]:
    """Yield the lines of a composition as a tree; head: whose head answers.

    >>> from adapterhub import Fuse, Stack
    >>> for line in tree(Stack("a", Fuse("b", "c", name="f"))):
    ...     print(line)
    stack
    ├── a
    └── fuse, layer f
        ├── b
        └── c
    """
    if isinstance(node, str):
        yield f"{node}, whose head answers" if node == head else node
        return
    yield ", ".join([node.type, *_settings(node)])
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        first, *rest = tree(child, head)
        yield f"{'└' if last else '├'}── {first}"
        yield from (f"{' ' if last else '│'}   {line}" for line in rest)


def _settings(node: Node) -> Iterator[str]:
    if isinstance(node, Fuse):
        yield f"layer {node.key}"
    elif isinstance(node, Split):
        yield f"{', '.join(map(str, node.splits))} tokens"
    elif isinstance(node, BatchSplit):
        yield f"{', '.join(map(str, node.batch_sizes))} rows"
    elif isinstance(node, Average):
        yield f"weights {', '.join(f'{weight:.4g}' for weight in node.weights)}"
