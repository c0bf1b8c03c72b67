"""Fetching: an adapter onto this machine, ready to be read: what comes as an archive is made a native file."""

from __future__ import annotations

from pathlib import Path

from .. import methods
from .. import registry as registries
from ..converters import listed
from ..converters.identity import own_version
from ..errors import NotFoundError
from ..registry import Pulled, Reference, Registry, Store
from ..registry.native_copies import native
from ..registry.pulling import NATIVE
from ..registry.receiving import Progress


def fetch(
    reference: Reference | str,
    *,
    registry: Registry | str | Path | None = None,
    base: str | None = None,
    format: str | None = None,  # noqa: A002 - the field's name
    method: str | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Return where an adapter lies on this machine; see registry.pull.

    What came as an archive, or as a repository in its place, is given as a native file, unless a format is asked for.
    Where the native format is, and the version has none of its own, the first artifact is converted.

    method: also one of the names that `adapters` has for it, such as pfeiffer.

    Raises:
        FormatError, UnsupportedError: what was fetched cannot be read.
        BaseMismatchError: it is for another model family than the index says.
        UsageError, NotFoundError, IntegrityError, OfflineError, SchemaError: as registry.pull.
    """
    store = Store()
    wanted = None if method is None else methods.describe(methods.parse_method(method))

    def pulled(kind: str | None) -> Pulled:
        return registries.pull(
            reference,
            registry=registry,
            base=base,
            format=kind,
            method=wanted,
            offline=offline,
            store=store,
            progress=progress,
        )

    if format != NATIVE:
        found = pulled(format)
        return native(found, store, listed.write, by=own_version()) if format is None and found.packed else found
    try:
        return pulled(NATIVE)
    except NotFoundError:
        return native(pulled(None), store, listed.write, by=own_version())
