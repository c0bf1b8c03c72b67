"""What PEFT saves along with an adapter: modules that were trained in full, biases, rows of the word embeddings.

`modules_to_save` names modules, by the end of their path; their parameters stand in the file under their own paths, and
only the adapter's copy of the module has them. A bias that was trained along (`bias`), or the table of an embedding
that is adapted, is the base model's own parameter: it counts wherever the model uses it.

Source: PEFT 0.21.2, utils/other.py and tuners/tuners_utils.py (`_get_learnable_bias_state_dict`).
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...architectures.architecture import named
from ...errors import FormatError
from ...methods import HeadConfig, LayerNormConfig, ParametersConfig, TrainableTokensConfig, is_head
from ..values import octets
from . import heads
from .families import Naming, layers_of
from .targets import alike, ordered

if TYPE_CHECKING:
    import torch

TOKENS = "token_adapter.trainable_tokens_delta"
INSIDE = ".base_layer"
WITHOUT_EFFECT = {"original_module", "modules_to_save"}
"""Words in the path of a bias that `bias="all"` saves once more: of the saved copy, and of what that stands for."""

MOST_KEPT = 64 * 2**10
"""Bytes of tensors without effect that are kept."""


@dataclass(slots=True)
class Along:
    """What was saved along, decoded.

    Attributes:
        configs: our configurations of it.
        tensors: canonical key → tensor.
        unread: key → tensor that nothing reads.
        faults: what is wrong with it, one sentence each.
    """

    configs: list[MethodConfig] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    unread: dict[str, torch.Tensor] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def decode(
    saved: Mapping[str, torch.Tensor], document: Mapping[str, JSON], names: Naming, adapted: Collection[str]
) -> Along:
    """Return what tensors without a leaf of the method are.

    Args:
        saved: key behind `base_model.model.` → tensor.
        document: adapter_config.json.
        names: how module paths are written.
        adapted: modules that the method adapts, as the keys call them.
    """
    found = Along()
    copies: dict[str, torch.Tensor] = {}
    own: dict[str, torch.Tensor] = {}
    rows: dict[str, torch.Tensor] = {}
    for key, tensor in saved.items():
        module, _, leaf = key.rpartition(".")
        inside = module.removesuffix(INSIDE)
        if key.endswith(f".{TOKENS}"):
            rows[key.removesuffix(f".{TOKENS}")] = tensor
        elif WITHOUT_EFFECT & {*module.split(".")} and document.get("bias") == "all" and leaf == "bias":
            found.unread[key] = tensor
        elif inside != module and inside in adapted:
            own[_place(names, inside, leaf)] = tensor
        elif _covers(document.get("modules_to_save"), module) or _follows(document, names, module):
            copies[_place(names, module, leaf)] = tensor
        elif document.get("bias") == "all" and leaf == "bias":
            own[_place(names, module, leaf)] = tensor
        else:
            found.faults.append(f"tensor {key!r} belongs to nothing in adapter_config.json")
    found.faults += _absent(document, names, [key.rpartition(".")[0] for key in saved])
    biases = {path for path, dot, leaf in (key.rpartition(".") for key in own) if leaf == "bias"}
    every = document.get("bias") == "all"
    missing = [p for p in alike(names.row, biases) if p not in biases and (every or names.theirs(p) in adapted)]
    found.faults += [f"the file has the bias of {names.theirs(path)} in other layers only" for path in missing]
    _tokens(found, rows, document, names)
    _heads(found, copies, document, names)
    _norms(found, copies, names)
    _parameters(found, copies, own)
    return found


def unread_json(tensors: Mapping[str, torch.Tensor]) -> dict[str, JSON]:
    """Return small tensors as JSON values; unread_tensors(unread_json(t)) == t.

    Raises:
        FormatError: they are too large.
    """
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > MOST_KEPT:
        raise FormatError(
            f"the file has more than {MOST_KEPT} bytes of tensors that nothing reads: {', '.join(list(tensors)[:3])}",
            hint="save the adapter again without them",
        )
    return {key: [str(t.dtype).removeprefix("torch."), list(t.shape), _base64(t)] for key, t in tensors.items()}


def unread_tensors(value: JSON) -> dict[str, torch.Tensor]:
    """Return what unread_json made JSON of, {} where it is something else."""
    if not value:
        return {}
    import torch

    types = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
    found = {}
    try:
        for key, (dtype, shape, text) in value.items():
            data = bytearray(base64.b64decode(text, validate=True))
            found[key] = torch.frombuffer(data, dtype=types[dtype]).reshape(shape)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return {}
    return found


def _base64(tensor: torch.Tensor) -> str:
    return base64.b64encode(octets(tensor).numpy().tobytes()).decode()


def _place(names: Naming, module: str, leaf: str) -> str:
    return f"{names.ours(module)}.{leaf}"


def _covers(modules: JSON, path: str) -> bool:
    """Return whether a module, or one that it lies in, ends like one of modules_to_save."""
    words = path.split(".")
    around = [".".join(words[:end]) for end in range(1, len(words) + 1)]
    wanted = [module for module in modules if isinstance(module, str) and module] if isinstance(modules, list) else []
    return any(outer.endswith(module) for outer in around for module in wanted)


def _for_others(document: Mapping[str, JSON], named: list[str], row: Architecture) -> bool:
    """Return whether the classes that a document is for call their head otherwise: PEFT then saves nothing of it."""
    meant = [head for head in row.heads if heads.meant(head, document)]
    return bool(meant) and not any(_covers(named, path) for head in meant for path in head.linears)


def _absent(document: Mapping[str, JSON], names: Naming, modules: Collection[str]) -> list[str]:
    """Return a sentence for each module of modules_to_save that the family has and the file has no tensor of."""
    wanted = document.get("modules_to_save")
    named = [name for name in wanted if isinstance(name, str)] if isinstance(wanted, list) else []
    absent = [name for name in named if not any(_covers([name], module) for module in modules)]
    # PEFT adds `classifier` and `score` to the modules of a classifier, whichever it has.
    everything = len(absent) == len(named) and not _for_others(document, named, names.row)
    lost = absent if everything else [name for name in absent if name in _modules(names.row)]
    return [f"modules_to_save names {name}, the file has no tensor of it" for name in lost]


def _modules(row: Architecture) -> set[str]:
    """Return what modules are called that nobody names in modules_to_save unless the model has them."""
    tokens = {names.tokens.rpartition(".")[2] for names in row.embeddings if names.tokens}
    return (tokens if len(row.embeddings) == 1 else set()) | {"lm_head"}


def _follows(document: Mapping[str, JSON], names: Naming, module: str) -> bool:
    """Return whether a module was saved because its weight is that of the embeddings, which were."""
    return document.get("ensure_weight_tying") is True and module.partition(".")[0] in names.outer


def _tokens(found: Along, rows: Mapping[str, torch.Tensor], document: Mapping[str, JSON], names: Naming) -> None:
    """Take the rows of word embeddings."""
    said = document.get("trainable_token_indices")
    if not rows and not said:
        return
    tokens = {}
    for path, tensor in rows.items():
        key = next((key for key in said if path == key or path.endswith(key)), None) if isinstance(said, dict) else ""
        numbers = said.get(key) if isinstance(said, dict) else said
        if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
            found.faults.append(f"trainable_token_indices does not say which rows of {path} were trained")
            continue
        tokens[names.ours(path)] = tuple(numbers)
        found.tensors[f"{names.ours(path)}.trained_rows"] = tensor
    if not rows:
        found.faults.append("trainable_token_indices names tokens, the file has no rows of them")
    if tokens:
        found.configs.append(TrainableTokensConfig(tokens=tokens, keeps_bias=False))


def _heads(found: Along, copies: dict[str, torch.Tensor], document: Mapping[str, JSON], names: Naming) -> None:
    """Take the head out of the copies, if there is one."""
    head = heads.decode(document, copies, names.row)
    if head is not None:
        found.configs.append(head.config)
        found.tensors |= {ours: copies.pop(theirs) for theirs, ours in head.keys.items()}


def _norms(found: Along, copies: dict[str, torch.Tensor], names: Naming) -> None:
    """Take the norms that the family's row names out of the copies."""
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in copies))
    norms = [module for module in modules if is_norm(module, names) and f"{module}.weight" in copies]
    if norms:
        found.configs.append(LayerNormConfig(modules=tuple(ordered(norms))))
        mine = [key for key in copies if key.rpartition(".")[0] in norms]
        found.tensors |= {key: copies.pop(key) for key in mine}


def is_norm(module: str, names: Naming) -> bool:
    """Return whether the row names a module as a norm."""
    layer = layers_of(names.row, module)
    if layer is None:
        return any(named(norm, module) for norm in names.row.norms)
    stack, index = layer
    return module.removeprefix(f"{stack.layer(index)}.") in stack.norms


def _parameters(found: Along, copies: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Take what is left: parameters that stand in for the model's own."""
    both = sorted(copies.keys() & own.keys())
    found.faults += [f"the file has parameter {name} twice" for name in both]
    if copies or own:
        found.configs.append(ParametersConfig(names=tuple(ordered([*copies, *own])), tied=tuple(ordered(own))))
        found.tensors |= {**copies, **own}


@dataclass(slots=True)
class Written:
    """What is saved along, encoded.

    Attributes:
        tensors: key behind `base_model.model.` → tensor.
        fields: what adapter_config.json says of it.
        faults: what PEFT cannot say, one phrase each.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    fields: dict[str, JSON] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def encode(
    configs: Iterable[MethodConfig], tensors: Mapping[str, torch.Tensor], names: Naming, adapted: Collection[str]
) -> Written:
    """Return the tensors and fields of configurations beside a method; adapted: module paths of ours."""
    found = Written()
    modules: list[str] = []
    for config in configs:
        if isinstance(config, TrainableTokensConfig):
            indices = {names.theirs(path): list(rows) for path, rows in config.tokens.items()}
            found.fields["trainable_token_indices"] = indices
            found.tensors |= {f"{names.theirs(p)}.{TOKENS}": tensors[f"{p}.trained_rows"] for p in config.tokens}
        elif isinstance(config, LayerNormConfig):
            modules += _copied(
                [key for key in tensors if is_norm(key.rpartition(".")[0], names)], tensors, names, found
            )
        elif isinstance(config, ParametersConfig):
            _write_parameters(config, tensors, names, adapted, found, modules)
        elif is_head(config):
            _write_head(config, tensors, names, found, modules)
        else:
            found.faults.append(f"PEFT has no word for {config.method} beside another method")
    if modules:
        found.fields["modules_to_save"] = _outermost(dict.fromkeys(modules))
    return found


def _outermost(modules: Iterable[str]) -> list[str]:
    """Return modules without those that lie in another one.

    >>> _outermost(["cls.predictions", "cls.predictions.decoder", "pooler"])
    ['cls.predictions', 'pooler']
    """
    every = list(modules)
    return [module for module in every if not any(module.startswith(f"{other}.") for other in every)]


def _copied(keys: Iterable[str], tensors: Mapping[str, torch.Tensor], names: Naming, found: Written) -> list[str]:
    """Write parameters of modules that are saved in full, and return the modules."""
    modules = []
    for key in keys:
        module, _, leaf = key.rpartition(".")
        modules.append(names.theirs(module))
        found.tensors[f"{names.theirs(module)}.{leaf}"] = tensors[key]
    return modules


def _write_parameters(
    config: ParametersConfig,
    tensors: Mapping[str, torch.Tensor],
    names: Naming,
    adapted: Collection[str],
    found: Written,
    modules: list[str],
) -> None:
    copies = []
    for name in config.names:
        module, _, leaf = name.rpartition(".")
        if module in adapted and name in config.tied:
            found.tensors[f"{names.theirs(module)}{INSIDE}.{leaf}"] = tensors[name]
            if leaf == "bias":
                found.fields.setdefault("bias", "only")
        elif name in config.tied and leaf == "bias":
            found.tensors[f"{names.theirs(module)}.{leaf}"] = tensors[name]
            found.fields["bias"] = "all"
        elif module in adapted:
            found.faults.append(f"PEFT cannot keep {name} beside an adapter at the same module")
        elif name in config.tied:
            found.faults.append(f"PEFT cannot train {name} wherever the model uses it")
        else:
            copies.append(name)
    bare = [name for name in copies if not _with_others(name, copies)]
    found.faults += [f"PEFT saves modules as a whole, and {name} is only a part of one" for name in bare]
    modules += _copied(copies, tensors, names, found)


def _with_others(name: str, copies: Iterable[str]) -> bool:
    """Return whether a parameter is a weight, or its module or one inside that has other parameters."""
    module, _, leaf = name.rpartition(".")
    return leaf == "weight" or any(other.startswith(f"{module}.") for other in copies if other != name)


def _write_head(
    config: HeadConfig, tensors: Mapping[str, torch.Tensor], names: Naming, found: Written, modules: list[str]
) -> None:
    written = heads.encode(config, tensors, names.row)
    if written is None:
        found.faults.append(f"no class of {names.row.name} models has this {config.method}")
        return
    head, keys = written
    if heads.task_of(head) is None:
        found.fields["auto_mapping"] = heads.mapping(head, names.row)
    for ours, theirs in keys.items():
        if ours in tensors:
            found.tensors[theirs] = tensors[ours]
            modules.append(theirs.partition(".")[0])
