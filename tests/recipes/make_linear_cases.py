"""Make tests/data/linear-cases.tar.gz: LoRA, DoRA, (IA)³, VeRA and MTL-LoRA as the library `adapters` computes them.

    python make_linear_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, two minutes

The weights of the bases follow from their names (families.py), so that only adapters and outputs are kept.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from families import FAMILIES, batch, configuration, settle, values
from make_bottleneck_cases import pack_listed
from make_family_cases import MUTED, model_of, output, plain
from reference_models import CRASHES, LARGEST_OUTPUT, LEAST_EFFECT, relative, stand_in_for_torchvision

Options = dict[str, Any]

ARCHIVE = Path(__file__).parent.parent / "data" / "linear-cases.tar.gz"

LORA: Options = {"architecture": "lora", "r": 3, "alpha": 5}
ALL: Options = {"attn_matrices": ["q", "k", "v"], "intermediate_lora": True, "output_lora": True}
FORWARD: Options = {"selfattn_lora": False, "intermediate_lora": True, "output_lora": True}
IA3: Options = {**LORA, "r": 1, "alpha": 1, "composition_mode": "scale", "init_weights": "ia3"}
IA3_OF_PAPER: Options = IA3 | {"attn_matrices": ["k", "v"], "intermediate_lora": True}
DORA: Options = LORA | {"use_dora": True}
VERA: Options = LORA | {"vera_d": 0.1, "vera_b": 0.0, "init_weights": "vera"}
MTL: Options = LORA | {"architecture": "mtl_lora", "n_up_projection": 3, "weights_sharpness": 0.7}
GATED: Options = {"use_gating": True}
BN: Options = {
    "mh_adapter": False,
    "output_adapter": True,
    "reduction_factor": 16,
    "non_linearity": "relu",
    "original_ln_before": True,
}

OPTIONS: dict[str, list[Options]] = {
    "lora-q": [LORA | {"attn_matrices": ["q"]}],
    "lora-k": [LORA | {"attn_matrices": ["k"]}],
    "lora-vq": [LORA | {"attn_matrices": ["v", "q"]}],
    "lora-vkq": [LORA | {"attn_matrices": ["v", "k", "q"]}],
    "lora-qq": [LORA | {"attn_matrices": ["q", "q"]}],
    "lora-intermediate": [LORA | FORWARD | {"output_lora": False}],
    "lora-output": [LORA | FORWARD | {"intermediate_lora": False}],
    "lora-all-but-one-layer": [LORA | ALL | {"leave_out": [1]}],
    "lora-alpha-is-r": [LORA | {"r": 4, "alpha": 4}],
    "lora-small-alpha": [LORA | {"r": 4, "alpha": 1}],
    "lora-broken-alpha": [LORA | {"alpha": 2.5}],
    "lora-rank-1": [LORA | {"r": 1}],
    "lora-dropout": [LORA | {"dropout": 0.1}],
    "lora-bert-weights": [LORA | {"init_weights": "bert"}],
    "lora-seed": [LORA | {"init_weights_seed": 7}],
    "lora-dtype": [LORA | {"dtype": "float32"}],
    "lora-whole-vera-numbers": [LORA | {"vera_d": 1, "vera_b": 0}],
    "lora-gated": [LORA | GATED],
    "lora-gated-q": [LORA | GATED | {"attn_matrices": ["q"]}],
    "lora-gated-all": [LORA | ALL | GATED],
    "ia3": [IA3_OF_PAPER],
    "ia3-q": [IA3 | {"attn_matrices": ["q"]}],
    "ia3-all": [IA3 | ALL],
    "ia3-alpha": [IA3_OF_PAPER | {"alpha": 3}],
    "ia3-forward": [IA3 | FORWARD | {"alpha": 0.5}],
    "ia3-gated": [IA3_OF_PAPER | GATED],
    "ia3-gated-alpha": [IA3_OF_PAPER | GATED | {"alpha": 3}],
    "ia3-layers": [IA3_OF_PAPER | {"leave_out": [0]}],
    "dora-alpha-is-r": [DORA | {"alpha": 3}],
    "dora-all": [DORA | ALL],
    "dora-layers": [DORA | {"leave_out": [0]}],
    "vera": [VERA],
    "vera-k": [VERA | {"attn_matrices": ["k"], "vera_b": 0.5, "alpha": 3}],
    "vera-intermediate": [VERA | FORWARD | {"output_lora": False}],
    "vera-output": [VERA | FORWARD | {"intermediate_lora": False}],
    "vera-gated": [VERA | GATED],
    "vera-layers": [VERA | {"leave_out": [0], "dropout": 0.1, "init_weights_seed": 5}],
    "vera-bert-weights": [VERA | {"init_weights": "bert"}],
    "vera-all": [VERA | ALL],
    "dvora": [VERA | {"use_dora": True}],
    "mtl": [MTL],
    "mtl-one": [MTL | {"n_up_projection": 1, "weights_sharpness": 0.05}],
    "mtl-all": [MTL | ALL],
    "mtl-forward": [MTL | FORWARD],
    "mtl-gated": [MTL | GATED],
    "mtl-matrix": [MTL | {"task_specific_matrix_type": "linear"}],
    "union-bottleneck": [BN, LORA],
    "union-by-layer": [LORA | {"leave_out": [1]}, IA3_OF_PAPER | {"leave_out": [0]}],
    "union-by-place": [LORA, IA3 | FORWARD],
    "union-of-vera": [VERA, BN],
}
"""Cases of some families; the others have only those of EVERYWHERE."""

EVERYWHERE: dict[str, list[Options]] = {
    "lora": [LORA],
    "lora-all": [LORA | ALL],
    "lora-gated-forward": [LORA | FORWARD | GATED],
    "ia3-of-paper": [IA3_OF_PAPER],
    "ia3-all-alpha": [IA3 | ALL | {"alpha": 2}],
    "dora": [DORA],
    "dora-forward": [DORA | FORWARD],
    "vera-q": [VERA | {"attn_matrices": ["q"]}],
    "mtl-output": [MTL | FORWARD | {"intermediate_lora": False}],
    "layers": [LORA | ALL | {"leave_out": [1]}],
}
OLD: dict[str, list[Options]] = {
    "old-attention": [LORA | {"attn_matrices": ["q", "k"]}],
    "old-forward": [LORA | FORWARD],
    "old-gated": [LORA | GATED],
    "old-ia3-attention": [IA3 | {"alpha": 3}],
    "old-ia3-forward": [IA3 | FORWARD | {"alpha": 3}],
}
"""Files of release 1.0.1."""

WITH_OPTIONS = ("bert", "gpt2", "llama")
WITH_OLD = ("bert", "gpt2")
HEADS = {
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi": "PhiForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Classes with a head where the library has none of its own: without a head VeRA is not saved whole."""


def cases_of(family: str) -> dict[str, list[Options]]:
    """Return name → members of every case of a family."""
    return EVERYWHERE | (OPTIONS if family in WITH_OPTIONS else {}) | (OLD if family in WITH_OLD else {})


def adapted_model(family: str, members: list[Options], case: str) -> tuple[Any, Any]:
    """Return a model with adapters and the bare one in it; one that has a head, for VeRA and for some others."""
    vera = is_vera(members)
    if not vera or family not in HEADS:
        model, bare, _ = model_of(family, prefixed=vera or case.endswith("all"))
        return model, bare
    import adapters
    import transformers

    model = getattr(transformers, HEADS[family])(configuration(family))
    settle(model.model)
    adapters.init(model)
    return model.eval(), model.model


def is_vera(members: list[Options]) -> bool:
    """Return whether one of the members is VeRA."""
    return any(isinstance(member.get("vera_d"), float) for member in members)


def config_of(members: list[Options]) -> Any:
    """Return the configuration of an adapter."""
    from adapters import AdapterConfig, BnConfig, ConfigUnion

    made = [AdapterConfig.load(m) if "architecture" in m else BnConfig(**m) for m in members]
    return made[0] if len(made) == 1 else ConfigUnion(*made)


def fill(model: Any, case: str) -> None:
    """Give the adapter weights with an effect at every map."""
    import torch

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".task." in f".{key}":
                around_one = key.endswith(("m.weight", ".weights", "task_specific.values")) or parameter.shape[1:] == (
                    1,
                )
                wide = 0.2 if key.endswith("vera_B") else 0.5
                parameter.copy_(values(f"{case} {key}", parameter.shape, wide, 1.0 if around_one else 0.0))


def make_case(
    root: Path, family: str, case: str, members: list[Options], inputs: dict[str, Any]
) -> tuple[Any, Options]:
    """Save the adapter of one case; return the output and what is known of it."""
    model, bare = adapted_model(family, members, case)
    model.add_adapter("task", config=config_of(members))
    fill(model, f"{family} {case}")
    model.set_active_adapters("task")
    model.eval()  # what is added is in training mode
    found = output(bare, inputs)
    folder = root / f"{family}-{case}"
    safe = save(model, folder)
    if case.startswith("old-"):
        date_back(folder)
        if family != "gpt2" or case.endswith("forward"):  # 1.0.1 left alpha out; at merged projections it did not
            found = reloaded(family, members, case, folder, safe, inputs)
    else:
        again = reloaded(family, members, case, folder, safe, inputs)
        if is_vera(members) and float((again - found).abs().max()) > 0:
            raise ValueError("the shared matrices are not saved")
        assert float((again - found).abs().max()) == 0, (family, case)
    assert float(found.abs().max()) < LARGEST_OUTPUT, (family, case)
    return found, {"family": family, "case": case}


def save(model: Any, folder: Path) -> bool:
    """Save the adapter; return whether as safetensors, which the library cannot where a tensor has several names."""
    try:
        model.save_adapter(str(folder), "task", use_safetensors=True, with_head=False)
    except RuntimeError as error:
        if "share memory" not in str(error):
            raise
        model.save_adapter(str(folder), "task", use_safetensors=False, with_head=False)
        return False
    return True


def date_back(folder: Path) -> None:
    """Let the files be of release 1.0.1, which did not have all the fields."""
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["version"] = "adapters.1.0.1"
    for name in ("use_dora", "vera_d", "vera_b", "init_weights_seed", "dtype"):
        del document["config"][name]
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def reloaded(family: str, members: list[Options], case: str, folder: Path, safe: bool, inputs: dict[str, Any]) -> Any:
    """Return the output of a new model with the saved files."""
    model, bare = adapted_model(family, members, case)
    info: dict[str, Any] = {}
    model.load_adapter(str(folder), use_safetensors=safe, loading_info=info)
    assert not info["missing_keys"] + info["unexpected_keys"], (family, case, info)
    model.set_active_adapters("task")
    model.eval()
    return output(bare, inputs)


def make(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    stand_in_for_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases: list[Options] = []
        refused: list[Options] = []
        expected = {}
        for family in FAMILIES:
            inputs = batch(plain(family), padded=FAMILIES[family].padded)
            before = output(plain(family), inputs)
            for case, members in cases_of(family).items():
                try:
                    found, fields = make_case(root, family, case, members, inputs)
                except (*CRASHES, IndexError) as error:
                    text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
                    refused.append({"family": family, "case": case, "error": text})
                    continue
                change = relative({"": found}, {"": before})
                assert change > LEAST_EFFECT or family in MUTED, (family, case, change)
                expected[f"{family}-{case}"] = found
                cases.append(fields)
        for row in refused:
            for file in (root / f"{row['family']}-{row['case']}").glob("*"):
                file.unlink()
        pack_listed(root, archive, "linear-cases", cases, refused, expected)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
