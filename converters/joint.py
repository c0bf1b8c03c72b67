"""Joint projections: queries, keys and values that one module computes side by side."""

from __future__ import annotations

from ..architectures import Architecture, Layers


def is_joint(stack: Layers) -> bool:
    """Return whether some attention of a stack has one."""
    return any(part.query == part.key for part in stack.attentions)


def mixed(row: Architecture) -> bool:
    """Return whether some stacks of a family have them and others have not."""
    return len({is_joint(stack) for stack in row.layers}) > 1
