"""Tensors that are computed from parameters: once while these stay as they are, at each call while they train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class _Made(NamedTuple):
    """A value, and the sources as they were when it was made.

    The storages of the sources are held, so that their memory is not used again for others.
    """

    value: Tensor
    storages: tuple[Tensor, ...]
    copies: tuple[Tensor, ...]
    state: tuple[tuple[int, int], ...]


class Derived:
    """A tensor computed from others, the sources. A copy of the model computes its own.

    It is computed anew when a source was written to or got another storage. Writes that autograd does not see
    (`parameter.data.add_`) are found by comparing values on the CPU. On other devices, where that would wait for the
    device, it is computed at each call if that is cheap; if not, such writes stay unseen there.
    """

    __slots__ = ("made", "sources")

    is_cheap: ClassVar[bool] = False
    """Whether a device computes it faster than it would be asked whether that is needed."""
    constants: ClassVar[int] = 0
    """Number of sources, the last ones, that nothing writes to past autograd."""

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
        on_cpu = sources[0].device.type == "cpu"
        if any(source.is_inference() for source in sources) or (self.is_cheap and not on_cpu):
            return self.computed()
        state = tuple((source.data_ptr(), source._version) for source in sources)
        if self.made is None or self.made.state != state or not all(map(torch.equal, self.made.copies, sources)):
            changing = sources[: len(sources) - self.constants] if on_cpu else ()
            # What is kept must serve calls with and without gradients, in any precision of automatic casts.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(sources[0].device.type, enabled=False):
                storages = tuple(source.detach() for source in sources)
                self.made = _Made(self.computed(), storages, tuple(source.clone() for source in changing), state)
        return self.made.value

    def __getstate__(self) -> Any:
        """Return what a copy takes over: all but the value."""
        pair: Any = super().__getstate__()  # with slots it is a pair
        return pair[0], {**pair[1], "made": None}
