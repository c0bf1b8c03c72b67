"""Make tests/data/composition-cases.tar.gz: compositions as the library `adapters` computes them.

    python make_composition_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, a minute

Every family gets one set of adapters, which its cases share; a case is a composition with its output. What the library
cannot run is listed in refused.json. Weights are multiples of 1/256: exact, and they pack well.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from families import make
from make_bottleneck_cases import pack
from reference_models import CRASHES, LEAST_EFFECT, fill, generator

ARCHIVE = Path(__file__).parent.parent / "data" / "composition-cases.tar.gz"
FAMILIES = ("bert", "distilbert", "gpt2", "llama", "t5", "bart", "vit")
EAGER = ("gpt2", "llama")
"""Families in which the library loses prefixes under other attention implementations."""
ROWS, TOKENS = 3, 6
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
"""That of the softmax of a fusion over scores of some hundreds, where nothing norms the residual stream."""
PIXELS = 12

ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a": ("seq_bn", {"reduction_factor": 8}),
    "b": ("seq_bn", {"reduction_factor": 4, "non_linearity": "gelu"}),
    "double": ("double_seq_bn", {"reduction_factor": 8}),
    "beside": ("par_bn", {"reduction_factor": 8, "init_weights": "bert"}),
    "beside2": ("par_bn", {"reduction_factor": 16, "scaling": 1.5, "init_weights": "bert"}),
    "gated": ("seq_bn", {"reduction_factor": 8, "use_gating": True}),
    "normed": ("seq_bn", {"reduction_factor": 8, "ln_after": True}),
    "added": ("seq_bn", {"reduction_factor": 8, "residual_before_ln": False}),
    "lora": ("lora", {"r": 3, "alpha": 6}),
    "lora2": ("lora", {"r": 2, "alpha": 3}),
    "scale": ("ia3", {}),
    "prefix": ("prefix_tuning_flat", {"prefix_length": 3}),
    "prefix2": ("prefix_tuning_flat", {"prefix_length": 3}),
    "inverse": ("seq_bn_inv", {"reduction_factor": 8}),
    "reft": ("loreft", {"r": 2, "prefix_positions": 2}),
}
"""Name → configuration of `adapters`, and what is changed in it."""

FUSIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a,b": (["a", "b"], {}),
    "a,b,gated": (["a", "b", "gated"], {"value": False, "value_initialized": False}),
    "b,added": (["b", "added"], {"query_before_ln": True}),
    "a,normed": (["a", "normed"], {"residual_before": True}),
    "added,a": (["added", "a"], {"value_before_softmax": False}),
    "b,gated": (["b", "gated"], {"temperature": True}),
    "beside,beside2": (["beside", "beside2"], {}),
    "gated,a": (["gated", "a"], {"key": False}),
    "gated,b": (["gated", "b"], {"query": False}),
}
"""Name → adapters, and what is changed in the dynamic configuration."""

Node = Any
SETUPS: dict[str, Node] = {
    "stack-two": {"stack": ["a", "b"]},
    "stack-both-places": {"stack": ["double", "a"]},
    "stack-three": {"stack": ["a", "double", "gated"]},
    "stack-beside-first": {"stack": ["beside", "a"]},
    "stack-beside-last": {"stack": ["a", "beside"]},
    "stack-beside-both": {"stack": ["beside", "beside2"]},
    "stack-residuals": {"stack": ["added", "normed", "b"]},
    "stack-lora": {"stack": ["lora", "lora2"]},
    "stack-methods": {"stack": ["lora", "a"]},
    "stack-scale": {"stack": ["scale", "a"]},
    "stack-prefix": {"stack": ["prefix", "a"]},
    "stack-prefixes": {"stack": ["prefix", "prefix2"]},
    "stack-inverse-first": {"stack": ["inverse", "a"]},
    "stack-inverse-last": {"stack": ["a", "inverse"]},
    "stack-reft": {"stack": ["reft", "a"]},
    "fuse-two": {"fuse": ["a", "b"]},
    "fuse-three": {"fuse": ["a", "b", "gated"]},
    "fuse-query-before": {"fuse": ["b", "added"]},
    "fuse-residual-before": {"fuse": ["a", "normed"]},
    "fuse-value-after": {"fuse": ["added", "a"]},
    "fuse-temperature": {"fuse": ["b", "gated"]},
    "fuse-beside": {"fuse": ["beside", "beside2"]},
    "fuse-no-key": {"fuse": ["gated", "a"]},
    "fuse-no-query": {"fuse": ["gated", "b"]},
    "fuse-of-stack": {"fuse": ["a", {"stack": ["gated", "b"]}]},
    "stack-of-fuse": {"stack": ["double", {"fuse": ["a", "b"]}]},
    "split-two": {"split": ["a", "b"], "splits": [2, 4]},
    "split-places": {"split": ["double", "a"], "splits": 3},
    "split-of-stack": {"split": [{"stack": ["a", "gated"]}, "b"], "splits": [1, 5]},
    "split-of-split": {"split": ["a", {"split": ["b", "gated"], "splits": 2}], "splits": [2, 4]},
    "stack-of-split": {"stack": ["a", {"split": ["b", "gated"], "splits": [2, 4]}]},
    "rows-two": {"batch_split": ["a", "b"], "batch_sizes": [1, 2]},
    "rows-places": {"batch_split": ["a", "double"], "batch_sizes": [2, 1]},
    "rows-of-stack": {"batch_split": [{"stack": ["a", "gated"]}, "b"], "batch_sizes": [2, 1]},
    "rows-beside": {"batch_split": ["beside", "beside2"], "batch_sizes": [1, 2]},
    "rows-lora": {"batch_split": ["lora", "lora2"], "batch_sizes": [1, 2]},
    "rows-scale": {"batch_split": ["scale", "lora"], "batch_sizes": [1, 2]},
    "rows-prefix": {"batch_split": ["prefix", "prefix2"], "batch_sizes": [1, 2]},
    "parallel-two": {"parallel": ["a", "b"]},
    "parallel-lora": {"parallel": ["lora", "lora2"]},
    "parallel-prefix": {"parallel": ["prefix", "prefix"]},
    "parallel-of-stack": {"parallel": ["b", {"stack": ["a", "gated"]}]},
    "stack-of-parallel": {"stack": ["double", {"parallel": ["a", "b"]}]},
    "average-two": {"average": ["a", "b"], "weights": [0.3, 0.7]},
    "average-raw": {"average": ["a", "b"], "weights": [2.0, -0.5], "normalize_weights": False},
    "average-three": {"average": ["a", "b", "gated"]},
    "average-lora": {"average": ["lora", "lora2"], "weights": [1, 4]},
    "average-of-stack": {"average": [{"stack": ["a", "gated"]}, "b"]},
    "stack-of-average": {"stack": ["a", {"average": ["b", "gated"]}]},
}


def node(data: Node) -> Any:
    """Return a composition of `adapters`."""
    from adapters import composition

    if isinstance(data, str):
        return data
    kinds = ("stack", "fuse", "split", "batch_split", "parallel", "average")
    kind = next(word for word in kinds if word in data)
    settings = {key: value for key, value in data.items() if key != kind}
    cls = getattr(composition, "".join(word.capitalize() for word in kind.split("_")))
    return cls(*map(node, data[kind]), **settings)


def names(data: Node) -> list[str]:
    """Return the names of the adapters in a composition, each once."""
    if isinstance(data, str):
        return [data]
    children = next(value for value in data.values() if isinstance(value, list) and not _is_numbers(value))
    return list(dict.fromkeys(name for child in children for name in names(child)))


def fusions(data: Node) -> list[str]:
    """Return the names of the fusion layers in a composition."""
    if isinstance(data, str):
        return []
    own = [",".join(names(child)[-1] for child in data["fuse"])] if "fuse" in data else []
    children = next(value for value in data.values() if isinstance(value, list) and not _is_numbers(value))
    return own + [name for child in children for name in fusions(child)]


def _is_numbers(value: list[Any]) -> bool:
    return all(isinstance(item, (int, float)) for item in value)


def inputs(family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return token inputs as lists, and float inputs as tensors."""
    import torch

    gen = generator(f"inputs {family}")
    if family == "vit":
        return {}, {"pixel_values": torch.round(torch.randn(ROWS, 3, PIXELS, PIXELS, generator=gen) * 64) / 64}
    ids = torch.randint(5, 100, (ROWS, TOKENS), generator=gen).tolist()
    mask = [[1] * TOKENS for _ in range(ROWS)]
    mask[-1][4:] = [0, 0]
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if family in ("t5", "bart"):
        found["decoder_input_ids"] = torch.randint(5, 100, (ROWS, TOKENS), generator=gen).tolist()
    return found, {}


class Reference:
    """One family's model in the library, with all adapters that it can have."""

    def __init__(self, family: str, root: Path) -> None:
        self.family = family
        self.root = root
        self.tokens, self.floats = inputs(family)
        self.attention = {"attn_implementation": "eager"} if family in EAGER else {}
        self.refused: list[dict[str, str]] = []
        self.present: set[str] = set()

    def prepare(self) -> None:
        """Write the base, and add, fill and save the adapters and fusion layers."""
        import adapters

        base = make(self.family)
        gen = generator(f"base {self.family}")
        for key, parameter in base.named_parameters():
            one = "norm" in key.lower() and key.endswith("weight")
            fill(parameter, gen, 0.2 if one else 0.15, 1.0 if one else 0.0)
        base.save_pretrained(self.root / "bases" / self.family)
        self.model = type(base).from_pretrained(self.root / "bases" / self.family, **self.attention).eval()
        self.base_output = self.run()
        adapters.init(self.model)
        for name, (preset, changes) in ADAPTERS.items():
            self._add(name, lambda n=name, p=preset, c=changes: self._adapter(n, p, c))
        for name, (members, changes) in FUSIONS.items():
            if set(members) <= self.present:
                self._add(name, lambda n=name, m=members, c=changes: self._fusion(n, m, c))
        self.model.eval()  # new modules begin in training mode where their layer was made by the library

    def _add(self, name: str, action: Any) -> None:
        try:
            action()
            self.present.add(name)
        except CRASHES as error:
            self.refused.append(
                {"family": self.family, "what": name, "error": f"{type(error).__name__}: {error}"[:160]}
            )

    def _adapter(self, name: str, preset: str, changes: dict[str, Any]) -> None:
        from adapters import AdapterConfig

        self.model.add_adapter(name, config=AdapterConfig.load(preset, **changes))
        self._fill(name)
        self.model.save_adapter(str(self.folder(name)), name)

    def _fusion(self, name: str, members: list[str], changes: dict[str, Any]) -> None:
        from adapters.configuration import DynamicAdapterFusionConfig

        self.model.add_adapter_fusion(members, DynamicAdapterFusionConfig(**changes))
        self._fill(name)
        self.model.save_adapter_fusion(str(self.folder(name)), members)

    def folder(self, name: str) -> Path:
        """Return the folder of an adapter or fusion layer, made if it is not there."""
        path = self.root / "adapters" / self.family / name.replace(",", "+")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _fill(self, name: str) -> None:
        gen = generator(f"{self.family} {name}")
        for key, parameter in self.model.named_parameters():
            if f".{name}." in key and "original" not in key and not key.endswith(".base"):
                one = "norm" in key or (key.endswith("lora_B") and parameter.shape[-1] == 1)
                std = 0.25 if ".prefix_tunings." in key else 0.3
                fill(parameter, gen, std, 1.0 if one and key.endswith(("weight", "lora_B")) else 0.0)

    def run(self) -> Any:
        """Return the last hidden state of the present setup."""
        import torch

        given = {key: torch.tensor(value) for key, value in self.tokens.items()} | self.floats
        with torch.no_grad():
            return self.model(**given).last_hidden_state.detach()

    def _heat(self) -> None:
        """Let every fusion layer begin where a loaded one does: its temperature falls with every pass."""
        for module in self.model.modules():
            if type(module).__name__ == "BertFusion" and module.config["temperature"]:
                module.T = 50.0

    def case(self, name: str, data: Node) -> None:
        """Write one case, or note why there is none."""
        from safetensors.torch import save_file

        needed = [*names(data), *fusions(data)]
        if not set(needed) <= self.present:
            return
        try:
            self._heat()
            self.model.set_active_adapters(node(data))
            output = self.run()
        except (*CRASHES, NotImplementedError, IndexError) as error:
            self.refused.append(
                {"family": self.family, "what": name, "error": f"{type(error).__name__}: {error}"[:160]}
            )
            return
        finally:
            self.model.set_active_adapters(None)
        if output.shape == self.base_output.shape:
            effect = (output - self.base_output).norm() / self.base_output.norm()
            assert effect > LEAST_EFFECT, (self.family, name, float(effect))
        folder = self.root / f"b-{self.family}-{name}"
        folder.mkdir()
        save_file(
            {"output": output.contiguous(), **self.floats},
            folder / "expected.safetensors",
        )
        rows = [{"name": n, "path": f"../adapters/{self.family}/{n.replace(',', '+')}"} for n in needed]
        case = {
            "id": folder.name,
            "group": "B",
            "kind": "composition",
            "arch": self.family,
            "base": f"../bases/{self.family}",
            "base_class": type(self.model).__name__.removesuffix("WithAdapters"),
            **self.attention,
            "adapters": [row for row in rows if "," not in row["name"]],
            "fusions": [row for row in rows if "," in row["name"]],
            "active": data,
            "output_key": "last_hidden_state",
            "inputs": self.tokens,
            "float_inputs": list(self.floats),
            "expected": "expected.safetensors",
            "tolerance": TOLERANCE,
        }
        (folder / "case.json").write_text(json.dumps(case, sort_keys=True, separators=(",", ":")) + "\n")


def main(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    refused: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for family in FAMILIES:
            reference = Reference(family, root)
            reference.prepare()
            for name, data in SETUPS.items():
                reference.case(name, data)
            refused += reference.refused
            print(family, len(list(root.glob(f"b-{family}-*"))), "cases,", len(reference.refused), "refused")
        (root / "refused.json").write_text(json.dumps(refused, indent=1, sort_keys=True) + "\n")
        pack(root, archive, "composition-cases")
    print(archive, archive.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
