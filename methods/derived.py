"""Tensors that are computed from parameters: once while these stay as they are, at each call while they train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class _Made(NamedTuple):
    """A value, and the parameters as they were when it was made; these keep their memory from being used again."""

    value: Tensor
    sources: tuple[Tensor, ...]
    state: tuple[tuple[int, int], ...]


class Derived:
    """A tensor computed from others, the sources.

    It is computed anew when a source was written to or got another storage. Writes that autograd does not see
    (`parameter.data.add_`) are not seen here either; activating the adapter again shows them. A copy of the model
    computes its own.
    """

    __slots__ = ("made", "sources")

    def __init__(self, sources: Iterable[Tensor]) -> None:
        self.sources = tuple(sources)
        self.made: _Made | None = None

    def computed(self) -> Tensor:
        """Return the tensor, computed from the sources as they are now, with gradients."""
        raise AssertionError("each kind computes its own")

    def __call__(self) -> Tensor:
        """Return the tensor; with gradients where a source wants them."""
        import torch
        from torch.compiler import is_compiling

        sources = self.sources
        if is_compiling() or (torch.is_grad_enabled() and any(source.requires_grad for source in sources)):
            return self.computed()
        if any(source.is_inference() for source in sources):
            return self.computed()
        state = tuple((source.data_ptr(), source._version) for source in sources)
        if self.made is None or self.made.state != state:
            # What is kept must serve calls with and without gradients, in any precision of automatic casts.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(sources[0].device.type, enabled=False):
                self.made = _Made(self.computed(), tuple(source.detach() for source in sources), state)
        return self.made.value

    def __getstate__(self) -> Any:
        """Return what a copy takes over: all but the value."""
        pair: Any = super().__getstate__()  # with slots it is a pair
        return pair[0], {**pair[1], "made": None}
