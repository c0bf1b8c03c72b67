"""Make tests/data/merge-cases.tar.gz: adapters, and what `adapters` and PEFT made of several of them.

    python make_merge_cases.py adapters FOLDER         needs adapters 1.3.0 and transformers 4.57.6, a minute
    python make_merge_cases.py peft FOLDER             needs PEFT 0.21.2 and transformers 5, behind the first
    python make_merge_cases.py pack FOLDER [ARCHIVE]

Each case has the files of the parents as the library wrote them, and the outputs with what it made of them. Weights are
multiples of 1/256, exact and well packed, but for those of PEFT's LoRAs.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from families import FAMILIES, batch, make
from make_bottleneck_cases import pack
from reference_models import LEAST_EFFECT, TOLERANCE, fill, fill_base, generator

ARCHIVE = Path(__file__).parent.parent / "data" / "merge-cases.tar.gz"
WEIGHTS: dict[str, dict[str, Any]] = {
    "equal": {},
    "two-one": {"weights": [2.0, 1.0]},
    "minus": {"weights": [1.0, -0.6], "normalize_weights": False},
}
LORA: dict[str, dict[str, dict[str, Any]]] = {
    "linear": WEIGHTS,
    "lora_linear_only_negate_b": WEIGHTS,
    "lora_delta_w_svd": {
        "equal-2": {"svd_rank": 2},
        "two-one-4": {"weights": [2.0, 1.0], "svd_rank": 4},
        "minus-7": {"weights": [1.0, -0.6], "normalize_weights": False, "svd_rank": 7},
    },
}
"""Combine strategy → name of a case → arguments of average_adapter."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A method of `adapters`, and with which strategies it is averaged."""

    preset: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    strategies: tuple[str, ...] = ("linear",)
    parents: int = 2


ALL = tuple(LORA)
WAYS: dict[str, Way] = {
    "lora": Way("lora", {"r": 4, "alpha": 6}, ALL),
    "lora-three": Way("lora", {"r": 2, "alpha": 2}, ALL, parents=3),
    "lora-wide": Way("lora", {"r": 3, "alpha": 1, "attn_matrices": ["q", "k", "v"], "intermediate_lora": True}, ALL),
    "lora-left-out": Way("lora", {"r": 3, "leave_out": [0], "output_lora": True}, ALL),
    "lora-gated": Way("lora", {"r": 3, "use_gating": True}),
    "lora-scale": Way("ia3", {}),
    "ia3-gated": Way("ia3", {"use_gating": True}),
    "dora": Way("dora", {"r": 3, "alpha": 5}),
    "vera": Way("vera", {"r": 3}),
    "seq_bn": Way("seq_bn", {"reduction_factor": 8}),
    "double": Way("double_seq_bn", {"reduction_factor": 8, "ln_after": True}),
    "par-scaled": Way("par_bn", {"reduction_factor": 8, "scaling": "learned"}),
    "compacter": Way("compacter", {"reduction_factor": 4, "phm_dim": 4}),
    "invertible": Way("seq_bn_inv", {"reduction_factor": 8}),
    "prefix": Way("prefix_tuning", {"prefix_length": 3, "bottleneck_size": 8}),
    "prefix-flat": Way("prefix_tuning_flat", {"prefix_length": 3}),
    "mam": Way("mam", {}),
    "reft": Way("noreft", {"r": 2}),
}
ELSEWHERE = ("lora", "lora-wide", "seq_bn")
BASES = ("bert", "roberta", "distilbert", "gpt2", "t5", "llama")

PEFT_TYPES: dict[str, dict[str, Any]] = {
    "linear": {},
    "cat": {},
    "svd": {"svd_rank": 3},
    "svd-full": {"combination_type": "svd"},
    "ties": {"density": 0.5},
    "ties-frequency": {"combination_type": "ties", "density": 0.5, "majority_sign_method": "frequency"},
    "ties_svd": {"density": 0.4, "svd_rank": 4},
    "dare_linear": {"density": 0.6, "seed": 5},
    "dare_linear_svd": {"density": 0.6, "seed": 6},
    "dare_ties": {"density": 0.6, "seed": 7},
    "dare_ties_svd": {"density": 0.6, "seed": 8, "svd_rank": 2},
    "magnitude_prune": {"density": 0.5},
    "magnitude_prune_svd": {"density": 0.5, "svd_rank": 5},
}
PARENTS: dict[str, tuple[list[dict[str, Any]], list[float]]] = {
    "same": ([{"r": 3, "lora_alpha": 6}, {"r": 3, "lora_alpha": 2}], [0.7, 0.4]),
    "minus": ([{"r": 3, "lora_alpha": 3}, {"r": 3, "lora_alpha": 3}], [1.0, -0.5]),
    "three": ([{"r": 2, "lora_alpha": alpha} for alpha in (1, 2, 4)], [0.5, 0.3, 0.9]),
    "ranks": ([{"r": 2, "lora_alpha": 4}, {"r": 5, "lora_alpha": 3}], [0.7, 0.4]),
}
PEFT_BASES = {"bert": ["query", "dense"], "gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "down_proj"]}


def base_of(root: Path, name: str) -> Any:
    """Return a base model; it is made when it is first asked for."""
    import transformers

    folder = root / "bases" / name
    if not folder.exists():
        model = make(name)
        fill_base(model, f"merge {name}")
        model.save_pretrained(folder)
    model = getattr(transformers, FAMILIES[name].model).from_pretrained(folder)
    model.config.name_or_path = f"bases/{name}"
    return model.eval()


def answer(model: Any, given: dict[str, Any]) -> Any:
    """Return the last hidden state for two texts, the second of them padded."""
    import torch

    with torch.no_grad():
        found = model(**given)
    return found["last_hidden_state"].contiguous()


def keep(folder: Path, fields: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Write case.json and what was computed."""
    from safetensors.torch import save_file

    plain = outputs["base_output"]
    for key, one in outputs.items():
        effect = float((one - plain).norm() / plain.norm())
        assert key == "base_output" or effect > LEAST_EFFECT, (folder.name, key, effect)
    save_file(outputs, folder / "expected.safetensors")
    document = {"id": folder.name, "output_key": "last_hidden_state", **fields}
    (folder / "case.json").write_text(json.dumps(document, sort_keys=True) + "\n")
    print(folder.name, *outputs)


def common(base: str, names: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that all cases have."""
    return {
        "base": f"../bases/{base}",
        "base_class": FAMILIES[base].model,
        "adapters": [{"name": one, "path": one} for one in names],
        "inputs": {key: tensor.tolist() for key, tensor in given.items()},
        "tolerance": TOLERANCE,
    }


def with_adapters(root: Path, base: str, way: Way, name: str) -> Any:
    """Return a model of `adapters` with the parents."""
    import adapters
    from adapters import AdapterConfig

    model = base_of(root, base)
    adapters.init(model)
    for number in range(way.parents):
        model.add_adapter(f"p{number}", config=AdapterConfig.load(way.preset, **way.options))
    gen = generator(f"merge {name}")
    for key, parameter in model.named_parameters():
        if any(f".p{number}." in f".{key}." for number in range(way.parents)):
            about_one = key.endswith((".scaling", ".m")) or (way.preset == "ia3" and "lora_B" in key)
            fill(parameter, gen, 0.25, 1.0 if about_one else 0.0)
    return model.eval()


def alone(root: Path, base: str, way: Way, name: str, model: Any) -> Any:
    """Return a model that saves one of the parents whole: what layers share is saved from a class with heads alone."""
    import adapters
    from adapters import AdapterConfig

    if way.preset not in ("compacter", "vera"):
        return model
    found = adapters.BertAdapterModel.from_pretrained(root / "bases" / base)
    found.config.name_or_path = f"bases/{base}"
    found.add_adapter(name, config=AdapterConfig.load(way.preset, **way.options))
    own = {f"bert.{key}": tensor for key, tensor in model.state_dict().items()}
    found.load_state_dict({key: tensor for key, tensor in own.items() if key in found.state_dict()}, strict=False)
    return found


def of_adapters(root: Path) -> None:
    """Make the cases of `adapters`."""
    for base in BASES:
        for called, way in WAYS.items():
            if base == "bert" or called in ELSEWHERE:
                average(root, base, called, way)


def average(root: Path, base: str, called: str, way: Way) -> None:
    """Make the case of one method: all of its averages."""
    name = f"adapters-{base}-{called}"
    folder = root / name
    folder.mkdir()
    names = [f"p{number}" for number in range(way.parents)]
    model = with_adapters(root, base, way, name)
    given, asked = batch(base_of(root, base)), {}
    outputs = {"base_output": answer(base_of(root, base), given)}
    for one in names:
        shares = way.preset == "mam" or way.preset.startswith("prefix")  # which safetensors refuses
        alone(root, base, way, one, model).save_adapter(str(folder / one), one, use_safetensors=not shares)
    for strategy in way.strategies:
        if base == "gpt2" and strategy == "lora_delta_w_svd":
            continue  # the library refuses it for this family
        for key, arguments in LORA[strategy].items():
            more = dict(arguments)
            if way.parents == 3 and "weights" in more:
                more["weights"] = [*more["weights"], 0.4]
            title = f"{strategy}-{key}"
            model.average_adapter(title, names, combine_strategy=strategy, **more)
            model.set_active_adapters(title)
            outputs[f"output_{title}"] = answer(model, given)
            asked[title] = {"combine_strategy": strategy, **more}
    fields = common(base, names, given)
    keep(folder, {"kind": "average_adapter", "averages": asked, **fields}, outputs)


def of_peft(root: Path) -> None:
    """Make the cases of PEFT."""
    for base, targets in PEFT_BASES.items():
        for called, (options, weights) in PARENTS.items():
            weighted(root, base, targets, called, options, weights)


def weighted(
    root: Path, base: str, targets: list[str], called: str, options: list[dict[str, Any]], weights: list[float]
) -> None:
    """Make the case of several LoRAs: all types of add_weighted_adapter that take them."""
    import torch
    from peft import LoraConfig, get_peft_model

    name = f"peft-{base}-{called}"
    folder, names = root / name, [f"p{number}" for number in range(len(options))]
    wrapped: Any = None
    for one, own in zip(names, options, strict=True):
        config = LoraConfig(target_modules=targets, fan_in_fan_out=base == "gpt2", **own)
        if wrapped is None:
            wrapped = get_peft_model(base_of(root, base), config, adapter_name=one)
        else:
            wrapped.add_adapter(one, config)
    gen = generator(f"merge {name}")
    for key, parameter in wrapped.named_parameters():
        if "lora_" in key:
            # Not rounded: where sums of entries cancel, their sign is that of the rounding.
            parameter.data.copy_(torch.randn(parameter.shape, generator=gen) * 0.25)
    wrapped.eval().save_pretrained(folder)
    given, asked = batch(base_of(root, base)), {}
    outputs = {"base_output": answer(base_of(root, base), given)}
    for title, arguments in PEFT_TYPES.items():
        kind = arguments.get("combination_type", title)
        sums = kind in ("cat", "svd") or kind.endswith("_svd")
        if called == "ranks" and not sums:
            continue  # PEFT refuses it
        more = {key: value for key, value in arguments.items() if key not in ("combination_type", "seed")}
        torch.manual_seed(arguments.get("seed", 0))
        wrapped.add_weighted_adapter(names, weights, title, combination_type=kind, **more)
        wrapped.set_adapter(title)
        outputs[f"output_{title}"] = answer(wrapped, given)
        asked[title] = {"adapters": names, "combination_type": kind, "weights": weights, **more}
        asked[title] |= {"seed": arguments["seed"]} if "seed" in arguments else {}
    fields = common(base, names, given)
    keep(folder, {"kind": "peft-multi", "weighted": asked, **fields}, outputs)
    for path in folder.rglob("README.md"):
        path.unlink()  # nothing that differs from run to run


def main(part: str, folder: Path, archive: Path) -> None:
    """Make one part of the cases, or pack them all."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    folder.mkdir(exist_ok=True)
    if part == "pack":
        pack(folder, archive, "merge-cases")
        print(archive, archive.stat().st_size)
        return
    for path in folder.glob(f"{part}-*"):
        shutil.rmtree(path)
    {"adapters": of_adapters, "peft": of_peft}[part](folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else ARCHIVE)
