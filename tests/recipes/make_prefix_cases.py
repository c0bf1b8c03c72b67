"""Make tests/data/prefix-cases.tar.gz: prefixes and prompts as the library `adapters` computes them.

    python make_prefix_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, a minute

README.md beside this file tells what is inside and why.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from make_bottleneck_cases import pack
from prefix_families import FAMILIES, Options, load_base, make_base, ran
from reference_models import fill, generator, largest, stand_in_for_torchvision

ARCHIVE = Path(__file__).parent.parent / "data" / "prefix-cases.tar.gz"
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}
LEAST_EFFECT = 1e-2

PREFIX: Options = {"architecture": "prefix_tuning", "prefix_length": 3, "bottleneck_size": 5}
FLAT = PREFIX | {"flat": True}
GATED = PREFIX | {"use_gating": True}
PROMPT: Options = {"architecture": "prompt_tuning", "prompt_length": 3}
BN: Options = {
    "mh_adapter": False,
    "output_adapter": True,
    "reduction_factor": 4,
    "non_linearity": "relu",
    "original_ln_before": True,
    "use_gating": True,
}
LORA: Options = {"architecture": "lora", "r": 2, "alpha": 3, "use_gating": True}
PARALLEL: Options = {
    "mh_adapter": False,
    "output_adapter": True,
    "is_parallel": True,
    "reduction_factor": 4,
    "non_linearity": "relu",
    "scaling": 4.0,
    "init_weights": "mam_adapter",
}

ON_BERT: dict[str, list[Options]] = {
    "relu": [PREFIX | {"non_linearity": "relu"}],
    "gelu": [PREFIX | {"non_linearity": "gelu"}],
    "dropout": [PREFIX | {"dropout": 0.3}],
    "seed": [PREFIX | {"init_weights_seed": 7}],
    "leave_out_first": [PREFIX | {"leave_out": [0]}],
    "leave_out_last": [FLAT | {"leave_out": [1]}],
    "gated_twice": [GATED | {"shared_gating": False}],
    "flat_gated_leave_out": [FLAT | {"use_gating": True, "leave_out": [0]}],
    "no_encoder_no_cross": [PREFIX | {"encoder_prefix": False, "cross_prefix": False}],
    "long": [FLAT | {"prefix_length": 9}],
    "prompt_after_bos": [PROMPT | {"combine": "prefix_after_bos"}],
    "prompt_text": [PROMPT | {"init_weights_seed": 3}],
    "mam": [PREFIX, PARALLEL],
    "unipelt": [GATED, BN, LORA],
    "prompt_and_bottleneck": [PROMPT, BN],
}
EVERYWHERE: dict[str, list[Options]] = {"mlp": [PREFIX], "flat": [FLAT], "gated": [GATED], "prompt": [PROMPT]}
APART: dict[str, list[Options]] = {
    "no_cross": [FLAT | {"cross_prefix": False}],
    "leave_out": [PREFIX | {"leave_out": [0]}],
}
ENCODER_DECODER: dict[str, list[Options]] = {
    "decoder_only": [PREFIX | {"encoder_prefix": False, "cross_prefix": False}],
    "no_cross": [FLAT | {"cross_prefix": False}],
    "leave_out_encoder": [PREFIX | {"leave_out": [0]}],
    "leave_out_decoder": [FLAT | {"leave_out": [3]}],
    "leave_out_both": [GATED | {"leave_out": [1, 2]}],
}
WITHOUT_PROMPT = [
    "bart",
    "clip",
    "encoder-decoder",
    "encoder-decoder-gpt2",
    "gpt2",
    "gptj",
    "llama",
    "mbart",
    "mistral",
    "mt5",
    "plbart",
    "t5",
    "whisper",
]
WITH_DECODER = ["bart", "mbart", "plbart", "t5", "mt5", "whisper"]


def configuration(members: list[Options]) -> Any:
    """Return the configuration of an adapter."""
    from adapters import AdapterConfig, BnConfig, ConfigUnion

    made = [AdapterConfig.load(m) if "architecture" in m else BnConfig(**m) for m in members]
    return made[0] if len(made) == 1 else ConfigUnion(*made)


def is_ours(key: str) -> bool:
    """Return whether a tensor belongs to the adapter; the copies of the pool are the same tensors."""
    return ".task." in key and ".pool." not in key


def fill_adapter(model: Any, name: str) -> None:
    """Draw the tensors of the adapter."""
    gen = generator(f"adapter {name}")
    for key, parameter in model.named_parameters():
        if is_ours(key):
            fill(parameter, gen, 0.5)


def prepared(root: Path, family: str) -> Any:
    """Return a base that can take adapters."""
    import adapters
    import torch

    model = load_base(root, family)
    adapters.init(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("in_proj.bias"):  # the library gives DeBERTa a random bias here, which it never saves
                parameter.zero_()
    return model


def adapted(root: Path, family: str, members: list[Options], name: str) -> Any:
    """Return a base with the adapter of a case, filled and active."""
    model = prepared(root, family)
    model.add_adapter("task", config=configuration(members))
    fill_adapter(model, name)
    model.set_active_adapters("task")
    return model.eval()


def reloaded(root: Path, family: str, name: str) -> Any:
    """Return a new base with the files of a case loaded and active."""
    model = prepared(root, family)
    info: dict[str, Any] = {}
    model.load_adapter(str(root / name / "adapters" / "task"), loading_info=info)
    assert not info["missing_keys"] + info["unexpected_keys"], info
    model.set_active_adapters("task")
    return model.eval()


def make_case(root: Path, family: str, name: str, members: list[Options]) -> None:
    """Make one case."""
    from safetensors.torch import save_file

    model = adapted(root, family, members, name)
    outputs = ran(family, model)
    folder = root / name / "adapters" / "task"
    folder.mkdir(parents=True)
    model.save_adapter(str(folder), "task", use_safetensors=False)
    again = reloaded(root, family, name)
    plain = ran(family, load_base(root, family))
    checks = {
        "rel_diff_vs_base": min(effect(outputs[key], plain[key]) for key in plain),
        "reload_max_abs_diff": largest(ran(family, again), outputs),
    }
    again.set_active_adapters(None)
    checks["inactive_vs_base_max_abs_diff"] = largest(ran(family, again), plain)
    assert checks["rel_diff_vs_base"] > LEAST_EFFECT, (name, checks)
    assert checks["reload_max_abs_diff"] == 0, (name, checks)
    assert checks["inactive_vs_base_max_abs_diff"] < 1e-6, (name, checks)
    tensors = {f"output{key}": t for key, t in outputs.items()} | {f"base_output{key}": t for key, t in plain.items()}
    tensors |= {key: FAMILIES[family].tensors({})[key] for key, _ in FAMILIES[family].floats}
    save_file(tensors, root / name / "expected.safetensors")
    write_case(root, family, name, checks)


def effect(output: Any, plain: Any) -> float:
    """Return the relative difference that the adapter makes to the positions that the base has too."""
    same = output[..., -plain.shape[-2] :, :]
    return float((same - plain).norm() / plain.norm())


def write_case(root: Path, family: str, name: str, checks: Options) -> None:
    """Write case.json."""
    from importlib.metadata import version

    case = {
        "id": name,
        "arch": family,
        "group": "A",
        "kind": "adapters-loader",
        "library": {key: version(key) for key in ("adapters", "torch", "transformers")},
        "base": f"../bases/{family}",
        "base_class": FAMILIES[family].cls,
        "attn_implementation": FAMILIES[family].attention,
        "adapters": [{"name": "task", "path": "adapters/task", "weights_format": "bin"}],
        "active": "task",
        "inputs": FAMILIES[family].inputs,
        "inputs_unpadded": FAMILIES[family].unpadded,
        "float_inputs": [key for key, _ in FAMILIES[family].floats],
        "output_key": FAMILIES[family].key,
        "tolerance": TOLERANCE,
        "checks": checks,
        "what": "load the files on the plain base, activate `active`: output_key equals `output` for `inputs`, and"
        " `output_unpadded` for `inputs_unpadded` if there are any; with none active it equals `base_output*`",
    }
    text = json.dumps(case, indent=1, sort_keys=True)
    (root / name / "case.json").write_text(text + "\n", encoding="utf-8")


def cases() -> list[tuple[str, str, list[Options]]]:
    """Return family, name and members of every case."""
    found = [("bert", f"a-bert-{name}", members) for name, members in ON_BERT.items()]
    for family in FAMILIES:
        wanted = {k: v for k, v in EVERYWHERE.items() if k != "prompt" or family not in WITHOUT_PROMPT}
        wanted |= ENCODER_DECODER if family in WITH_DECODER else {}
        wanted |= APART if FAMILIES[family].parts else {}
        found += [(family, f"a-{family}-{name}", members) for name, members in wanted.items()]
    return found


def main(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    stand_in_for_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for family in FAMILIES:
            make_base(root, family)
        for family, name, members in cases():
            make_case(root, family, name, members)
        pack(root, archive, "prefix-cases")
    print(f"{len(cases())} cases, {archive.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
