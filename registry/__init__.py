"""The registry: references, versions, the index, the store, remotes, pull and lock; no torch.

The names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .index import Entries, Index
    from .lock import Lock, LockedAdapter, LockedBase
    from .lookup import Lookup
    from .publication import Offer, Outcome, Publication, Publisher, Yank
    from .publishers import publisher_at
    from .pulling import Pulled, pull
    from .records import Artifact, ArtifactBase, ArtifactFile, Content, Entry, Release
    from .reference import Reference
    from .registry import Registry, locate, open_registry
    from .resolution import Resolved
    from .settings import Settings
    from .store import Store
    from .version import Version, VersionRange

__all__ = [
    "Artifact",
    "ArtifactBase",
    "ArtifactFile",
    "Content",
    "Entries",
    "Entry",
    "Index",
    "Lock",
    "LockedAdapter",
    "LockedBase",
    "Lookup",
    "Offer",
    "Outcome",
    "Publication",
    "Publisher",
    "Pulled",
    "Reference",
    "Registry",
    "Release",
    "Resolved",
    "Settings",
    "Store",
    "Version",
    "VersionRange",
    "Yank",
    "locate",
    "open_registry",
    "publisher_at",
    "pull",
]

_HOMES = {
    "index": ("Entries", "Index"),
    "lock": ("Lock", "LockedAdapter", "LockedBase"),
    "lookup": ("Lookup",),
    "publication": ("Offer", "Outcome", "Publication", "Publisher", "Yank"),
    "publishers": ("publisher_at",),
    "pulling": ("Pulled", "pull"),
    "records": ("Artifact", "ArtifactBase", "ArtifactFile", "Content", "Entry", "Release"),
    "reference": ("Reference",),
    "registry": ("Registry", "locate", "open_registry"),
    "resolution": ("Resolved",),
    "settings": ("Settings",),
    "store": ("Store",),
    "version": ("Version", "VersionRange"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
