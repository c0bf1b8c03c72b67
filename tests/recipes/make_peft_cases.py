"""Make tests/data/peft-cases.tar.gz: adapters of PEFT, as that library writes and computes them.

    python make_peft_cases.py make [ARCHIVE]    needs peft 0.21.2 and transformers 5.23
    python make_peft_cases.py fields [FILE]     writes converters/peft/fields.json: every type's fields and defaults

Every number is drawn from a seed that is made of the case's name. Weights are multiples of 1/256: exact, and they pack
well. A case is what PEFT gives after the adapter was saved and loaded again onto a fresh base.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from make_bottleneck_cases import pack
from peft_options import BASES, LORAS, OTHERS, Row
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent.parent
ARCHIVE = ROOT / "tests" / "data" / "peft-cases.tar.gz"
FIELDS = ROOT / "converters" / "peft" / "fields.json"
TEXT = {"input_ids": [[39, 26, 46, 55, 28, 5], [36, 96, 28, 7, 1, 1]], "attention_mask": [[1] * 6, [1, 1, 1, 1, 0, 0]]}
LEAST_EFFECT = 1e-2


def generator(name: str) -> torch.Generator:
    """Return a generator whose seed is made of a name."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Return values as multiples of 1/256."""
    return torch.round(values * 256) / 256


def make_bases(root: Path) -> None:
    """Save every base with weights under which each part of it matters."""
    for name, (kind, config, arguments) in BASES.items():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(getattr(transformers, config)(**arguments)).eval()
        gen = generator(f"base {name}")
        for key, parameter in model.named_parameters():
            norm = "norm" in key.lower() or key.split(".")[-2].startswith("ln_")
            mean, width = (1.0, 0.2) if norm and key.endswith("weight") else (0.0, 0.1 if "bias" in key else 0.2)
            parameter.data = rounded(torch.randn(parameter.shape, generator=gen) * width + mean)
        model.save_pretrained(root / "bases" / name)


def load_base(root: Path, name: str) -> Any:
    """Return a fresh base model."""
    return getattr(transformers, BASES[name][0]).from_pretrained(root / "bases" / name).eval()


def inputs_of(name: str) -> dict[str, Any]:
    """Return the model inputs for a base, as JSON values."""
    if name.startswith("vit"):
        pixels = rounded(torch.randn((2, 3, 8, 8), generator=generator("pixels")))
        return {"pixel_values": pixels.tolist()}
    return TEXT | ({"decoder_input_ids": [[1, 44, 8], [1, 61, 9]]} if name == "t5" else {})


def tensors_of(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the inputs as tensors."""
    return {key: torch.tensor(value) for key, value in inputs.items()}


def key_of(name: str) -> str:
    """Return which output is compared."""
    return (
        "last_hidden_state"
        if BASES[name][0].endswith("Model") and "LMHead" not in BASES[name][0]
        else ("start_logits" if "Question" in BASES[name][0] else "logits")
    )


def fill(model: Any, name: str) -> None:
    """Move everything that the adapter trains by a draw from a normal distribution."""
    gen = generator(f"adapter {name}")
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            width = 0.05 if "oft_R" in key or "boft_R" in key else 0.25
            moved = parameter.data + torch.randn(parameter.shape, generator=gen) * width
            parameter.data.copy_(rounded(moved))  # in place: PEFT lets some parameters share their memory


@torch.no_grad()
def make_case(root: Path, row: Row) -> str:
    """Make one case and return what is to be told of it, "" if nothing."""
    name, base, kind, arguments = row
    identity = f"{base}-{'lora-' if kind == 'LoraConfig' else ''}{name}".replace("_", "-")
    torch.manual_seed(1)
    model = load_base(root, base)
    inputs, key = inputs_of(base), key_of(base)
    before = model(**tensors_of(inputs))[key]
    wrapped = peft.get_peft_model(model, getattr(peft, kind)(**arguments))
    fill(wrapped, identity)
    wrapped.eval()
    own = wrapped(**tensors_of(inputs))[key]
    folder = root / identity
    wrapped.peft_config["default"].base_model_name_or_path = None
    wrapped.save_pretrained(folder / "adapters" / "default")
    (folder / "adapters" / "default" / "README.md").unlink()
    again = peft.PeftModel.from_pretrained(load_base(root, base), folder / "adapters" / "default").eval()
    after = again(**tensors_of(inputs))[key]
    effect = float((after[:, -before.shape[1] :] - before).norm() / before.norm())
    case = {
        "id": identity,
        "group": "D",
        "kind": "peft-loader",
        "arch": base.partition("_")[0],
        "base": f"../bases/{base}",
        "base_class": BASES[base][0],
        "method": json.loads((folder / "adapters/default/adapter_config.json").read_text())["peft_type"],
        "adapters": [{"name": "default", "path": "adapters/default"}],
        "active": "default",
        "output_key": key,
        "inputs": inputs,
        "tolerance": {"atol": 5e-5, "rtol": 5e-5},
        "checks": {"effect": effect, "reload_difference": float((own - after).abs().max())},
    }
    (folder / "case.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n")
    save_file({"base_output": before.contiguous(), "output": after.contiguous()}, folder / "expected.safetensors")
    told = [] if effect > LEAST_EFFECT else [f"effect only {effect:.1e}"]
    told += (
        []
        if case["checks"]["reload_difference"] < 1e-5
        else [f"reload differs {case['checks']['reload_difference']:.1e}"]
    )
    return "; ".join(told)


def make(archive: Path) -> None:
    """Make all cases and pack them."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_bases(root)
        for row in (*LORAS, *OTHERS):
            told = make_case(root, row)
            if told:
                print(row[1], row[0], row[2], told, flush=True)
        pack(root, archive, "peft-cases")
    print(archive, archive.stat().st_size)


def default(field: dataclasses.Field[Any]) -> Any:
    """Return the JSON value of a field that nothing is said about."""
    factory: Any = field.default_factory
    made = factory is not dataclasses.MISSING
    value = factory() if made else None if field.default is dataclasses.MISSING else field.default
    return value.value if isinstance(value, enum.Enum) else value


def fields(target: Path) -> None:
    """Write the fields of every type's configuration with the values that they have when nothing is said."""
    found = {}
    for kind, config in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items():
        values = {f.name: default(f) for f in dataclasses.fields(config) if f.init and f.name != "runtime_config"}
        found[kind.value] = values | {"peft_type": kind.value}
    target.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    work, place = {"make": (make, ARCHIVE), "fields": (fields, FIELDS)}[sys.argv[1]]
    work(Path(sys.argv[2]) if len(sys.argv) > 2 else place)
