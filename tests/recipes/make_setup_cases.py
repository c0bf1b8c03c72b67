"""Make tests/data/setup-cases.tar.gz: setup folders as `adapters` saves them, with what it computes after loading them.

    python make_setup_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, half a minute

One BERT with adapters, fusion layers and heads; every case is a folder that `save_adapter_setup` wrote. It is loaded
into a new model with `load_adapter_setup(set_active=True)`, and the output of that is kept. Weights are multiples of
1/256: exact, and they pack well.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from make_bottleneck_cases import pack
from make_composition_cases import ROWS, TOKENS, node
from reference_models import fill, fill_base, generator

ARCHIVE = Path(__file__).parent.parent / "data" / "setup-cases.tar.gz"
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}

ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Lang-en": ("seq_bn", {"reduction_factor": 8}),
    "a": ("seq_bn", {"reduction_factor": 8}),
    "b": ("double_seq_bn", {"reduction_factor": 8}),
    "c": ("seq_bn", {"reduction_factor": 4, "non_linearity": "gelu"}),
    "lora": ("lora", {"r": 3, "alpha": 6}),
}
FUSIONS: dict[str, list[str]] = {"a,c": ["a", "c"], "a,Lang-en,c": ["a", "Lang-en", "c"]}
HEADS = {"a": 2, "c": 2, "top": 3}
"""Name of a head → its classes; `top` belongs to no adapter."""

SETUPS: dict[str, tuple[Any, Any]] = {
    "stack": ({"stack": ["Lang-en", "a"]}, None),
    "stack-head": ({"stack": ["Lang-en", "b"]}, "top"),
    "stack-own-head": ({"stack": ["Lang-en", "a"]}, "a"),
    "fuse": ({"fuse": ["a", "c"]}, "top"),
    "fuse-no-head": ({"fuse": ["a", "Lang-en", "c"]}, None),
    "stack-of-fuse": ({"stack": ["Lang-en", {"fuse": ["a", "c"]}]}, "top"),
    "average": ({"average": ["Lang-en", "c"], "weights": [0.25, 0.75]}, "top"),
    "rows": ({"batch_split": ["Lang-en", {"stack": ["Lang-en", "c"]}], "batch_sizes": [1, 2]}, "top"),
    "split": ({"split": ["Lang-en", "c"], "splits": [2, 4]}, "top"),
    "lora": ({"stack": ["lora"]}, "top"),
    "parallel": ({"parallel": ["a", "c"]}, None),
    "parallel-heads": ({"parallel": ["a", "c"]}, ["a", "c"]),
    "parallel-of-stack": ({"parallel": [{"stack": ["Lang-en", "a"]}, "c"]}, ["a", "c"]),
    "parallel-of-average": ({"parallel": [{"average": ["Lang-en", "a"], "weights": [0.5, 0.5]}, "c"]}, ["a", "c"]),
    "stack-of-parallel": ({"stack": ["Lang-en", {"parallel": ["a", "c"]}]}, ["a", "c"]),
    "rows-own-heads": ({"batch_split": ["a", "c"], "batch_sizes": [1, 2]}, None),
    "rows-heads": (
        {"batch_split": ["a", {"stack": ["Lang-en", "c"]}], "batch_sizes": [1, 2]},
        {"batch_split": ["a", "c"], "batch_sizes": [1, 2]},
    ),
    "rows-of-rows": (
        {"batch_split": [{"batch_split": ["Lang-en", "a"], "batch_sizes": [1, 1]}, "c"], "batch_sizes": [2, 1]},
        "top",
    ),
    "rows-of-average": (
        {"batch_split": [{"average": ["Lang-en", "c"], "weights": [0.5, 0.5]}, "a"], "batch_sizes": [1, 2]},
        "top",
    ),
    "split-of-stack": ({"split": ["Lang-en", {"stack": ["Lang-en", "c"]}], "splits": [2, 4]}, "top"),
    "split-of-average": (
        {"split": [{"average": ["Lang-en", "c"], "weights": [0.25, 0.75]}, "a"], "splits": [3, 3]},
        "top",
    ),
    "average-of-stack": ({"average": [{"stack": ["Lang-en", "a"]}, "c"], "weights": [0.5, 0.5]}, "top"),
    "stack-of-average": ({"stack": ["Lang-en", {"average": ["a", "c"], "weights": [0.75, 0.25]}]}, "top"),
    "stack-of-split": ({"stack": ["Lang-en", {"split": ["a", "c"], "splits": [1, 5]}]}, "top"),
    "stack-of-rows": ({"stack": ["Lang-en", {"batch_split": ["a", "c"], "batch_sizes": [2, 1]}]}, "top"),
    "fuse-of-stack": ({"fuse": [{"stack": ["Lang-en", "a"]}, "c"]}, "top"),
}
"""Name of a case → composition and head_setup: a name, names, or a composition of names."""


def make_base(root: Path) -> None:
    """Save a randomly filled plain model."""
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=100, max_position_embeddings=40, **SIZES))
    fill_base(model, "setup")
    model.save_pretrained(root / "base")


def filled(root: Path) -> Any:
    """Return a model with all adapters, fusion layers and heads."""
    import adapters
    from adapters import AdapterConfig

    model = adapters.BertAdapterModel.from_pretrained(root / "base")
    for name, (preset, changes) in ADAPTERS.items():
        model.add_adapter(name, config=AdapterConfig.load(preset, **changes))
    for members in FUSIONS.values():
        model.add_adapter_fusion(members)
    for name, labels in HEADS.items():
        model.add_classification_head(name, num_labels=labels, id2label={i: f"{name}{i}" for i in range(labels)})
    gen = generator("setup")
    for key, parameter in model.named_parameters():
        if any(part in key for part in (".adapters.", ".loras.", "adapter_fusion_layer", "heads.")):
            fill(parameter, gen, 0.3)
    return model.eval()


def inputs() -> dict[str, Any]:
    """Return token inputs as lists."""
    import torch

    ids = torch.randint(5, 100, (ROWS, TOKENS), generator=generator("setup inputs")).tolist()
    return {"input_ids": ids, "attention_mask": [[1] * TOKENS, [1] * TOKENS, [1] * 4 + [0] * 2]}


def case(root: Path, model: Any, name: str, setup: Any, head: Any) -> None:
    """Save a setup, load it into a new model, and keep what that computes."""
    import adapters
    import torch
    from safetensors.torch import save_file

    folder = root / name
    answering = node(head) if isinstance(head, dict) else head
    model.save_adapter_setup(str(folder / "setup"), node(setup), head_setup=answering, use_safetensors=True)
    fresh = adapters.BertAdapterModel.from_pretrained(root / "base").eval()
    fresh.load_adapter_setup(str(folder / "setup"), set_active=True, use_safetensors=True)
    fresh.eval()
    given = {key: torch.tensor(value) for key, value in inputs().items()}
    with torch.no_grad():
        output = fresh(**given)
    # Of several heads the answers are in an object of its own, which has them one below the other.
    key = "logits" if "logits" in output or "head_outputs" in output else "last_hidden_state"
    answer = output.logits if key == "logits" else output[key]
    save_file({key: answer.contiguous()}, folder / "expected.safetensors")
    document = {"id": name, "active": setup, "head": head, "output_key": key, "inputs": inputs()}
    (folder / "case.json").write_text(json.dumps(document, sort_keys=True) + "\n")
    print(name, key, tuple(answer.shape))


def main(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_base(root)
        model = filled(root)
        for name, (setup, head) in SETUPS.items():
            case(root, model, name, setup, head)
        pack(root, archive, "setup-cases")
    print(archive, archive.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
