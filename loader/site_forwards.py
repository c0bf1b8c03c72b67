"""The callables at residual sites: what remembers x, what lets the adapter act on d, and what follows from it."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

from torch.compiler import is_compiling

from .forwards import Forward, Pickled

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods import SiteOp


class Residual(Pickled):
    """Remembers the residual stream x that enters a sublayer until the site takes it.

    Each thread has its own, so that two requests served by one model never mix. Under torch.compile, which traces one
    thread, there is one slot.
    """

    __slots__ = ("argument", "kept", "original", "rivals")

    def __init__(self, original: Forward, argument: int = 0) -> None:
        self.original = original
        self.argument = argument
        self.kept: dict[int, Any] = {}
        self.rivals: tuple[Residual, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; one of its arguments is x (batch, sequence, width)."""
        thread = 0 if is_compiling() else get_ident()
        place = self.argument
        self.kept[thread] = args[place] if place < len(args) else list(kwargs.values())[place - len(args)]
        for rival in self.rivals:
            # What an interrupted pass left behind must not be taken for a stream that has just entered.
            rival.kept.pop(thread, None)
        return self.original(*args, **kwargs)


class LastOutput(Pickled):
    """Remembers what a module inside the model gave, until a site or a head takes it."""

    __slots__ = ("kept", "original")

    def __init__(self, original: Forward) -> None:
        self.original = original
        self.kept: dict[int, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module."""
        output = self.original(*args, **kwargs)
        self.kept[0 if is_compiling() else get_ident()] = output
        return output

    def take(self) -> Any:
        """Return it, once."""
        return self.kept.pop(0 if is_compiling() else get_ident())


class SiteForward(Pickled):
    """Runs the module that yields d and lets the adapter act on it.

    Where the module serves several sites of a layer, it is this one's turn if its residual stream has entered.
    """

    __slots__ = ("beside", "bypass", "keeps", "norm", "op", "original", "residual", "takes_turns")

    def __init__(
        self,
        original: Forward,
        op: SiteOp,
        *,
        residual: Residual | None,
        beside: LastOutput | None = None,
        norm: Forward | None,
        bypass: Bypass | None,
        keeps: bool,
        takes_turns: bool,
    ) -> None:
        self.original = original
        self.op = op
        self.residual = residual
        self.beside = beside
        self.norm = norm
        self.bypass = bypass
        self.keeps = keeps
        self.takes_turns = takes_turns

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the adapted d (batch, sequence, width)."""
        d = self.original(*args, **kwargs)
        x = None
        if self.residual is not None:
            thread = 0 if is_compiling() else get_ident()
            if self.takes_turns and thread not in self.residual.kept:
                return d
            # Taken out, so that no activation outlives its layer; another site of the layer may still want it.
            x = self.residual.kept[thread] if self.keeps else self.residual.kept.pop(thread)
            if self.beside is not None:
                x = x + self.beside.take()
        return self.act(d, x)

    def act(self, d: Any, x: Any) -> Any:
        """Return what takes the place of d; the result of a norm that is left out is put where the norm finds it."""
        u = self.op(d, x, self.norm)
        if self.bypass is not None:
            self.bypass.kept[0 if is_compiling() else get_ident()] = u
        return u


class ExchangedForward(SiteForward):
    """For sites where d and x change places: the adapter acts on the residual stream, and d is added behind it."""

    __slots__ = ()
    norm: Forward
    bypass: Bypass

    def act(self, d: Any, x: Any) -> Any:
        """Return d, and leave the result where the norm behind the residual connection finds it."""
        u = self.op(x, d, self.norm)
        self.bypass.kept[0 if is_compiling() else get_ident()] = u if self.op.replaces_norm else self.norm(u + d)
        return d


class Bypass(Pickled):
    """Stands for a norm whose result the adapter replaces by its own output, at the one call that follows the site."""

    __slots__ = ("kept", "original")

    def __init__(self, original: Forward) -> None:
        self.original = original
        self.kept: dict[int, Any] = {}

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return what the site left here, else what the norm gives."""
        thread = 0 if is_compiling() else get_ident()
        left: Tensor = self.kept.pop(thread) if thread in self.kept else self.original(hidden)
        return left
