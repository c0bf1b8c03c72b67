"""OFT: the input of a map is rotated in blocks by orthogonal matrices (Qiu et al. 2023).

    y = W (R x) + b,      R = diag(R₁, …, R_k), each b × b,      Rᵢ = (I - Qᵢ)(I + Qᵢ)⁻¹

Qᵢ is skew-symmetric, kept as the b (b - 1) / 2 entries above its diagonal. With `terms` the inverse is a Neumann
series of so many terms. `limit` (COFT) keeps each Q near zero; `shared` is one block for all. Of an embedding it is the
output that is rotated. Convolutions are left out: PEFT computes something else before them than what it merges.

Sources: Qiu et al. 2023 (arXiv 2306.07280) §4; Qiu et al. 2025 (arXiv 2506.19847) for the series; PEFT 0.21.2,
tuners/oft/layer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Live, Shapes
from .updating import MOST, Rule, UpdatingConfig, method

if TYPE_CHECKING:
    from torch import Tensor

    from .method import Apply
    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class OftConfig(UpdatingConfig):
    """Blocks and how they are made orthogonal.

    Attributes:
        block_size: b; the nearest number that divides the inputs is taken. 0 where blocks says it.
        blocks: k; the nearest number that divides the inputs is taken. 0 where block_size says it.
        shared: whether all blocks are one.
        limit: largest norm of each Q, times √k; None for none.
        terms: terms of the series that stands for the inverse, 0 for the inverse itself.
    """

    method: ClassVar[str] = "oft"

    block_size: int = 32
    blocks: int = 0
    shared: bool = False
    limit: float | None = None
    terms: int = 0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = []
        if (self.block_size == 0) == (self.blocks == 0) or not 0 <= max(self.block_size, self.blocks) <= MOST:
            faults.append(f"one of block_size and blocks must be 0, the other 1 to {MOST}")
        if not 0 <= self.terms <= 100:
            faults.append("terms must be 0 to 100")
        return faults

    def size(self, linear: Linear) -> int:
        """Return b at a map."""
        width = max(1, _width(linear))
        if self.blocks:
            return width // nearest_divisor(width, self.blocks)
        return nearest_divisor(width, self.block_size)


def nearest_divisor(number: int, wanted: int) -> int:
    """Return the divisor of a number that is nearest to another number, the smaller of two that are.

    >>> nearest_divisor(48, 32), nearest_divisor(48, 9), nearest_divisor(48, 100)
    (24, 8, 48)
    """
    if wanted >= number:
        return number
    divisors = [k for k in range(1, number + 1) if number % k == 0]
    return min(divisors, key=lambda k: (abs(k - wanted), k))


def _width(linear: Linear) -> int:
    return linear.outputs if linear.kind == "embedding" else linear.inputs


def _name(linear: Linear) -> str:
    return "oft_embedding_R" if linear.kind == "embedding" else "oft_R"


def shapes(config: OftConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    size = config.size(linear)
    count = 1 if config.shared else _width(linear) // size
    return {_name(linear): (count, size * (size - 1) // 2)}


def skew(entries: Tensor, size: int) -> Tensor:
    """Return skew-symmetric matrices (k, b, b) with the given entries (k, b (b - 1) / 2) above the diagonal."""
    import torch

    rows, columns = torch.triu_indices(size, size, 1, device=entries.device)
    upper = entries.new_zeros((entries.shape[0], size, size))
    upper = upper.index_put((torch.arange(len(entries), device=entries.device)[:, None], rows, columns), entries)
    return upper - upper.transpose(1, 2)


def cayley(q: Tensor) -> Tensor:
    """Return (I - Q)(I + Q)⁻¹ of skew-symmetric matrices (…, b, b); in float32 at least."""
    import torch

    exact = q.to(torch.promote_types(q.dtype, torch.float32))
    one = torch.eye(q.shape[-1], device=q.device, dtype=exact.dtype)
    found: Tensor = torch.linalg.solve(one + exact, one - exact, left=False)
    return found.to(q.dtype)


def _series(q: Tensor, terms: int) -> Tensor:
    """Return I + 2 Q + 2 Q² + … + Q^(terms - 1), the last without its 2."""
    import torch

    found = torch.eye(q.shape[-1], device=q.device, dtype=q.dtype).expand_as(q)
    if terms > 1:
        found = found + 2 * q
    if terms > 2:
        power = q @ q
        found = found + 2 * power
        for _ in range(3, terms - 1):
            power = power @ q
            found = found + 2 * power
        found = found + power @ q
    return found


def rotation(config: OftConfig, entries: Tensor, linear: Linear) -> Tensor:
    """Return the blocks (k, b, b) at a map."""
    size = config.size(linear)
    q = skew(entries, size)
    if config.limit is not None:
        bound = config.limit / math.sqrt(entries.shape[0])
        norm = q.norm(dim=(1, 2), keepdim=True)
        q = q * (bound / norm.clamp(min=bound))
    blocks = _series(q, config.terms) if config.terms else cayley(q)
    return blocks.expand(_width(linear) // size, size, size)


class Rotated:
    """W (R x) + b; behind an embedding, R y."""

    __slots__ = ("config", "entries", "linear")

    def __init__(self, config: OftConfig, own: Own, linear: Linear) -> None:
        self.config = config
        self.entries = own[_name(linear)]
        self.linear = linear

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        blocks = rotation(self.config, self.entries, self.linear)
        if self.linear.kind == "embedding":
            return _turned(forward(x), blocks)
        return forward(_turned(x, blocks))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W R and b; behind an embedding R W."""
        import torch

        whole = torch.block_diag(*rotation(self.config, self.entries, self.linear)).to(weight.dtype)
        return (whole.t() @ weight if self.linear.kind == "embedding" else weight @ whole.t()), bias


def _turned(x: Tensor, blocks: Tensor) -> Tensor:
    """Return x (…, k b) with each block of entries multiplied from the left of its matrix."""
    import torch

    grouped = x.reshape(*x.shape[:-1], *blocks.shape[:2]).to(blocks.dtype)
    return torch.einsum("...kb,kbc->...kc", grouped, blocks).reshape(x.shape).to(x.dtype)


def op(config: OftConfig, own: Own, linear: Linear, live: Live) -> Rotated:
    """Return what acts at a map."""
    return Rotated(config, own, linear)


def seen(config: OftConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map whose inputs, or outputs of an embedding, go into the blocks."""
    embedding = "oft_embedding_R" in own
    shape = own.get("oft_embedding_R" if embedding else "oft_R", ())
    if len(shape) != 2:
        return None
    size = (1 + math.isqrt(1 + 8 * shape[1])) // 2
    width = size * shape[0]
    if config.shared:
        width = size * (config.blocks or 1)
    return Linear(path=path, inputs=width, outputs=width, kind="embedding" if embedding else "linear")


METHOD = method(
    Rule(
        config=OftConfig,
        presets={"oft": OftConfig()},
        shapes=shapes,
        op=op,
        seen=seen,
        sized=False,
        kinds=("linear", "embedding"),
    )
)
