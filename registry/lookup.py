"""Lookup: what is asked of the index of a registry, however its entries are kept.

A small index is one value in memory (index.py); beside a large one lies a database that is made from it (database.py).
Another way to keep entries, such as one file per name, is another class with these few methods. All give the same
answers; what is made of them (which version, which error) is written once, in resolution.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from .records import Entry
    from .reference import Reference
    from .resolution import Resolved

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many of how many entries are done, while something is made that takes seconds."""


class Lookup(Protocol):
    """The entries of an index, and how they are found."""

    @property
    def place(self) -> str:
        """What errors call it."""
        return "this registry"

    def __len__(self) -> int:
        """Return how many entries there are."""
        ...

    @property
    def sharded(self) -> bool:
        """Whether the entries are not here but in one file per name."""
        return False

    def whole(self) -> Lookup:
        """Return the same entries where all of them are at hand, as of one moment.

        Raises:
            UnsupportedError: they cannot be listed.
        """
        return self

    @property
    def empty(self) -> bool:
        """Whether it is known that there are no entries."""
        return not len(self)

    def owners(self, name: str) -> list[str]:
        """Return the entries that name stands for, sorted: the one called exactly so, else all that are called so.

        Aliases count as names; capitals and a leading @ do not tell names apart. More than one means that it is
        ambiguous.
        """
        ...

    def of_organisations(self, name: str) -> list[str]:
        """Return the entries with an alias that is name and an organisation, sorted: `a/b` where `a/b@ukp` is one."""
        ...

    def near(self, name: str) -> list[str]:
        """Return the few entries whose names or aliases come nearest to name, best first."""
        ...

    def entry(self, name: str) -> Entry:
        """Return the entry called exactly so.

        Raises:
            KeyError: there is none.
        """
        ...

    def names(self, beginning: str = "") -> Iterator[str]:
        """Yield the names of the entries that begin so, in their order."""
        ...

    def search(
        self,
        words: Sequence[str] = (),
        *,
        task: str | None = None,
        base: str | None = None,
        method: str | None = None,
        license: str | None = None,  # noqa: A002 - the field's name
    ) -> Iterator[str]:
        """Yield the names of the entries that all words and filters fit, best first; see matching.py."""
        ...

    def find(self, name: str) -> str:
        """Return the name of the entry that name, an alias, or a name of the archived AdapterHub stands for.

        Raises:
            NotFoundError: nothing is called so; the hint has what comes near.
            UsageError: several entries claim the alias.
        """
        from . import resolution

        return resolution.find(self, name)

    def resolve(
        self,
        reference: Reference | str,
        base: str | None = None,
        format: str | None = None,  # noqa: A002 - the field's name
        method: str | None = None,
    ) -> Resolved:
        """Return the version and artifact that a reference means here.

        Of the versions that it admits and that are not yanked, the highest that has an artifact for the base model,
        format and method; of these artifacts the first. A yanked version is found only if it is asked for exactly.
        Where several entries have the name, base model and method have to leave one; see resolution.py.

        Args:
            reference: a reference of scheme "name".
            base: the base model's id, or what follows its "/"; capitals do not matter. None is any.
            format: name of the file format; None is any.
            method: the method's name or whole configuration; None is any.

        Raises:
            NotFoundError: there is no such adapter, version or artifact; the hint lists what there is.
            UsageError: base names several base models, the name is that of several adapters, or the reference is not
                one of scheme "name".
        """
        from . import resolution

        return resolution.resolve(self, reference, base=base, format=format, method=method)
