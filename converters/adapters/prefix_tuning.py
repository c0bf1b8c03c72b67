"""Prefixes in files of `adapters`.

The file has one network, a pool, for each stack, whose last layer makes keys and values of all its attentions one after
another: those that are not left out, in the order of the layers. Here each attention has its own part. The library
also repeats every tensor below each attention (`.pool.`); of these copies only one below each last layer is written,
which tells how many layers there are, unless the source had others.

Source: adapters 1.3.0, methods/prefix_tuning.py and configuration/adapter_config.py (PrefixTuningConfig).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture, AttentionNames, Layers
from ...errors import FormatError, UnsupportedError
from ...methods import PrefixTuningConfig
from ...methods.config import config_from_json, field_types
from ...methods.prefix_tuning import shared_key
from .bottleneck import ACTIVATIONS
from .codec import HOOKED, Codec, Container, Entry, Fields, Places, Source

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
    found: dict[str, JSON] = {
        "positions": "adapters" if any(stack.bias for stack in row.layers) else "kept",
        "padded_bonus": row.layers[0].padded_bonus,
        "spare": 0,
    }
    alone = any(stack.prefixes for stack in row.layers)  # the encoder does not know that it is one
    return found | {"encoder_prefix": True} if alone else found


def encode(config: PrefixTuningConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: the library has no prefixes for the family, or treats positions in another way.
    """
    if source.row.name in HOOKED:
        raise UnsupportedError(
            f"the adapters format cannot say this prefix: the library has none for {source.row.name} models",
            hint="write it in the native format",
        )
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


@dataclass(frozen=True, slots=True)
class Pool:
    """The tensors of one stack's prefix in a file.

    Attributes:
        module: the module below which it stands, "" for the base model.
        prefix: its name there.
        stack: our name of the stack.
        padded_bonus: as in Layers.
    """

    module: str
    prefix: str
    stack: str
    padded_bonus: float

    def key(self, leaf: str) -> str:
        """Return the key that one of its tensors has while it is not yet divided."""
        return f"pool.{self.module}:{self.prefix}.{leaf}"


def _pools(config: PrefixTuningConfig, row: Architecture) -> list[Pool]:
    """Return the pools that an adapter may have on a family."""
    found = [_pool(layers, part) for layers in row.layers for part in layers.attentions if config.wants(part.stack)]
    return list(dict.fromkeys(found))


def _pool(layers: Layers, part: AttentionNames) -> Pool:
    return Pool(layers.prefixes, part.prefix, part.stack, layers.padded_bonus)


def entries(config: PrefixTuningConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the pools' tensors, of their copies below attentions, and of the gates."""
    leaves = [leaf for leaf, _ in (FLAT if config.flat else (*SHARED, *LAST))]
    for pool in _pools(config, row):
        module = f"{pool.module}." if pool.module else ""
        for leaf in leaves:
            theirs = f"prefix_tunings.{{name}}.{pool.prefix}.{leaf}"
            yield Entry(f"{module}prefix_tuning.{theirs}", pool.key(leaf), left_out=config.leave_out)
            for layers, part in _attentions(row):
                if layers.prefixes == pool.module:
                    copy = f"{row.past(f'{layers.path}.{part.path}')}.prefix_tuning.pool.{theirs}"
                    yield Entry(copy, pool.key(leaf), optional=True)
    for layers, part in _attentions(row):
        if config.use_gating and config.wants(part.stack):
            path = f"{layers.path}.{part.path}"
            for leaf, ours in GATES:
                theirs = f"{row.past(path)}.prefix_tuning.prefix_gates.{{name}}.{leaf}"
                yield Entry(theirs, f"{path}.{ours}", left_out=config.leave_out)


def _attentions(row: Architecture) -> Iterator[tuple[Layers, AttentionNames]]:
    for layers in row.layers:
        yield from ((layers, part) for part in layers.attentions)


def read(config: PrefixTuningConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the tensors of the pools divided among the attentions.

    Raises:
        FormatError: the sizes do not tell how.
        UnsupportedError: the library treats padding in one part of the model otherwise than in the other.
    """
    found = {key: tensor for key, tensor in tensors.items() if not key.startswith("pool.")}
    for pool, paths in _placed(config, tensors, places).items():
        for leaf, ours in SHARED:
            if pool.key(leaf) in tensors:
                found[shared_key(pool.stack, ours)] = tensors[pool.key(leaf)]
        for leaf, ending in FLAT if config.flat else LAST:
            if pool.key(leaf) in tensors:
                found |= _divided(config, tensors[pool.key(leaf)], paths, ending)
    return found


def _divided(config: PrefixTuningConfig, tensor: torch.Tensor, paths: Sequence[str], ending: str) -> Tensors:
    """Return a tensor of the pool as a tensor of each attention's keys and values."""
    rows = tensor.view(config.prefix_length, -1).t() if config.flat else tensor
    pieces = rows.chunk(2 * len(paths))
    names = [f"{path}.prefix_{what}{ending}" for path in paths for what in ("key", "value")]
    parts = {name: piece.t() if config.flat else piece for name, piece in zip(names, pieces, strict=True)}
    return {name: piece.contiguous() for name, piece in parts.items()}


def write(config: PrefixTuningConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the tensors of all attentions joined to those of the pools.

    Raises:
        UnsupportedError: as read does.
    """
    found = {key: tensor for key, tensor in tensors.items() if not _is_divided(key)}
    for pool, paths in _all(config, places).items():
        for leaf, ours in SHARED:
            key = shared_key(pool.stack, ours)
            if key in found:
                found[pool.key(leaf)] = found.pop(key)
        for leaf, ending in FLAT if config.flat else LAST:
            names = [f"{path}.prefix_{what}{ending}" for path in paths for what in ("key", "value")]
            present = [tensors[name] for name in names if name in tensors]
            if present:
                found[pool.key(leaf)] = _joined(config, present)
    return found


def _is_divided(key: str) -> bool:
    return any(f".prefix_{what}{ending}" == key[key.rfind(".prefix_") :] for what in _WHAT for ending in _ENDINGS)


_WHAT = ("key", "value")
_ENDINGS = ("", ".weight", ".bias")


def _joined(config: PrefixTuningConfig, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(list(pieces), dim=1).flatten() if config.flat else torch.cat(list(pieces))


def _placed(config: PrefixTuningConfig, tensors: Tensors, places: Places) -> dict[Pool, list[str]]:
    """Return pool → paths of the attentions among which its tensors are divided.

    Raises:
        FormatError: their number cannot be told.
    """
    leaves = [leaf for leaf, _ in (FLAT if config.flat else (*SHARED, *LAST))]
    pools = [pool for pool in _pools(config, places.row) if any(pool.key(leaf) in tensors for leaf in leaves)]
    for pool in pools:
        _check_pieces(config, pool, tensors)
    named = places.whole or config.use_gating  # by the copies, or by the gates
    found = _all(config, places, {} if named else {pool: _count(config, pool, tensors, places) for pool in pools})
    for pool in pools:
        rows = _rows(config, pool, tensors)
        parts = 2 * len(found.get(pool, ()))
        if not parts or rows % parts:
            raise FormatError(
                f"the {rows} rows of the prefix {pool.prefix!r} cannot be those of {parts // 2} layers",
                hint="fetch the adapter again, or save it again with the library that made it",
            )
    return {pool: found[pool] for pool in pools}


def _check_pieces(config: PrefixTuningConfig, pool: Pool, tensors: Tensors) -> None:
    """Refuse tensors that cannot be divided.

    Raises:
        FormatError: names the first.
    """
    leaves = [leaf for leaf, _ in (FLAT if config.flat else LAST) if pool.key(leaf) in tensors]
    shapes = {leaf: tuple(tensors[pool.key(leaf)].shape) for leaf in leaves}
    for leaf, shape in shapes.items():
        dimensions = 2 if leaf.endswith(".weight") else 1
        whole = shape[0] % config.prefix_length == 0 if config.flat else shape[0] == shapes[leaves[0]][0]
        if len(shape) != dimensions or not whole:
            raise FormatError(
                f"{leaf} of the prefix {pool.prefix!r} has shape {shape}, which no prefix of length "
                f"{config.prefix_length} has",
                hint="fetch the adapter again, or save it again with the library that made it",
            )


def _rows(config: PrefixTuningConfig, pool: Pool, tensors: Tensors) -> int:
    """Return the size of keys and values of all attentions of a pool together."""
    if config.flat:
        return tensors[pool.key(FLAT[0][0])].numel() // config.prefix_length
    last = [tensors[pool.key(leaf)] for leaf, _ in LAST if pool.key(leaf) in tensors]
    return last[0].shape[0] if last else 0


def _count(config: PrefixTuningConfig, pool: Pool, tensors: Tensors, places: Places) -> int:
    """Return the number of attentions of a pool, if their heads are together as wide as the model."""
    wte = tensors.get(pool.key("wte.weight"))
    width = places.width if wte is None else wte.shape[-1]
    rows = _rows(config, pool, tensors)
    stacks = [layers for layers in places.row.layers if any(_pool(layers, part) == pool for part in layers.attentions)]
    if not width or rows % (2 * width) or any(layers.path.count("{i}") != 1 for layers in stacks):
        raise FormatError(
            f"the weights do not tell how many layers the prefix {pool.prefix!r} is for",
            hint="save the adapter again with the library that made it, which repeats its tensors below every layer",
        )
    return rows // (2 * width)


def _all(config: PrefixTuningConfig, places: Places, sizes: dict[Pool, int] | None = None) -> dict[Pool, list[str]]:
    """Return pool → paths of the attentions that have it, in order.

    sizes: pool → number of attentions where the keys do not tell it.

    Raises:
        UnsupportedError: as read does.
    """
    found: dict[Pool, list[str]] = {}
    first = 0
    for layers, run in zip(places.row.layers, places.runs, strict=True):
        first = 0 if layers.restarts else first
        pools = [_pool(layers, part) for part in layers.attentions]
        wanted = [sizes[pool] for pool in pools if sizes and pool in sizes]
        indices = run.indices if not wanted else _enough(max(wanted), first, config.leave_out)
        for number, index in enumerate(indices, first):
            for pool, part in zip(pools, layers.attentions, strict=True):
                if not config.wants(part.stack) or number in config.leave_out:
                    continue
                if pool.padded_bonus != config.padded_bonus:
                    raise UnsupportedError(
                        f"in {layers.layer(index)} `adapters` changes the scores of prefixes in batches with padding, "
                        "in the rest of the model it does not",
                        hint="use a model both parts of which are of other families",
                    )
                found.setdefault(pool, []).append(f"{layers.layer(index)}.{part.path}")
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
