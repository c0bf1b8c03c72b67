"""Methods on entries, block by block: bit for bit what whole matrices give, with one update in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from adapterhub.merging import entries
from adapterhub.merging.combination import Options
from adapterhub.merging.table import by_name
from adapterhub.merging.ties import elected

NAMES = ("magnitude_prune", "ties", "dare_linear", "dare_ties")
WEIGHTS = (1.0, -0.5, 2.0, 0.3)


def at_once(name: str, deltas: Sequence[Tensor], options: Options) -> Tensor:
    """Return what a method is by its definition, all of it in memory."""
    left = [_trimmed(d, options) if name in ("magnitude_prune", "ties") else _dropped(d, options) for d in deltas]
    if "ties" not in name:
        found = left[0] * WEIGHTS[0]
        for weight, one in zip(WEIGHTS[1:], left[1:], strict=True):
            found.add_(one, alpha=weight)
        return found
    total = sum(left[1:], left[0].clone())
    balance = sum(one.sign() for one in left)
    assert isinstance(balance, Tensor)
    signs = elected(total, balance, options)
    found, count = torch.zeros_like(total), torch.zeros_like(total)
    for weight, one in zip(WEIGHTS, left, strict=True):
        agrees = (one * signs) > 0
        found.add_(torch.where(agrees, one, 0.0), alpha=weight)
        count += agrees
    return found / count.clamp(min=1)


def _trimmed(delta: Tensor, options: Options) -> Tensor:
    flat = delta.flatten()
    largest = flat.abs().topk(int(options.density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(delta)


def _dropped(delta: Tensor, options: Options) -> Tensor:
    return (
        delta * torch.bernoulli(torch.full(delta.shape, options.density), generator=options.generator) / options.density
    )


def updates(kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = [torch.randn(shape, generator=generator, dtype=dtype) for _ in WEIGHTS]
    # Halves have many equal magnitudes, of which some are kept and some are not.
    return [(2 * one).round() / 2 for one in found] if kind == "halves" else found


def options(**changes: object) -> Options:
    return Options(**{"density": 0.3, "generator": torch.Generator().manual_seed(3), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["any", "halves"])
@pytest.mark.parametrize("shape", [(40, 37), (129, 8), (300,), (1, 1)], ids=str)
@pytest.mark.parametrize("more", [{}, {"majority": "frequency"}, {"favours_plus": True}, {"density": 0.01}], ids=str)
def test_blocks_give_what_the_whole_gives(
    name: str, kind: str, shape: tuple[int, ...], more: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "ENTRIES", 64)
    deltas, matrix = updates(kind, shape), by_name(name).matrix
    assert matrix is not None
    one, two = options(**more), options(**more)
    wanted = at_once(name, deltas, one)
    assert torch.equal(matrix(deltas, WEIGHTS, two), wanted)
    assert one.generator is not None
    assert two.generator is not None
    assert one.generator.get_state().equal(two.generator.get_state())
    turned = [delta.t().contiguous().t() for delta in deltas]
    assert torch.equal(matrix(turned, WEIGHTS, options(**more)), wanted)


class Counted:
    """Updates of which each is made when it is asked for; the next one only when nobody holds the last."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.times = shape, 0

    def __iter__(self) -> Iterator[Tensor]:
        self.times += 1
        last: weakref.ref[Tensor] | None = None
        for number in range(len(WEIGHTS)):
            assert last is None or last() is None, "two updates are in memory"
            delta = torch.randn(self.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            last = weakref.ref(delta)
            yield delta
            del delta


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_one_update_is_in_memory_at_a_time(name: str, density: float) -> None:
    counted, matrix = Counted((30, 20)), by_name(name).matrix
    assert matrix is not None
    matrix(counted, WEIGHTS, options(density=density))
    assert counted.times == (2 if "ties" in name else 1)
