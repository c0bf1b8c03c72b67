"""Extract: a LoRA out of a fine-tuned model, weight by weight from where the two models lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..adapter import Base
from ..converters.identity import hub_id
from ..errors import BaseMismatchError, UnsupportedError, UsageError
from .base_models import is_folder
from .stored_models import StoredModel

if TYPE_CHECKING:
    from ..architectures import Architecture
    from ..merging import Extracted


def extract(
    base: str,
    tuned: str,
    *,
    name: str,
    version: str = "",
    rank: int | None = None,
    energy: float | None = None,
    without_head: bool = False,
    base_id: str | None = None,
    architecture: Architecture | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extracted:
    """Return what a fine-tuned model has learnt, as an adapter of its base model.

    Both models are read from safetensors files, one weight of each at a time.

    Args:
        base: folder or Hub id of the base model, which must be on this machine.
        tuned: that of the fine-tuned one.
        name: of the adapter.
        version: of it, "" without one.
        rank: rank of the update of each linear map.
        energy: in place of it, the part of the squared norm of each difference that is kept.
        without_head: leave out weights around the base model that only the tuned one has.
        base_id: Hub id of the base model, where base is a folder.
        architecture: describes the models, where their family is not known.
        on_progress: told how many of the parameters are done.

    Raises:
        UsageError: neither rank nor energy is given, or the models do not differ.
        BaseMismatchError: they are of different families or shapes.
        UnsupportedError: the tuned model has weights that the base model lacks, or other buffers.
        NotFoundError, FormatError: from reading them.
    """
    from ..merging.extraction import extract as extract_from
    from ..merging.extraction import refuse_further

    if base == tuned:
        raise UsageError("base and tuned are one model")
    one, two = (StoredModel(each, architecture=architecture) for each in (base, tuned))
    if one.architecture != two.architecture:
        raise BaseMismatchError(f"{base} is a {one.architecture}, {tuned} a {two.architecture}")
    _refuse_buffers(one, two, without_head)
    if not without_head:
        refuse_further(sorted([*(two.around - one.around), *two.further]), tuned)
    shared = one.outside & two.outside
    of = Base(
        architecture=one.architecture,
        id=hub_id(base_id or ("" if is_folder(base) else base)),
        fingerprint=one.fingerprint(),
    )
    found = extract_from(
        one.view(shared), two.view(shared), of=of, name=name, rank=rank, energy=energy, on_progress=on_progress
    )
    manifest = replace(found.adapter.manifest, version=version)
    return replace(found, adapter=replace(found.adapter, manifest=manifest))


def _refuse_buffers(base: StoredModel, tuned: StoredModel, without_head: bool) -> None:
    """Raise where the models differ in buffers: no adapter holds such values.

    Raises:
        UnsupportedError: names them.
    """
    known = base.buffers | tuned.buffers
    odd = sorted(path for path in known if not base.has_same(path, tuned))
    odd = [path for path in odd if base.is_inside(path) or not without_head]
    if odd:
        leavable = not any(map(base.is_inside, odd))
        shown = ", ".join(odd[:5]) + (f" and {len(odd) - 5} more" if odd[5:] else "")
        raise UnsupportedError(
            f"{tuned.name} has other buffers than {base.name}, which no adapter holds: {shown}",
            hint="--without-head leaves them out" if leavable else "keep the tuned model as a whole",
        )
