"""Prefixes in files of `adapters`.

The file has one network for each stack, whose last layer makes keys and values of all its attentions one behind the
other: those that are not left out, in the order of the layers. Here each attention has its own part. The library also
repeats every tensor below each attention (`.pool.`); of these copies only one below each last layer is written, which
tells how many layers there are, unless the source had others.

Source: adapters 1.3.0, methods/prefix_tuning.py and configuration/adapter_config.py (PrefixTuningConfig).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import PrefixTuningConfig
from ...methods.config import config_from_json, field_types
from ...methods.prefix_tuning import shared_key
from .bottleneck import ACTIVATIONS
from .codec import Codec, Container, Entry, Fields, Places, Source

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

FIELDS = tuple(name for name in field_types(PrefixTuningConfig) if name not in ("positions", "padded_bonus", "spare"))

SHARED = (
    ("wte.weight", "embedding.weight"),
    ("control_trans.0.weight", "hidden.weight"),
    ("control_trans.0.bias", "hidden.bias"),
)
"""Leaves of a network in the file, and ours."""

LAST = (("control_trans.2.weight", ".weight"), ("control_trans.2.bias", ".bias"))
"""Its last layer, and what an attention's part of it ends with here."""

FLAT = (("control_trans", ""),)

GATES = (("weight", "prefix_gate.weight"), ("bias", "prefix_gate.bias"))


def claims(fields: Fields) -> bool:
    """Return whether a configuration is one of prefixes."""
    return fields.get("architecture") == "prefix_tuning"


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the prefixes that a configuration describes."""
    values = {name: value for name, value in fields.items() if name in FIELDS}
    activation = values.get("non_linearity")
    if source.old_activations and isinstance(activation, str):
        values["non_linearity"] = dict(ACTIVATIONS).get(activation, activation)
    data = {"method": PrefixTuningConfig.method, **values, **_habits(source.row)}
    return config_from_json(PrefixTuningConfig, data)


def _habits(row: Architecture) -> dict[str, JSON]:
    """Return the fields that say what the library does in a family, whatever the file says."""
    return {
        "positions": "adapters" if any(stack.bias for stack in row.layers) else "kept",
        "padded_bonus": max(stack.padded_bonus for stack in row.layers),
        "spare": 0,
    }


def encode(config: PrefixTuningConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: the positions are treated in another way than the library's.
    """
    data = config.to_json()
    others = [f"{name}={value!r}" for name, value in _habits(source.row).items() if data[name] != value]
    if others:
        raise UnsupportedError(
            f"the adapters format cannot say this prefix: for {source.row.name} models it means {', '.join(others)}",
            hint="write it in the native format",
        )
    fields: dict[str, JSON] = {"architecture": "prefix_tuning"}
    fields |= {name: value for name, value in data.items() if name in FIELDS}
    if source.old_activations:
        old = {new: former for former, new in ACTIVATIONS}
        fields["non_linearity"] = old.get(fields["non_linearity"], fields["non_linearity"])
    return fields


def entries(config: PrefixTuningConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the pool's tensors, of their copies below every attention, and of the gates."""
    leaves = [leaf for leaf, _ in (FLAT if config.flat else (*SHARED, *LAST))]
    prefixes = dict.fromkeys(
        part.prefix for stack in row.layers for part in stack.attentions if config.wants(part.stack)
    )
    for prefix in prefixes:
        for leaf in leaves:
            pool = f"prefix_tunings.{{name}}.{prefix}.{leaf}"
            yield Entry(f"prefix_tuning.{pool}", _pooled(prefix, leaf), left_out=config.leave_out)
            for _, attention in _attentions(row):
                yield Entry(f"{row.past(attention)}.prefix_tuning.pool.{pool}", _pooled(prefix, leaf), optional=True)
    for stack, attention in _attentions(row):
        if config.use_gating and config.wants(stack):
            for leaf, ours in GATES:
                theirs = f"{row.past(attention)}.prefix_tuning.prefix_gates.{{name}}.{leaf}"
                yield Entry(theirs, f"{attention}.{ours}", left_out=config.leave_out)


def _attentions(row: Architecture) -> Iterator[tuple[str, str]]:
    """Yield the name of its stack and the canonical path of every attention of a layer."""
    for stack in row.layers:
        yield from ((part.stack, f"{stack.path}.{part.path}") for part in stack.attentions)


def _pooled(prefix: str, leaf: str) -> str:
    """Return the key that a tensor of the pool has while it is not yet divided."""
    return f"pool.{prefix}.{leaf}"


def read(config: PrefixTuningConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the tensors of the pool divided among the attentions.

    Raises:
        FormatError: the sizes do not tell how.
    """
    found = {key: tensor for key, tensor in tensors.items() if not key.startswith("pool.")}
    for prefix, paths in _placed(config, tensors, places).items():
        for leaf, ours in SHARED:
            if _pooled(prefix, leaf) in tensors:
                found[shared_key(_stack(prefix), ours)] = tensors[_pooled(prefix, leaf)]
        for leaf, ending in FLAT if config.flat else LAST:
            if _pooled(prefix, leaf) in tensors:
                found |= _divided(config, tensors[_pooled(prefix, leaf)], paths, ending)
    return found


def _stack(prefix: str) -> str:
    return prefix.removesuffix("_prefix")


def _divided(config: PrefixTuningConfig, tensor: torch.Tensor, paths: Sequence[str], ending: str) -> Tensors:
    """Return a tensor of the pool as a tensor of each attention's keys and values."""
    rows = tensor.view(config.prefix_length, -1).t() if config.flat else tensor
    pieces = rows.chunk(2 * len(paths))
    names = [f"{path}.prefix_{what}{ending}" for path in paths for what in ("key", "value")]
    parts = {name: piece.t() if config.flat else piece for name, piece in zip(names, pieces, strict=True)}
    return {name: piece.contiguous() for name, piece in parts.items()}


def write(config: PrefixTuningConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the tensors of all attentions joined to those of the pool."""
    found = {key: tensor for key, tensor in tensors.items() if not _is_divided(key)}
    for prefix, paths in _all(config, places).items():
        for leaf, ours in SHARED:
            key = shared_key(_stack(prefix), ours)
            if key in found:
                found[_pooled(prefix, leaf)] = found.pop(key)
        for leaf, ending in FLAT if config.flat else LAST:
            names = [f"{path}.prefix_{what}{ending}" for path in paths for what in ("key", "value")]
            present = [tensors[name] for name in names if name in tensors]
            if present:
                found[_pooled(prefix, leaf)] = _joined(config, present)
    return found


def _is_divided(key: str) -> bool:
    return any(f".prefix_{what}{ending}" == key[key.rfind(".prefix_") :] for what in _WHAT for ending in _ENDINGS)


_WHAT = ("key", "value")
_ENDINGS = ("", ".weight", ".bias")


def _joined(config: PrefixTuningConfig, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(list(pieces), dim=1).flatten() if config.flat else torch.cat(list(pieces))


def _placed(config: PrefixTuningConfig, tensors: Tensors, places: Places) -> dict[str, list[str]]:
    """Return prefix → paths of the attentions among which the tensors of its pool are divided.

    Raises:
        FormatError: their number cannot be told.
    """
    named = places.whole or config.use_gating  # by the copies, or by the gates
    sizes = {} if named else {prefix: _count(config, prefix, tensors, places) for prefix in _prefixes(tensors)}
    found = _all(config, places, sizes)
    for prefix in _prefixes(tensors):
        rows = _rows(config, prefix, tensors)
        parts = 2 * len(found.get(prefix, ()))
        if not parts or rows % parts:
            raise FormatError(
                f"the {rows} rows of the prefix {prefix!r} cannot be those of {parts // 2} layers",
                hint="fetch the adapter again, or save it again with the library that made it",
            )
    return {prefix: paths for prefix, paths in found.items() if prefix in _prefixes(tensors)}


def _prefixes(tensors: Tensors) -> list[str]:
    return list(dict.fromkeys(key.split(".")[1] for key in tensors if key.startswith("pool.")))


def _rows(config: PrefixTuningConfig, prefix: str, tensors: Tensors) -> int:
    """Return the size of keys and values of all attentions of a prefix together."""
    if config.flat:
        return tensors[_pooled(prefix, FLAT[0][0])].numel() // config.prefix_length
    last = [tensors[_pooled(prefix, leaf)] for leaf, _ in LAST if _pooled(prefix, leaf) in tensors]
    return last[0].shape[0] if last else 0


def _count(config: PrefixTuningConfig, prefix: str, tensors: Tensors, places: Places) -> int:
    """Return the number of attentions of a prefix, if their heads are together as wide as the model."""
    wte = tensors.get(_pooled(prefix, "wte.weight"))
    width = places.width if wte is None else wte.shape[-1]
    rows = _rows(config, prefix, tensors)
    if not width or rows % (2 * width):
        raise FormatError(
            f"the weights do not tell how many layers the prefix {prefix!r} is for",
            hint="save the adapter again with the library that made it, which repeats its tensors below every layer",
        )
    return rows // (2 * width)


def _all(config: PrefixTuningConfig, places: Places, sizes: dict[str, int] | None = None) -> dict[str, list[str]]:
    """Return prefix → paths of the attentions that have it, in order.

    sizes: prefix → number of attentions where the keys do not tell it.
    """
    found: dict[str, list[str]] = {}
    first = 0
    for stack, run in zip(places.row.layers, places.runs, strict=True):
        first = 0 if stack.restarts else first
        wanted = [sizes[part.prefix] for part in stack.attentions if sizes and part.prefix in sizes]
        indices = run.indices if not wanted else _enough(max(wanted), first, config.leave_out)
        for number, index in enumerate(indices, first):
            for part in stack.attentions:
                if config.wants(part.stack) and number not in config.leave_out:
                    found.setdefault(part.prefix, []).append(f"{stack.layer(index)}.{part.path}")
        first += len(indices)
    return found


def _enough(count: int, first: int, left_out: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the indices of the fewest layers of which so many are not left out."""
    found: list[tuple[int, ...]] = []
    while count:
        count -= first + len(found) not in left_out
        found.append((len(found),))
    return found


CODEC = Codec(
    config=PrefixTuningConfig,
    claims=claims,
    decode=decode,
    encode=encode,
    entries=entries,
    read=read,
    write=write,
)
