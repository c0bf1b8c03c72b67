"""What is asked for when adapters are merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..adapter import Adapter
from ..errors import UsageError
from ..methods import factoring
from ..sites import Layout
from .combination import Combination, Majority, check_density
from .table import by_name

Compat = Literal["adapters", "peft"]


class KnownBase(Protocol):
    """What merging may ask of the base model."""

    @property
    def layout(self) -> Layout:
        """Its places."""
        ...

    def parameter(self, path: str) -> Tensor:
        """Return a parameter as its module keeps it.

        Raises:
            NotFoundError: there is none of this path.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An adapter that is merged.

    Attributes:
        adapter: the adapter.
        name: what it is called in messages and in provenance.
        digest: `sha256:<hex>` of its file, or of its bytes in the native format.
        release: gives back what its tensors took of memory, where they lie on the disk.
    """

    adapter: Adapter
    name: str
    digest: str = ""
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How adapters are merged.

    Attributes:
        method: name of a row of METHODS.
        weights: one for each adapter, or None for the method's own: 1 / n, or 1 for task_arithmetic.
        rank: rank of the result.
        energy: keep at each map the smallest rank with this part of the squared norm.
        density: part of the entries that pruning and dropping keep.
        seed: of what is dropped; None draws one, which the result's provenance names.
        majority: how signs are elected.
        normalise: divide the weights by their sum; None does it where compat is `adapters`, as that library does.
        head: `mean`, `none`, or the name of the adapter whose head the result gets; None keeps heads that are all the
            same, and refuses others.
        compat: compute what `adapters` or PEFT computes where that is not the sum of the updates.
        allow_base_mismatch: merge adapters of different base models.
        report: measure the distance to the exact sum at each map.
    """

    method: str = "linear"
    weights: tuple[float, ...] | None = None
    rank: int | None = None
    energy: float | None = None
    density: float | None = None
    seed: int | None = None
    majority: Majority = "total"
    normalise: bool | None = None
    head: str | None = None
    compat: Compat | None = None
    allow_base_mismatch: bool = False
    report: bool = False

    @property
    def combination(self) -> Combination:
        """The row of METHODS."""
        return by_name(self.method)

    @property
    def is_sized(self) -> bool:
        """Whether a rank or an energy is asked for."""
        return self.rank is not None or self.energy is not None

    def checked_weights(self, count: int) -> tuple[float, ...]:
        """Return the weight of each of so many adapters.

        Raises:
            UsageError: an option is missing, means nothing, or is not one of the method; every fault.
        """
        row = self.combination
        faults = [*self._faults(row), *self._count_faults(row, count)]
        if faults:
            raise UsageError(f"the adapters cannot be merged by {row.name}: {'; '.join(faults)}")
        weights = self.weights
        if weights is None:
            weights = (row.default_weight or 1 / count,) * count
        normalises = self.normalise if self.normalise is not None else self.compat == "adapters"
        if not normalises:
            return weights
        if sum(weights) == 0:
            raise UsageError("the weights add up to 0, so they cannot be normalised")
        return tuple(weight / sum(weights) for weight in weights)

    def _faults(self, row: Combination) -> list[str]:
        """Return what is wrong with the options, one phrase each."""
        factoring.check_size(self.rank, self.energy)
        if self.density is not None:
            check_density(self.density)
        sized = self.is_sized
        if self.compat not in (None, "adapters", "peft"):
            return [f"compat is {self.compat!r}, expected 'adapters' or 'peft'"]
        faults = ["it needs a density"] if "density" in row.needs and self.density is None else []
        faults += ["it needs a rank"] if "rank" in row.needs and not sized else []
        known = (*row.needs, *row.takes)
        faults += ["it takes no density"] if self.density is not None and "density" not in known else []
        faults += ["it takes no rank or energy"] if sized and "rank" not in known else []
        faults += ["it takes no seed"] if self.seed is not None and "seed" not in known else []
        faults += ["it elects no signs"] if self.majority != "total" and "majority" not in known else []
        return faults

    def _count_faults(self, row: Combination, count: int) -> list[str]:
        """Return what is wrong with the number of adapters and of weights."""
        if not count:
            return ["there is none"]
        faults = [f"it takes {row.count}, not {count}"] if row.count not in (None, count) else []
        if self.weights is not None:
            if len(self.weights) != count:
                faults.append(f"there are {len(self.weights)} weights for {count} adapters")
            faults += [f"{weight} is no weight" for weight in self.weights if not abs(weight) < 1e30]
        return faults


Read = Callable[[str], Tensor]
"""Path → a parameter of the base model."""


def names(sources: Sequence[Source]) -> str:
    """Return the names of adapters as a list in a sentence.

    >>> names([])
    ''
    """
    return ", ".join(source.name for source in sources)
