"""Saving: what is recorded of an adapter or a composition on its base model when its file is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..adapter import Adapter, Probe
from ..converters import write
from ..errors import NotFoundError
from ..methods import FusionConfig, is_head
from . import probe as probes
from .files import exactly

if TYPE_CHECKING:
    from ..adapter import Manifest
    from .adapter_set import AdapterSet


def save_adapter(
    owner: AdapterSet,
    name: str,
    path: Path,
    format: str,  # noqa: A002
    manifest: Manifest | None,
    probe: Mapping[str, torch.Tensor] | None,
    dtype: torch.dtype | None,
    force: bool,
) -> Path:
    """Write one adapter; see AdapterSet.save."""
    adapter = owner.adapter(name)
    if dtype is not None:
        adapter = cast(adapter, dtype)
    known = manifest or adapter.manifest
    here = owner._loaded.base()
    base = dataclasses.replace(here, id=known.base.id or here.id, revision=known.base.revision)
    known = dataclasses.replace(known, base=base, probe=_record(owner, name, probe))
    return Path(write(dataclasses.replace(adapter, manifest=known), path, format=format, force=force))


def cast(adapter: Adapter, dtype: torch.dtype) -> Adapter:
    """Return an adapter in another dtype that loses nothing of it."""
    return dataclasses.replace(adapter, tensors=exactly(adapter.tensors, dtype))


def _record(owner: AdapterSet, name: str, inputs: Mapping[str, torch.Tensor] | None) -> Probe | None:
    """Return the probe of an adapter; the base model's answers too, where it has the same output."""
    config, ground = owner._loaded[name].config, owner._ground
    if any(isinstance(one, FusionConfig) for one in config):
        return None  # alone it does nothing; the composition that it stands in has one
    head = next((one for one in config if is_head(one)), None)
    inputs = inputs or probes.default_inputs(ground, owner._loaded.settings, head)
    base_values = None
    if head is None:
        with owner.using(None):
            output = probes.output_of(ground, inputs)
            base_values = probes.rounded(probes.answer(ground, inputs, output))
    else:
        output = probes.output_of_head(ground, head)
    with owner.using(name):
        return probes.record(ground, inputs, output, base_values=base_values)


def replay(owner: AdapterSet, name: str) -> probes.Replay:
    """Replay the probe of an adapter or a composition; see AdapterSet.replay."""
    kind = "composition" if name in owner.compositions else "adapter"
    manifest, what = owner.manifest(name), f"{kind} {name!r}"
    if manifest.probe is None:
        raise NotFoundError(f"{what} has no probe", hint="save it again with adapterhub to record one")
    with owner.using(name):
        return probes.replay(owner._ground, manifest.probe, what)
