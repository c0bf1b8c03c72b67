"""Updates: the low-rank updates that a file holds, between its names and scales and our LoRA.

Every format here knows a factor per map, in one of its own spellings, and nothing else of LoRA's variants. A scale is
carried as alpha, the number that divided by the rank gives it.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ...adapter import JSON, Adapter, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError, UsageError
from ...methods import LoraConfig, shapes
from ...methods.config import config_from_json
from ...methods.dora import Magnitude
from ...methods.targets import Target, chosen
from ...sites import PROJECTIONS, Layout
from .. import accounting
from ..peft import lora, targets
from ..peft.families import Naming

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = dict[str, Tensor]

NATIVE = "write it in the native format"
AGAIN = "fetch the file again, or write it again with the library that made it"


class Place(NamedTuple):
    """Where a tensor of a file belongs.

    Attributes:
        path: module path as the file calls it.
        leaf: name of the parameter in ours.
    """

    path: str
    leaf: str


@dataclass(frozen=True, slots=True)
class Updates:
    """What a file says.

    Attributes:
        tensors: place → tensor, in our orientation.
        alphas: module path → alpha, for every module.
        dropout: probability while training.
        magnitude: as in LoraConfig.
        rank_stabilised: as in LoraConfig.
        words: what is adapted, where the source says more than paths, in the words of methods/targets.py.
        every: whether each layer of the model is adapted alike, so that projections may stand for paths.
    """

    tensors: Mapping[Place, Tensor]
    alphas: Mapping[str, float]
    dropout: float = 0.0
    magnitude: Magnitude = "none"
    rank_stabilised: bool = False
    words: tuple[str, ...] = ()
    every: bool = False

    @property
    def paths(self) -> list[str]:
        """The modules, each once."""
        return list(dict.fromkeys(place.path for place in self.tensors))


@dataclass(frozen=True, slots=True)
class Means:
    """What a format has a word for besides A and B of linear maps.

    Attributes:
        dora: DoRA.
        biases: a bias of the update.
        stable: a scale of alpha / √r; where not, alpha is written so that alpha / r is the same.
        parts: updates of the parts of a joint map; where not, they are written as one of the whole map.
        embeddings: updates of embeddings.
        convolutions: updates of convolutions.
        library: what the format is called in sentences.
    """

    library: str
    dora: bool = False
    biases: bool = False
    stable: bool = False
    parts: bool = False
    embeddings: bool = False
    convolutions: bool = False


def decode(found: Updates, names: Naming) -> tuple[LoraConfig, Tensors]:
    """Return configuration and tensors, by canonical keys.

    Raises:
        FormatError: the tensors do not belong together, with every fault; a number is none of a LoRA.
        UnsupportedError: an option has no meaning at a map.
    """
    tensors = {f"{names.ours(path)}.{leaf}": tensor for (path, leaf), tensor in found.tensors.items()}
    ranks = _ranks(found, names)
    alphas = {names.ours(path): alpha for path, alpha in found.alphas.items()}
    r, other_ranks = usual(ranks)
    alpha, other_alphas = usual(alphas)
    words = found.words or targets.words(names.row, list(ranks), lambda path: found.every)
    config = _checked(
        {
            "method": LoraConfig.method,
            "targets": list(words),
            "r": r,
            "alpha": alpha,
            "ranks": other_ranks,
            "alphas": other_alphas,
            "dropout": found.dropout,
            "magnitude": found.magnitude,
            "rank_stabilised": found.rank_stabilised,
            "update_bias": any(leaf == "lora_bias" for _, leaf in found.tensors),
        }
    )
    faults = accounting.faults((config,), tensors, names.row)
    if faults:
        raise FormatError("the tensors of the file do not belong together", faults=faults, hint=AGAIN)
    return config, tensors


def _ranks(found: Updates, names: Naming) -> dict[str, int]:
    """Return path of ours → r, as A or, where the source names parts of joint maps, B tells it."""
    ranks = {}
    faults = []
    for path in found.paths:
        leaf, dimension = ("lora_B", 1) if found.words else ("lora_A", 0)
        own = found.tensors.get(Place(path, leaf))
        own = found.tensors.get(Place(path, "lora_embedding_A")) if own is None else own
        if own is None or own.ndim < 2:
            faults.append(f"{path} has no matrix {leaf[-1]}")
        else:
            ranks[names.ours(path)] = own.shape[dimension if leaf == "lora_B" else 0]
    if faults or not ranks:
        raise FormatError("the file holds no whole updates", faults=accounting.shown(faults), hint=AGAIN)
    return ranks


def usual(values: Mapping[str, JSON]) -> tuple[JSON, dict[str, JSON]]:
    """Return the value that most keys have, and those of the others.

    >>> usual({"a": 1, "b": 2, "c": 1})
    (1, {'b': 2})
    """
    counts = Counter(values.values())
    most = min(counts, key=lambda value: (-counts[value], str(value)))
    return most, {key: value for key, value in values.items() if value != most}


def _checked(data: Mapping[str, JSON]) -> LoraConfig:
    try:
        return config_from_json(LoraConfig, data)
    except UsageError as error:
        raise FormatError(f"the file is not usable: {error.message}", hint=AGAIN) from None


def only_lora(configs: Sequence[MethodConfig], what: Means) -> LoraConfig:
    """Return the one configuration.

    Raises:
        UnsupportedError: there is something else, with every reason.
    """
    loras = [config for config in configs if isinstance(config, LoraConfig)]
    others = [config.method for config in configs if not isinstance(config, LoraConfig)]
    reasons = [f"{method} is no update of low rank" for method in dict.fromkeys(others)]
    reasons += [f"it has {len(loras)} LoRA"] if len(loras) > 1 or not configs else []
    if len(loras) != 1 or others:
        raise _beyond(reasons, what)
    return loras[0]


def encode(adapter: Adapter, names: Naming, what: Means) -> Updates:
    """Return the updates of an adapter, by the file's module paths.

    Raises:
        UnsupportedError: the format has no word for something of it, with every reason.
        FormatError: the adapter's tensors are not those of its configuration.
    """
    config = only_lora(adapter.config, what)
    layout = layout_of(adapter, names.row)
    found = chosen(config.targets, layout, leave_out=config.leave_out)
    reasons = _reasons(config, found, what)
    if reasons:
        raise _beyond(reasons, what)
    mine = {key: adapter.tensors[key] for key in shapes((config,), layout)}
    split = what.parts and any(target.parts for target in found)
    tensors = mine if split else lora.write(config, mine, layout)
    places = {key: Place(names.theirs(key.rpartition(".")[0]), key.rpartition(".")[2]) for key in tensors}
    return Updates(
        tensors={places[key]: tensor for key, tensor in tensors.items()},
        alphas={names.theirs(target.path): _alpha(config, target, what, split=split) for target in found},
        dropout=config.dropout,
        magnitude=config.magnitude,
        rank_stabilised=config.rank_stabilised and what.stable,
        words=config.targets if split else (),
        every=not config.leave_out and not any("." in word for word in config.targets),
    )


def layout_of(adapter: Adapter, row: Architecture) -> Layout:
    """Return the smallest layout that an adapter can stand in.

    Raises:
        FormatError: its tensors are not those of its configuration.
    """
    faults = accounting.faults(adapter.config, adapter.tensors, row)
    if faults:
        raise FormatError(f"adapter {adapter.manifest.name!r} is not whole", faults=faults)
    return accounting.layout(adapter.config, {key: tuple(t.shape) for key, t in adapter.tensors.items()}, row)


def _alpha(config: LoraConfig, target: Target, what: Means, *, split: bool) -> float:
    """Return the number that divided by the rank of what is written, or by its root, gives the scale."""
    parts = 1 if split else max(1, len(target.parts))
    if config.rank_stabilised and not what.stable:
        return config.scale(target.linear) * config.rank(target.linear) * parts
    return config.alpha_at(target.linear) * (math.sqrt(parts) if config.rank_stabilised else parts)


def _reasons(config: LoraConfig, found: Sequence[Target], what: Means) -> list[str]:
    """Return what the format has no word for, one phrase each."""
    reasons = lora.beyond(config, _NOWHERE)
    reasons += ["it is a DoRA"] if config.magnitude == "dora" and not what.dora else []
    reasons += ["its updates have biases"] if config.update_bias and not what.biases else []
    kinds = {target.linear.kind for target in found}
    reasons += ["it adapts embeddings"] if "embedding" in kinds and not what.embeddings else []
    reasons += ["it adapts convolutions"] if "convolution" in kinds and not what.convolutions else []
    return reasons


_NOWHERE = Layout(architecture="", layers=0, width=0, sites=(), norms=())


def _beyond(reasons: Sequence[str], what: Means) -> UnsupportedError:
    return UnsupportedError(f"{what.library} cannot say this adapter: {'; '.join(reasons)}", hint=NATIVE)


def one_scale(found: Updates, what: Means) -> float:
    """Return the scale that all maps have.

    Raises:
        UnsupportedError: they have several.
    """
    scales = sorted({alpha / ranks_of(found)[path] for path, alpha in found.alphas.items()})
    if len(scales) != 1:
        some = ", ".join(f"{scale:g}" for scale in scales[:3])
        raise _beyond([f"its maps have {len(scales)} scales ({some}), and a file has one"], what)
    return scales[0]


def ranks_of(found: Updates) -> dict[str, int]:
    """Return module path → rank of what is written there."""
    return {path: tensor.shape[0] for (path, leaf), tensor in found.tensors.items() if leaf.endswith("_A")}


def padded(found: Updates) -> Updates:
    """Return updates of one rank that compute the same: rows and columns of zeros are put to the smaller ones."""
    ranks = ranks_of(found)
    most = max(ranks.values())
    tensors = {place: _padded(place.leaf, tensor, most) for place, tensor in found.tensors.items()}
    alphas = {
        path: alpha if ranks[path] == most else alpha / ranks[path] * most for path, alpha in found.alphas.items()
    }
    return dataclasses.replace(found, tensors=tensors, alphas=alphas)


def _padded(leaf: str, tensor: Tensor, r: int) -> Tensor:
    from torch import cat

    dimension = {"A": 0, "B": 1}.get(leaf[-1])
    if dimension is None or tensor.shape[dimension] == r:
        return tensor
    shape = list(tensor.shape)
    shape[dimension] = r - shape[dimension]
    return cat([tensor, tensor.new_zeros(shape)], dim=dimension)


def narrowed(config: LoraConfig, adapter: Adapter, row: Architecture) -> Tensors:
    """Return the tensors of an adapter as another configuration of the same meaning has them.

    Parts of joint maps are cut out of whole maps, and what was padded is cut off; whether nothing was lost is for the
    caller to see.
    """
    tensors = dict(adapter.tensors)
    layout = layout_of(adapter, row)
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        r = config.rank(target.linear) * max(1, len(target.parts))
        for leaf, dimension in (("A", 0), ("B", 1)):
            for key in (f"{target.path}.lora_{leaf}", f"{target.path}.lora_embedding_{leaf}"):
                if key in tensors and tensors[key].shape[dimension] > r:
                    tensors[key] = tensors[key].narrow(dimension, 0, r).contiguous()
    return lora.narrowed(config, tensors, layout)


def ordered_words(words: Collection[str]) -> tuple[str, ...]:
    """Return words of methods/targets.py, projections in their order and in front of paths."""
    roles = tuple(role for role in PROJECTIONS if role in words)
    return (*roles, *targets.ordered(word for word in words if word not in roles))


@dataclass(slots=True)
class Sorting:
    """Tensors of a file while they are sorted by what they are.

    Attributes:
        tensors: as in Updates.
        faults: what is wrong with the keys, one sentence each.
    """

    tensors: dict[Place, Tensor] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def put(self, key: str, place: Place, tensor: Tensor) -> None:
        """Take a tensor."""
        if place in self.tensors:
            self.faults.append(f"key {key!r} repeats another tensor of {place.path}")
        self.tensors[place] = tensor

    def done(self, what: str) -> dict[Place, Tensor]:
        """Return the tensors.

        Raises:
            FormatError: a key is none of the format; names every fault.
        """
        if self.faults:
            raise FormatError(f"{what} has keys that are none", faults=accounting.shown(self.faults), hint=AGAIN)
        return self.tensors
