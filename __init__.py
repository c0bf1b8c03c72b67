"""adapterhub: the hub for adapters of transformer models.

The public names are loaded when they are first used, so that `import adapterhub` costs milliseconds and loads
neither torch nor transformers.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AdapterHubError",
    "AuthenticationError",
    "Average",
    "BaseMismatchError",
    "BatchSplit",
    "DigestError",
    "FormatError",
    "Fuse",
    "IntegrityError",
    "Manifest",
    "MultiTask",
    "NotFoundError",
    "OfflineError",
    "Parallel",
    "SchemaError",
    "Split",
    "Stack",
    "StateError",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "attach",
    "compose",
    "convert",
    "merge",
    "pull",
    "push",
    "read",
    "write",
]

# Type checkers take this for typing.TYPE_CHECKING; importing typing would be half of what this module costs.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from .adapter import Adapter, Manifest
    from .composition import Average, BatchSplit, Fuse, MultiTask, Parallel, Split, Stack
    from .errors import (
        AdapterHubError,
        AuthenticationError,
        BaseMismatchError,
        DigestError,
        FormatError,
        IntegrityError,
        NotFoundError,
        OfflineError,
        SchemaError,
        StateError,
        UnsupportedError,
        UsageError,
    )
    from .hub import attach, compose, convert, merge, pull, push, read, write
else:
    _HOMES = {
        "Adapter": "adapter",
        "AdapterHubError": "errors",
        "AuthenticationError": "errors",
        "Average": "composition",
        "BaseMismatchError": "errors",
        "BatchSplit": "composition",
        "DigestError": "errors",
        "FormatError": "errors",
        "Fuse": "composition",
        "IntegrityError": "errors",
        "Manifest": "adapter",
        "MultiTask": "composition",
        "NotFoundError": "errors",
        "OfflineError": "errors",
        "Parallel": "composition",
        "SchemaError": "errors",
        "Split": "composition",
        "Stack": "composition",
        "StateError": "errors",
        "UnsupportedError": "errors",
        "UsageError": "errors",
        "attach": "hub",
        "compose": "hub",
        "convert": "hub",
        "merge": "hub",
        "pull": "hub",
        "push": "hub",
        "read": "hub",
        "write": "hub",
    }

    def __getattr__(name: str) -> object:
        """Return the public name from the module that defines it, and keep it here (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
