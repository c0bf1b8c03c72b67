"""(IA)³ in files of PEFT: a vector for the output of each map, or for the input of one of `feedforward_modules`.

A vector of outputs has the shape (outputs, 1), one of inputs (1, inputs). Of a map that computes query, key and value
side by side PEFT knows only the whole; the parts that we do not scale are written as ones.

Source: PEFT 0.21.2, tuners/ia3 (config.py, model.py, layer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...errors import UnsupportedError, UsageError
from ...methods import IA3Config
from ...methods.config import config_from_json
from ...methods.ia3 import places as maps
from ...sites import Layout
from .codec import Codec, Fields, Places

if TYPE_CHECKING:
    import torch

LEAF = "ia3_l"


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the scaling that a configuration and its places describe.

    Raises:
        UsageError: a vector stands where `feedforward_modules` says another one, or is none.
        UnsupportedError: a vector is one of a convolution.
    """
    shapes = {path: places.shape(path, LEAF) for path in places.theirs}
    odd = [path for path, shape in shapes.items() if len(shape) != 2]
    if odd:
        raise UnsupportedError(f"the (IA)³ adapter of PEFT scales {odd[0]}, which is no linear map")
    matrices = [path for path, shape in shapes.items() if 1 not in shape]
    if matrices:
        raise UsageError(f"the vector at {matrices[0]} is a matrix {shapes[matrices[0]]}")
    inputs = [path for path, shape in shapes.items() if shape[0] == 1 and shape[1] > 1]
    wanted = fields["feedforward_modules"]
    if isinstance(wanted, list):
        # PEFT compares the ends of names and not of words: `attention.value` means `crossattention.value` too.
        said = [path for path, theirs in places.theirs.items() if theirs.endswith(tuple(map(str, wanted)))]
        differ = sorted(set(said) ^ set(inputs))
        if differ:
            raise UsageError(f"feedforward_modules and the shape of its vector disagree about {differ[0]}")
    outputs = [path for path in places.theirs if path not in inputs]
    return config_from_json(
        IA3Config,
        {
            "method": IA3Config.method,
            "targets": list(places.words(outputs)) if outputs else [],
            "inputs": list(places.words(inputs)) if inputs else [],
        },
    )


def beyond(config: IA3Config, layout: Layout) -> list[str]:
    """Return why PEFT cannot say this (IA)³."""
    reasons = ["its vectors have gates, which depend on the input"] if config.gating else []
    outputs, inputs = ({target.path for target in part} for part in maps(config, layout))
    return reasons + [f"it scales both input and output of {path}" for path in sorted(outputs & inputs)[:1]]


def encode(config: IA3Config, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of an (IA)³."""
    inputs = [path for path in places.theirs if places.shape(path, LEAF)[0] == 1 and places.shape(path, LEAF)[1] > 1]
    return {"feedforward_modules": sorted(places.theirs[path] for path in inputs)}


def read(config: IA3Config, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return vectors by what they scale."""
    found = {}
    for key, tensor in tensors.items():
        inputs = tensor.shape[0] == 1 and tensor.shape[1] > 1
        found[key.removesuffix(LEAF) + ("ia3_inputs" if inputs else "ia3_outputs")] = tensor.reshape(-1)
    return found


def write(config: IA3Config, tensors: dict[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    """Return vectors as the file has them: rows or columns, of whole maps, factors multiplied in."""
    outputs, inputs = maps(config, layout)
    found = {}
    for target in outputs:
        vector = tensors[f"{target.path}.ia3_outputs"]
        factor = config.factor(target.linear)
        vector = vector if factor == 1 else vector * factor
        if target.parts:
            whole = vector.new_full((target.linear.outputs,), config.rest)
            for place, part in zip(target.parts, vector.chunk(len(target.parts)), strict=True):
                whole[place * target.part_size : (place + 1) * target.part_size] = part
            vector = whole
        found[f"{target.path}.{LEAF}"] = vector.unsqueeze(1)
    return found | {f"{one.path}.{LEAF}": tensors[f"{one.path}.ia3_inputs"].unsqueeze(0) for one in inputs}


def narrowed(config: IA3Config, tensors: dict[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    """Return vectors of whole maps as those of the parts that the configuration names."""
    found = dict(tensors)
    for target in maps(config, layout)[0]:
        key = f"{target.path}.ia3_outputs"
        if target.parts and key in found:
            import torch

            blocks = found[key].split(target.part_size)
            found[key] = torch.cat([blocks[place] for place in target.parts])
    return found


CODEC = Codec(
    type="IA3",
    config=IA3Config,
    leaves={LEAF: LEAF},
    meant=("feedforward_modules",),
    idle=("init_ia3_weights", "fan_in_fan_out"),
    beyond=beyond,
    decode=decode,
    encode=encode,
    read=read,
    write=write,
    narrowed=narrowed,
)
