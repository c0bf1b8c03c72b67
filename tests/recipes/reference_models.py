"""The bases, their weights and those of the adapters, and running them in the reference library."""

from __future__ import annotations

import hashlib
import random
import sys
import types
from pathlib import Path
from typing import Any

from bottleneck_options import MOODS, Options

# Narrow: erf and tanh gelu differ by 2e-4 to 2e-3 here, two builds of torch by about 1e-6.
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}
LEAST_EFFECT = 1e-2  # relative: below it a case could pass with the adapter left out
LARGEST_OUTPUT = 50.0  # above it, rounding alone could exceed the tolerance
PADDED = {"input_ids": [[39, 26, 46, 55, 44], [36, 96, 28, 1, 1]], "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]}
UNPADDED = {"input_ids": [[68, 10, 73, 5]]}
# What the library raises for options it accepts but cannot run.
CRASHES = (UnboundLocalError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, ZeroDivisionError)

BERT_SIZES: Options = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ARCHITECTURES: dict[str, tuple[str, Options]] = {
    "bert": ("Bert", BERT_SIZES),
    "roberta": ("Roberta", BERT_SIZES),
    "distilbert": ("DistilBert", {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}),
}


def generator(name: str) -> Any:
    """Return a torch generator whose seed is made of a name."""
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))


def fill(parameter: Any, gen: Any, std: float, mean: float = 0.0) -> None:
    """Overwrite a parameter with normal values rounded to multiples of 1/256."""
    import torch

    values = torch.randn(parameter.shape, generator=gen) * std + mean
    parameter.data.copy_(torch.round(values * 256) / 256)


def fill_base(model: Any, name: str) -> None:
    """Give a base weights under which every part of it matters: norms that are not 1, attention that is not even."""
    gen = generator(f"base {name}")
    for key, parameter in model.named_parameters():
        norm = "norm" in key.lower()
        if norm and key.endswith("weight"):
            fill(parameter, gen, 0.2, 1.0)
        else:
            fill(parameter, gen, 0.15 if "bias" not in key else 0.1)


def is_ours(key: str) -> bool:
    """Return whether a parameter belongs to the adapter or to a head (flexible or static)."""
    return ".adapters.task." in key or key.startswith(("heads.task.", "classifier.", "pre_classifier."))


def fill_adapter(model: Any, name: str, wide: tuple[float, float] = (0.3, 0.6)) -> None:
    """Draw each tensor of adapter and head from a normal distribution of its own width; matrices within `wide`."""
    gen, widths = generator(f"adapter {name}"), random.Random(name)
    for key, parameter in model.named_parameters():
        if is_ours(key):
            about_one = key.endswith(".scaling") or ("norm" in key and key.endswith("weight"))
            std = widths.uniform(*wide) if parameter.dim() > 1 else widths.uniform(0.05, 0.6)
            fill(parameter, gen, std, 1.0 if about_one else 0.0)


def model_class(arch: str, kind: str) -> Any:
    """Return a class: kind is Model, ForSequenceClassification (transformers) or AdapterModel (adapters)."""
    name = ARCHITECTURES[arch][0] + kind
    if kind == "AdapterModel":
        import adapters

        return getattr(adapters, name)
    import transformers

    return getattr(transformers, name)


def make_base(root: Path, arch: str, name: str, kind: str, **changes: Any) -> None:
    """Save a randomly filled model under bases/."""
    layers = "n_layers" if arch == "distilbert" else "num_hidden_layers"
    config = dict(ARCHITECTURES[arch][1])
    config[layers] = changes.pop("layers", config[layers])
    cls = model_class(arch, kind)
    sizes = {"vocab_size": 100, "max_position_embeddings": 24, "pad_token_id": 1}
    model = cls(cls.config_class(**config, **sizes, **changes))
    fill_base(model, name)
    model.save_pretrained(root / "bases" / name)


def make_bases(root: Path) -> None:
    """Save the bases that the cases share."""
    for arch in ARCHITECTURES:
        make_base(root, arch, arch, "Model")
        make_base(root, arch, f"{arch}3", "Model", layers=3)
        moods = {"id2label": MOODS, "label2id": {v: k for k, v in MOODS.items()}}
        make_base(root, arch, f"{arch}_cls3", "ForSequenceClassification", **moods)
        make_base(root, arch, f"{arch}_cls1", "ForSequenceClassification", num_labels=1)


def load_base(root: Path, arch: str, name: str, kind: str = "Model") -> Any:
    """Return a base in eval mode; the path is not written into what it saves."""
    model = model_class(arch, kind).from_pretrained(root / "bases" / name)
    model.config.name_or_path = f"bases/{name}"
    return model.eval()


def with_adapters(root: Path, arch: str, name: str, kind: str = "Model") -> Any:
    """Return a base that can take adapters."""
    import adapters

    model = load_base(root, arch, name, kind)
    if kind != "AdapterModel":
        adapters.init(model)
    return model


def stand_in_for_torchvision() -> None:
    """Let `adapters` build stochastic depth without torchvision: in eval mode it is the identity."""
    import torch
    from adapters.methods import modeling

    class StochasticDepth(torch.nn.Module):
        def __init__(self, p: float, mode: str) -> None:
            super().__init__()

        def forward(self, x: Any) -> Any:
            assert not self.training
            return x

    module = types.ModuleType("torchvision.ops.stochastic_depth")
    module.__dict__["StochasticDepth"] = StochasticDepth
    names = ("torchvision", "torchvision.ops")
    sys.modules |= {n: types.ModuleType(n) for n in names} | {module.__name__: module}
    modeling.is_torchvision_available = lambda: True


def configuration(options: tuple[Options, ...]) -> Any:
    """Return a BnConfig, or the union of several."""
    from adapters import BnConfig, ConfigUnion

    configs = [BnConfig(**o) for o in options]
    return configs[0] if len(configs) == 1 else ConfigUnion(*configs)


def run(model: Any, key: str) -> dict[str, Any]:
    """Return the outputs for both inputs under "" and "_unpadded"."""
    import torch

    outputs = {}
    for suffix, inputs in (("", PADDED), ("_unpadded", UNPADDED)):
        with torch.no_grad():
            outputs[suffix] = model(**{k: torch.tensor(v) for k, v in inputs.items()})[key].contiguous()
    assert all(bool(torch.isfinite(v).all()) for v in outputs.values()), "output is not finite"
    return outputs


def relative(got: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the smaller of the two relative distances, |got - other| / |other|."""
    return min(float((got[k] - other[k]).norm() / other[k].norm()) for k in got)


def largest(got: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest absolute difference of two outputs."""
    return max(float((got[k] - other[k]).abs().max()) for k in got)


def within_tolerance(got: dict[str, Any], want: dict[str, Any]) -> bool:
    """Return whether a test with the tolerance of these cases would take one output for the other."""
    atol, rtol = TOLERANCE["atol"], TOLERANCE["rtol"]
    return all(bool(((got[k] - want[k]).abs() <= atol + rtol * want[k].abs()).all()) for k in got)
