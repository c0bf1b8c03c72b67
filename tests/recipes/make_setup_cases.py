"""Make tests/data/setup-cases.tar.gz: folders of compositions as the library `adapters` saves them.

    python make_setup_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, some seconds

A tiny BERT with the library's own class, so that there are heads; every kind of composition, saved with
`save_adapter_setup`, and what the library answers after loading it again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from families import make
from make_bottleneck_cases import pack
from make_composition_cases import inputs, node
from reference_models import fill, generator

ARCHIVE = Path(__file__).parent.parent / "data" / "setup-cases.tar.gz"

ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a": ("seq_bn", {"reduction_factor": 16}),
    "b": ("seq_bn", {"reduction_factor": 8}),
    "c": ("double_seq_bn", {"reduction_factor": 16}),
    "d": ("seq_bn", {"reduction_factor": 16, "non_linearity": "tanh"}),
    "lora": ("lora", {"r": 2}),
}
FUSION = ["a", "b"]
HEADS = ("a", "b", "other")
"""Heads; two are those of adapters of the same name."""

SETUPS: dict[str, tuple[Any, Any]] = {
    "stack": ({"stack": ["a", "b"]}, None),
    "stack-head": ({"stack": ["a", "b"]}, "b"),
    "stack-other-head": ({"stack": ["c", "lora"]}, "other"),
    "fuse": ({"fuse": ["a", "b"]}, None),
    "fuse-head": ({"fuse": ["a", "b"]}, "other"),
    "stack-of-fuse": ({"stack": ["d", {"fuse": ["a", "b"]}]}, None),
    "split": ({"split": ["a", "d"], "splits": [2, 4]}, None),
    "rows": ({"batch_split": ["a", "d"], "batch_sizes": [1, 2]}, None),
    "average": ({"average": ["a", "d"], "weights": [0.25, 0.75]}, None),
    "parallel": ({"parallel": ["a", "d"]}, None),
    "named-fuse": ({"fuse": ["a", "b"], "name": "mixed"}, None),
}
"""Name → composition and what of the heads is saved with it."""


def main(archive: Path) -> None:
    """Make the archive."""
    with tempfile.TemporaryDirectory() as home:
        root = Path(home) / "setup-cases"
        _make(root)
        pack(root, archive, "setup-cases")


def _make(root: Path) -> None:
    import adapters
    import torch
    from safetensors.torch import save_file

    base = make("bert")
    gen = generator("base setups")
    for key, parameter in base.named_parameters():
        one = "norm" in key.lower() and key.endswith("weight")
        fill(parameter, gen, 0.2 if one else 0.15, 1.0 if one else 0.0)
    base.save_pretrained(root / "base")
    tokens, _ = inputs("bert")
    given = {key: torch.tensor(value) for key, value in tokens.items()}

    def model() -> Any:
        return adapters.AutoAdapterModel.from_pretrained(root / "base").eval()

    def answer(one: Any) -> torch.Tensor:
        with torch.no_grad():
            found = one.eval()(**given)
        return found[0] if not isinstance(found, list) else torch.cat([part[0] for part in found])

    full = model()
    for name, (preset, changes) in ADAPTERS.items():
        full.add_adapter(name, config=adapters.AdapterConfig.load(preset, **changes))
    full.add_adapter_fusion(FUSION)
    full.add_adapter_fusion(adapters.Fuse(*FUSION, name="mixed"), name="mixed")
    for number, name in enumerate(HEADS):
        full.add_classification_head(name, num_labels=2 + number, layers=1)
    for key, parameter in full.named_parameters():
        if any(f".{name}." in key for name in (*ADAPTERS, ",".join(FUSION), "mixed", "other")):
            fill(parameter, gen, 0.2, 0.0)
    cases = {}
    for name, (data, head) in SETUPS.items():
        setup = node(data)
        full.save_adapter_setup(str(root / name), setup, head_setup=head)
        outputs: dict[str, torch.Tensor] = {}
        try:
            again = model()
            again.load_adapter_setup(str(root / name), set_active=True)
            outputs["output"] = answer(again)
        except (OSError, KeyError, ValueError, AttributeError) as error:
            outputs["output"] = _before(full, setup, head, answer)
            cases[name] = {"reference_error": f"{type(error).__name__}: {error}"[:200]}
        cases.setdefault(name, {})
        cases[name] |= {"active": data, "head": head}
        save_file(outputs, root / name / "expected.safetensors")
    (root / "cases.json").write_text(json.dumps({"inputs": tokens, "cases": cases}, indent=1, sort_keys=True) + "\n")


def _before(full: Any, setup: Any, head: Any, answer: Any) -> Any:
    """Return what the library answered before it saved what it cannot load."""
    full.set_active_adapters(setup)
    full.active_head = head
    return answer(full)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ARCHIVE)
