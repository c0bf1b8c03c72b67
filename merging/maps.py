"""Merging the updates of one linear map: the sum of low-rank updates in factors, everything else as a matrix.

A sum of DoRAs is a DoRA. With W'_i = g_i ∘ (W + B_i A_i), rows multiplied by g_i, and γ = 1 + Σ c_i (g_i - 1),

    W + Σ c_i (W'_i - W) = γ ∘ (W + Σ (c_i g_i / γ) ∘ B_i A_i)

so the factors are put side by side, and the magnitude of the result is γ times the norms of the rows in the brackets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..methods import factoring
from ..methods.deltas import Block, Delta, weight_of
from ..methods.dora import Magnitude
from ..methods.linear_maps import is_transposed
from ..sites import Linear
from . import products
from .combination import Combination, Options, total
from .request import Read

SMALLEST_GAIN = 1e-6
"""A row whose magnitude becomes so small has no direction."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Made:
    """What the result has at one map.

    Attributes:
        linear: the map.
        parts: which of its parts are changed; () is the whole.
        blocks: the factors of each part, or of the whole.
        magnitude: DoRA's m (outputs,), or None.
        bias: what is added to the bias (outputs,), or None.
        kept: the part of the squared norm that compressing kept.
        exact: norm of the exact sum Σ w_i D_i, where it was measured.
        error: distance of the result from it, as a part of that norm, where it was measured.
    """

    linear: Linear
    parts: tuple[int, ...] = ()
    blocks: tuple[Block, ...]
    magnitude: Tensor | None = None
    bias: Tensor | None = None
    kept: float = 1.0
    exact: float | None = None
    error: float | None = None

    @property
    def rank(self) -> int:
        """Rank of each part."""
        return max(block.a.shape[0] for block in self.blocks)


@dataclass(frozen=True, slots=True, eq=False)
class _Matrices:
    """The updates at one map as matrices, each made when it is asked for, as often as it is.

    Attributes:
        deltas: the updates.
        weight: W where a gain acts on it.
        turned: whether rows and columns change places.
    """

    deltas: Sequence[Delta]
    weight: Tensor | None
    turned: bool

    def __iter__(self) -> Iterator[Tensor]:
        for delta in self.deltas:
            yield delta.matrix(self.weight).t() if self.turned else delta.matrix(self.weight)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Mixer:
    """How the updates at each map are merged.

    Attributes:
        row: the method.
        options: what it is told.
        rank, energy: the size of the result; None for all that the sum has.
        magnitude: the form of DoRA that the result has, or `none`.
        by_parts: whether parts of a map keep factors of their own.
        read: the base model's parameters, or None.
        report: whether the distance to the exact sum is measured.
        turns: whether methods on entries see updates as their modules keep weights, as PEFT does: it decides which
            entries a seed drops.
        dtype: of the factors that are kept.
    """

    row: Combination
    options: Options = field(default_factory=Options)
    rank: int | None = None
    energy: float | None = None
    magnitude: Magnitude = "none"
    by_parts: bool = False
    read: Read | None = None
    report: bool = False
    turns: bool = False
    dtype: torch.dtype = torch.float32

    def at(self, linear: Linear, deltas: Sequence[Delta | None], weights: Sequence[float]) -> Made:
        """Return what the result has at a map, its factors on the CPU in the dtype in which they are kept.

        deltas: what each adapter changes there, None for those that change nothing.
        """
        made = self._made(linear, deltas, weights)
        blocks = tuple(Block(a.to("cpu", self.dtype), b.to("cpu", self.dtype)) for a, b in made.blocks)
        return dataclasses.replace(made, blocks=blocks)

    def _made(self, linear: Linear, deltas: Sequence[Delta | None], weights: Sequence[float]) -> Made:
        """Return what the result has at a map, in float64."""
        if self.row.coefficients is None:
            return self._by_matrix(linear, deltas, weights)
        needs_gram = not self.row.is_sum
        gram = products.gram(deltas, self._weight(linear, deltas)) if needs_gram else torch.zeros(0, 0)
        numbers = self.row.coefficients(gram, weights)
        terms = [(c, delta) for c, delta in zip(numbers, deltas, strict=True) if delta is not None]
        if any(delta.dense is not None for _, delta in terms):
            whole = self._total(terms, linear)
            return self._from_matrix(linear, whole, self._bias(terms), self._exact(linear, deltas, weights))
        if self.magnitude != "none":
            return self._directed(linear, terms, self._exact(linear, deltas, weights))
        return self._summed(linear, terms, deltas, weights)

    # ----------------------------------------------------------------------------------------------------------

    def _summed(
        self,
        linear: Linear,
        terms: Sequence[tuple[float, Delta]],
        deltas: Sequence[Delta | None],
        weights: Sequence[float],
    ) -> Made:
        """Return a sum of low-rank updates, part by part."""
        parts = terms[0][1].parts if self.by_parts else ()
        exactly = [(w, delta) for w, delta in zip(weights, deltas, strict=True) if delta is not None]
        blocks, kept, error, exact = [], 1.0, 0.0, 0.0
        for place in range(max(1, len(parts))):
            made = self._joined([(c, self._block(delta, place)) for c, delta in terms])
            kept = min(kept, made.kept)
            blocks.append(Block(made.a, made.b))
            if self.report:
                wanted = products.joined([(w, self._block(delta, place)) for w, delta in exactly])
                exact += products.norm(wanted) ** 2
                error += products.norm(products.joined([(1.0, blocks[-1]), (-1.0, wanted)])) ** 2
        return Made(
            linear=linear,
            parts=parts,
            blocks=tuple(blocks),
            bias=self._bias(terms),
            kept=kept,
            exact=exact**0.5 if self.report else None,
            error=products.relative(error**0.5, exact**0.5) if self.report else None,
        )

    def _block(self, delta: Delta, place: int) -> Block:
        return delta.blocks[place] if self.by_parts else delta.whole()

    def _joined(self, terms: Sequence[tuple[float, Block]]) -> factoring.Factored:
        """Return factors of Σ c_i B_i A_i, of the rank that is asked for."""
        if self.rank is None and self.energy is None and not self.report:
            # Nothing is computed with them any more: narrow factors are put together faster.
            narrow = [(1.0, Block(a.to(self.dtype), (b * c).to(self.dtype))) for c, (a, b) in terms]
            return factoring.Factored(*products.joined(narrow), 1.0)
        return self._sized(products.joined(terms))

    def _sized(self, block: Block) -> factoring.Factored:
        """Return factors of the rank that is asked for."""
        if self.rank is None and self.energy is None:
            return factoring.Factored(block.a, block.b, 1.0)
        return factoring.of_product(block.a, block.b, rank=self.rank, energy=self.energy)

    def _directed(self, linear: Linear, terms: Sequence[tuple[float, Delta]], exact: Tensor | None) -> Made:
        """Return a sum of DoRAs as a DoRA."""
        weight = self._read_weight(linear)
        gamma = weight.new_ones(len(weight))
        for c, delta in terms:
            gamma = gamma if delta.gain is None else gamma + c * (delta.gain - 1)
        if float(gamma.abs().min()) < SMALLEST_GAIN:
            raise UnsupportedError(
                f"the magnitudes of a row of {linear.path} add up to nothing, so that the result has no direction there"
            )
        gained = [(c, delta.whole(), delta.gain) for c, delta in terms]
        whole = products.joined(
            [(1.0, Block(a, b * (c / gamma * (1.0 if g is None else g)).unsqueeze(1))) for c, (a, b), g in gained]
        )
        made = self._sized(whole)
        inside = weight + made.b @ made.a
        magnitude = gamma * inside.norm(dim=1)
        result = gamma.unsqueeze(1) * inside - weight
        return self._measured(linear, Block(made.a, made.b), result, exact, made.kept, magnitude=magnitude)

    def _by_matrix(self, linear: Linear, deltas: Sequence[Delta | None], weights: Sequence[float]) -> Made:
        """Return what a method makes of the updates as matrices."""
        matrix = self.row.matrix
        if matrix is None:
            raise AssertionError(f"{self.row.name} merges neither sums nor matrices")
        present = [(w, delta) for w, delta in zip(weights, deltas, strict=True) if delta is not None]
        numbers = [w for w, _ in present]
        weight = self._weight(linear, deltas)
        turned = self.turns and is_transposed(linear)
        merged = matrix(_Matrices([delta for _, delta in present], weight, turned), numbers, self.options)
        merged = merged.t() if turned else merged
        biases = [self._bias([(1.0, delta)]) for _, delta in present]
        size = linear.outputs
        bias = None
        if any(one is not None for one in biases):
            full = [merged.new_zeros(size) if one is None else one for one in biases]
            bias = matrix(full, numbers, self.options)
        return self._from_matrix(linear, merged, bias, self._exact(linear, deltas, weights))

    def _from_matrix(self, linear: Linear, whole: Tensor, bias: Tensor | None, exact: Tensor | None) -> Made:
        made = factoring.of_matrix(whole, rank=self.rank, energy=self.energy)
        result = whole if exact is None else made.b @ made.a
        return self._measured(linear, Block(made.a, made.b), result, exact, made.kept, bias=bias)

    def _measured(
        self,
        linear: Linear,
        block: Block,
        result: Tensor,
        exact: Tensor | None,
        kept: float,
        *,
        magnitude: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Made:
        """Return what is made at a map, with its distance to the exact sum."""
        length = None if exact is None else float(exact.norm())
        error = None
        if exact is not None and length is not None:
            error = products.relative(float((result - exact).norm()), length)
        return Made(
            linear=linear,
            blocks=(block,),
            magnitude=magnitude,
            bias=bias,
            kept=kept,
            exact=length,
            error=error,
        )

    def _exact(self, linear: Linear, deltas: Sequence[Delta | None], weights: Sequence[float]) -> Tensor | None:
        """Return Σ w_i D_i (outputs, columns) for the report, None where there is none."""
        if not self.report:
            return None
        return self._total([(w, d) for w, d in zip(weights, deltas, strict=True) if d is not None], linear)

    def _total(self, terms: Sequence[tuple[float, Delta]], linear: Linear) -> Tensor:
        """Return Σ c_i D_i (outputs, columns)."""
        weight = self._weight(linear, [delta for _, delta in terms])
        return total((c, delta.matrix(weight)) for c, delta in terms)

    def _weight(self, linear: Linear, deltas: Sequence[Delta | None]) -> Tensor | None:
        """Return W where a gain acts on it."""
        return self._read_weight(linear) if any(d is not None and d.gain is not None for d in deltas) else None

    def _read_weight(self, linear: Linear) -> Tensor:
        if self.read is None:
            raise AssertionError("DoRA is merged with the base model at hand")
        return weight_of(linear, self.read)

    def _bias(self, terms: Sequence[tuple[float, Delta]]) -> Tensor | None:
        """Return Σ c_i times what each adds to the bias, or None where none adds anything."""
        found = [c * one for c, delta in terms if (one := self._shift(delta)) is not None]
        return sum(found[1:], found[0]) if found else None

    def _shift(self, delta: Delta) -> Tensor | None:
        """Return what an adapter adds to the bias; in a result with magnitudes, γ gives it what gains do to it."""
        if delta.gain is None or not delta.gains_bias or self.magnitude != "none" or self.read is None:
            return delta.bias
        bias: Tensor = self.read(f"{delta.linear.path}.bias").detach().double()
        return (delta.gain - 1) * bias
