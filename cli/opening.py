"""How commands open the registry that they look something up in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..errors import UsageError
from .output import Output

if TYPE_CHECKING:
    from ..registry import Reference, Registry, Settings
    from .progress import ProgressLine


KIB = 1024


def open_place(output: Output, place: str | None, settings: Settings | None = None) -> Registry:
    """Return the registry at a place, None being that of the settings; a line shows how far a large one is prepared.

    A large index is prepared when it is opened for the first time after a change.
    """
    from ..registry import open_registry

    with ExitStack() as stack:
        lines: list[ProgressLine] = []

        def show(done: int, total: int) -> None:
            if not lines:
                from .progress import ProgressLine

                lines.append(stack.enter_context(ProgressLine(output, "preparing the index", None)))
            lines[0].total = total or None
            lines[0].show(done)

        return open_registry(place, settings=settings, progress=show)


@contextmanager
def receiving(output: Output) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many bytes of an adapter are here, and shows that in a line."""
    with ExitStack() as stack:
        lines: list[ProgressLine] = []

        def show(done: int, total: int) -> None:
            if not lines:
                from .progress import ProgressLine

                lines.append(stack.enter_context(ProgressLine(output, "fetching", total // KIB)))
            lines[0].total = total // KIB
            lines[0].show(done // KIB, "KiB")

        yield show


def open_lock(place: str | None) -> Registry:
    """Return the lock of the project as a registry; place is what --registry says.

    Raises:
        UsageError: it says something.
        NotFoundError, StateError: there is no lock, or it is stale.
    """
    from ..registry.frozen import frozen

    if place is not None:
        raise UsageError("--frozen takes adapters from the lock, not from --registry", hint="leave one of them out")
    return frozen()


def open_for(
    output: Output, reference: Reference, place: str | None, *, offline: bool | None = None, frozen: bool = False
) -> Registry | None:
    """Return the registry that a reference is looked up in, or None where it is a path or URL.

    Args:
        output: where a line shows how far it is.
        reference: what is looked up.
        place: what --registry says.
        offline: what --offline says.
        frozen: what --frozen says; then it is the lock, for URLs too.
    """
    from ..registry import Settings

    if frozen and reference.scheme != "path":
        return open_lock(place)
    if reference.scheme != "name":
        return None
    settings = Settings.load(offline=offline)
    return open_place(output, place if place is not None else settings.location(reference.registry), settings)
