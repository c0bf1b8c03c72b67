"""The best factors of a given rank: what makes a low-rank update of a matrix, or of a sum of low-rank updates.

    D ≈ B A,      A: r × inputs with orthonormal rows, B: outputs × r

No B A of rank r is nearer to D in the Frobenius norm than the r largest singular values with their vectors (Eckart and
Young 1936, Psychometrika 1, 211-218). Where D is itself a product of thin matrices, B A, its singular values are those
of the small matrix R_B R_Aᵀ of the QR decompositions B = Q_B R_B, Aᵀ = Q_A R_A: D is never built. All is computed in
float64.

R_B and R_A come from the inner products, BᵀB = R_Bᵀ R_B (Cholesky), and Q_B = B R_B⁻¹ is not built either: U S Vᵀ being
the decomposition of R_B R_Aᵀ, the factors are (Vᵀ R_A⁻ᵀ) A and B (R_B⁻¹ U S), products with the first r columns alone.
That costs k² multiplications for each row and column of D, Householder's QR with its Q four times as many. The rounding
grows with the square of the condition number, so factors that are nearly dependent are decomposed by Householder's QR.
Sources: Stathopoulos and Wu 2002, SIAM Journal on Scientific Computing 23, 2165-2182; Yamamoto et al. 2015, Electronic
Transactions on Numerical Analysis 44, 306-326, for the rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-13
"""Singular values below this part of the largest one are rounding, not rank."""

SMALL = 1e-3
"""Singular values below this part of the largest one are not told from inner products: rounding would reach 1e-10."""

FEW = 4
"""So many times as many rows as wanted singular values make it worth while to ask for these alone."""

BAND = 40
"""So many rows of a symmetric matrix are computed at once, as far as their last one's diagonal."""

DEPENDENT = 1e6
"""Squared condition number from which on factors are nearly dependent: rounding may grow beyond 1e-10."""


class Factored(NamedTuple):
    """A low-rank update, and what it leaves of the whole.

    Attributes:
        a: A (r, inputs), float64.
        b: B (outputs, r), float64.
        kept: the part of ‖D‖² that is in B A; 1 of a D that is zero.
    """

    a: Tensor
    b: Tensor
    kept: float

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.a.shape[0]


def check_size(rank: int | None, energy: float | None) -> None:
    """Refuse a rank or an energy that means nothing.

    Raises:
        UsageError: names it.
    """
    if rank is not None and energy is not None:
        raise UsageError("rank and energy are two ways to say the same", hint="give one of them")
    if rank is not None and rank < 1:
        raise UsageError(f"the rank is {rank}, expected 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise UsageError(f"the energy is {energy:g}, expected a number above 0, at most 1")


def of_matrix(matrix: Tensor, *, rank: int | None = None, energy: float | None = None) -> Factored:
    """Return the nearest factors of a matrix (outputs, inputs).

    Args:
        matrix: D.
        rank: how many singular values are kept at most; without rank and energy, all that are not rounding.
        energy: keep the fewest that hold this part of ‖D‖².
    """
    import torch

    matrix = matrix.detach().double()
    few = None if rank is None else _first_few(matrix, rank)
    if few is not None:
        return few
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return _cut(u, s, v, rank, energy)


def _first_few(matrix: Tensor, rank: int) -> Factored | None:
    """Return the factors of a few singular values, by the eigenvectors of the inner products of rows or columns.

    None where they are not few, or where the last one is so small that squaring it would leave it to rounding.
    """
    import torch

    is_wide = matrix.shape[0] <= matrix.shape[1]
    wide = matrix if is_wide else matrix.t()
    if len(wide) < FEW * rank:
        return None
    squares, vectors = torch.linalg.eigh(wide @ wide.t())
    if not squares[-rank] > SMALL**2 * squares[-1]:
        return None
    u = vectors[:, -rank:].flip(1)
    other = u.t() @ wide
    s = other.norm(dim=1)
    kept = min(1.0, float(s.square().sum() / wide.square().sum()))
    if is_wide:
        return Factored(other / s.unsqueeze(1), u * s, kept)
    return Factored(u.t().contiguous(), other.t().contiguous(), kept)


def of_product(a: Tensor, b: Tensor, *, rank: int | None = None, energy: float | None = None) -> Factored:
    """Return the nearest factors of B A: as of_matrix of it, by matrices of the size of the rank.

    a: A (k, inputs); b: B (outputs, k).
    """
    import torch

    a, b = a.detach().double(), b.detach().double()
    if a.shape[0] >= min(a.shape[1], b.shape[0]):
        return of_matrix(b @ a, rank=rank, energy=energy)
    of_a, of_b = _triangle(a), _triangle(b.t())
    if of_a is None or of_b is None:
        q_a, r_a = torch.linalg.qr(a.t())
        q_b, r_b = torch.linalg.qr(b)
        u, s, v = torch.linalg.svd(r_b @ r_a.t(), full_matrices=False)
        return _cut(q_b @ u, s, v @ q_a.t(), rank, energy)
    (l_a, to_a), (l_b, to_b) = of_a, of_b
    small = of_matrix(l_b.t() @ l_a, rank=rank, energy=energy)
    return Factored(small.a @ to_a @ a, b @ (to_b.t() @ small.b), small.kept)


def _triangle(rows: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return L and L⁻¹ with L Lᵀ the inner products of rows (k, n), or None where the rows are nearly dependent."""
    import torch

    products = _inner_products(rows)
    lower, fault = torch.linalg.cholesky_ex(products)
    if int(fault):
        return None
    inverse = torch.linalg.solve_triangular(lower, torch.eye(len(lower), dtype=lower.dtype).to(lower), upper=False)
    # Scaling rows changes no rounding of the factors, so it may not count: the rows are taken to be of length 1.
    lengths = products.diagonal().sqrt()
    squared = float((inverse * lengths).norm()) ** 2
    return (lower, inverse) if squared < DEPENDENT else None


def _inner_products(rows: Tensor) -> Tensor:
    """Return the inner products of rows (k, n), those above the diagonal block by block only where they come along."""
    products = rows.new_zeros(len(rows), len(rows))
    for first in range(0, len(rows), BAND):
        band = slice(first, first + BAND)
        products[band, : first + BAND] = rows[band] @ rows[: first + BAND].t()
    return products


def singular_values(a: Tensor, b: Tensor) -> Tensor:
    """Return the singular values of B A, largest first, float64, as many as the smallest side has."""
    import torch

    if a.shape[0] >= min(a.shape[1], b.shape[0]):
        found: Tensor = torch.linalg.svdvals(b.double() @ a.double())
        return found
    r_a, r_b = (torch.linalg.qr(m.double(), mode="r").R for m in (a.t(), b))
    small: Tensor = torch.linalg.svdvals(r_b @ r_a.t())
    return small


def rank_for(s: Tensor, rank: int | None, energy: float | None) -> int:
    """Return how many of the singular values s, largest first, are to be kept; at least one."""
    import torch

    if not len(s) or s[0] == 0:
        return 1
    whole = int((s > s[0] * ROUNDING).sum())
    if rank is not None:
        return min(rank, whole)
    if energy is None:
        return whole
    parts = (s.square().cumsum(0) / s.square().sum()).contiguous()
    wanted = torch.tensor(energy - 1e-14, dtype=parts.dtype, device=parts.device)
    return min(whole, int(torch.searchsorted(parts, wanted)) + 1)


def _cut(u: Tensor, s: Tensor, v: Tensor, rank: int | None, energy: float | None) -> Factored:
    """Return the factors of the first singular values."""
    count = rank_for(s, rank, energy)
    whole = float(s.square().sum())
    kept = 1.0 if whole == 0 else float(s[:count].square().sum()) / whole
    return Factored(v[:count], u[:, :count] * s[:count], min(1.0, kept))
