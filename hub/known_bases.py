"""The base model of a conversion: what may have to be known of it, and a model to run both sides on."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..adapter import Adapter, Manifest
from ..architectures import Architecture, by_model_type
from ..errors import NotFoundError, OfflineError, UnsupportedError, UsageError
from .base_models import choose_base, is_folder, load_model, local_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..converters.format import KnownBase
    from ..sites import Layout


class Stage(NamedTuple):
    """A model to run adapters on.

    Attributes:
        model: the model.
        name: what it is called.
        random: whether its weights are random.
    """

    model: nn.Module
    name: str
    random: bool


class Bases:
    """The base model that a conversion was given, if any; it is loaded when something of it is needed."""

    def __init__(
        self, base: str | Path | nn.Module | None, *, architecture: Architecture | None, offline: bool | None
    ) -> None:
        self._base = str(base) if isinstance(base, Path) else base
        self._architecture = architecture
        self._offline = offline

    def row(self) -> Architecture | None:
        """Return the model family, None where no base model is given or it is not on this machine."""
        if self._architecture is not None or self._base is None:
            return self._architecture
        if not isinstance(self._base, str):
            from ..loader.layout import survey

            return survey(self._base).architecture
        folder = Path(self._base).expanduser() if is_folder(self._base) else local_folder(self._base, None)
        kind = None if folder is None else _model_type(folder)
        return None if kind is None else by_model_type(kind)

    def known(self) -> KnownBase | None:
        """Return what a format may ask of the base model, None where none is given."""
        return None if self._base is None else _Asked(self)

    @cached_property
    def model(self) -> nn.Module:
        """The base model that was given.

        Raises:
            NotFoundError, OfflineError, FormatError, …: as load_base.
        """
        if self._base is None:
            raise UsageError("no base model is given", hint="name it with --base")
        return load_model(self._base, offline=self._offline) if isinstance(self._base, str) else self._base

    def layout(self) -> Layout:
        """Return the places of the base model that was given; of a folder or Hub id the configuration alone is read."""
        from ..loader.layout import survey
        from .describing import describe

        if not isinstance(self._base, str):
            return survey(self.model, self._architecture).layout
        return describe(self._base, architecture=self._architecture, offline=self._offline).layout

    @property
    def architecture(self) -> Architecture | None:
        """The description of the family that was given, if any."""
        return self._architecture

    def at_hand(self, adapter: Adapter) -> nn.Module | None:
        """Return the base model that was given, else the adapter's own if it is here, else None."""
        return self._own(adapter.manifest) if self._base is None else self.model

    def stage(self, adapter: Adapter) -> Stage:
        """Return the model to run an adapter on: the one given, else its own if it is here, else a tiny random one.

        Raises:
            UsageError: none is at hand, and none can be made up that the adapter fits.
        """
        if self._base is not None:
            called = self._base if isinstance(self._base, str) else type(self._base).__name__
            return Stage(self.model, called, random=False)
        own = self._own(adapter.manifest)
        if own is not None:
            return Stage(own, adapter.manifest.base.id, random=False)
        from .random_bases import random_base

        made = random_base(adapter)
        return Stage(made, f"a random {type(made).__name__} of {made.num_parameters():,} parameters", random=True)

    def _own(self, manifest: Manifest) -> nn.Module | None:
        """Return the base model that a manifest names, None where it is not on this machine."""
        try:
            chosen = choose_base(None, manifest)
            revision = manifest.base.revision
            if is_folder(chosen) or local_folder(chosen, revision) is None:
                return None
            return load_model(chosen, revision=revision, offline=True)
        except (UsageError, NotFoundError, OfflineError):
            return None


class _Asked:
    """A base model that is loaded with the first question."""

    def __init__(self, bases: Bases) -> None:
        self._bases = bases

    @cached_property
    def _known(self) -> KnownBase:
        from ..loader.known_base import KnownBase

        return KnownBase(self._bases.model, self._bases.architecture)

    @cached_property
    def layout(self) -> Layout:
        """Its places, which a configuration tells without the weights."""
        return self._bases.layout()

    def activation(self) -> str:
        """Return the activation of the feed-forward blocks; see converters.format.KnownBase."""
        return self._known.activation()

    def linear(self, path: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the weight and the bias of a linear map; see converters.format.KnownBase."""
        return self._known.linear(path)

    def turned(self, path: str, keys: torch.Tensor, places: int) -> torch.Tensor:
        """Return keys of an attention as they are so many places further on; see converters.format.KnownBase."""
        return self._known.turned(path, keys, places)

    def heads(self) -> tuple[int, int]:
        """Return how many heads queries and keys have; see converters.format.KnownBase."""
        return self._known.heads()


def anonymous(adapter: Adapter) -> Adapter:
    """Return an adapter that fits any base model of its sizes."""
    base = dataclasses.replace(adapter.manifest.base, id="", revision=None, fingerprint=None)
    return dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, base=base))


def _model_type(folder: Path) -> str | None:
    """Return the family's name in the configuration of a base model.

    Raises:
        NotFoundError: there is none in the folder.
        UnsupportedError: it is not readable.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise NotFoundError(f"there is no base model in {folder}", hint="a base model is a folder with a config.json")
    try:
        found = json.loads(path.read_text("utf-8")).get("model_type")
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise UnsupportedError(f"{path} is no configuration of a model: {error}") from error
    return found if isinstance(found, str) else None
