"""A new fusion layer for adapters that are loaded: where it has to stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import UnsupportedError, UsageError
from ..methods import FusionConfig
from .adapter_set import AdapterSet


def fusion_for(adapters: AdapterSet, names: Sequence[str], config: FusionConfig) -> FusionConfig:
    """Return the configuration of a fusion layer of these adapters: at every site where one of them stands.

    config: what else it computes.

    Raises:
        UsageError: they are fewer than two.
        UnsupportedError: one of them stands at no residual site, so that there is nothing to fuse.
    """
    if len(set(names)) < 2:
        raise UsageError("a fusion is of two adapters or more", hint="name them all, such as a,b,c")
    places = {name: adapters.sites(name) for name in names}
    bare = [name for name, sites in places.items() if not sites]
    if bare:
        raise UnsupportedError(
            f"{', '.join(bare)} cannot be fused: fuse holds bottleneck adapters only",
            hint="stack or average adapters of other methods",
        )
    sites = dict.fromkeys(site for found in places.values() for site in found)
    without = {site.layer for site in adapters.layout.sites} - {site.layer for site in sites}
    return dataclasses.replace(
        config,
        adapters=tuple(names),
        sites=tuple(dict.fromkeys(site.role for site in sites)),
        leave_out=tuple(sorted(without)),
    )
