"""Make tests/data/family-cases.tar.gz: bottlenecks on every family as the library `adapters` computes them.

    python make_family_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, a minute

The weights of the bases follow from their names (families.py), so that only adapters and outputs are kept.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from bottleneck_options import AT_BOTH, BARE, DOUBLE, PAR, SEQ, Options
from families import FAMILIES, batch, configuration, settle, values
from make_bottleneck_cases import pack_listed
from reference_models import CRASHES, LARGEST_OUTPUT, LEAST_EFFECT, relative, stand_in_for_torchvision

ARCHIVE = Path(__file__).parent.parent / "data" / "family-cases.tar.gz"
EVERYWHERE: Options = AT_BOTH | {"cross_adapter": True}
CASES: dict[str, Options] = {
    "seq": SEQ,
    "seq-everywhere": SEQ | EVERYWHERE,
    "double": DOUBLE | {"cross_adapter": True},
    "par": PAR,
    "par-everywhere": PAR | EVERYWHERE | {"scaling": "learned"},
    "plus": SEQ | EVERYWHERE | BARE | {"residual_before_ln": False},
    "double-bare": DOUBLE | BARE | {"cross_adapter": True},
    "par-bare": PAR | EVERYWHERE | BARE | {"scaling": "channel"},
    "post-add": SEQ | EVERYWHERE | {"residual_before_ln": "post_add"},
    "layers": DOUBLE | {"cross_adapter": True, "leave_out": [1], "reduction_factor": {"0": 8, "default": 16}},
}
SMALL: Options = {"reduction_factor": 16}
PREFIXED = ("double", "par")
"""Saved from the library's own class, whose keys have a prefix, where there is one."""

MUTED = ("xmod", "xmod-pre-norm")
"""Families that the library changes even where no adapter is active."""


def model_of(name: str, *, prefixed: bool) -> tuple[Any, Any, bool]:
    """Return the model with adapters, the bare one in it, and whether it is of the library's own class."""
    import adapters

    own = FAMILIES[name].model.removesuffix("Model").removesuffix("Encoder") + "AdapterModel"
    if prefixed and not FAMILIES[name].parts and hasattr(adapters, own):
        model = getattr(adapters, own)(configuration(name))
        settle(model.base_model)
        without_made_up_biases(model)
        return model.eval(), model.base_model, True
    model = plain(name)
    adapters.init(model)
    without_made_up_biases(model)
    return model, model, False


def without_made_up_biases(model: Any) -> None:
    """Take the random bias away that the library gives to a merged projection without one."""
    import torch

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("attention.self.in_proj.bias", "attn.Wqkv.bias")):
                parameter.zero_()


def plain(name: str) -> Any:
    """Return the model without adapters."""
    import transformers

    return settle(getattr(transformers, FAMILIES[name].model)(configuration(name)))


def output(model: Any, inputs: dict[str, Any]) -> Any:
    """Return the hidden states, or the logits of models that have no other output."""
    import torch

    with torch.no_grad():
        found = model(**inputs)
    name = next(name for name in ("last_hidden_state", "logits", "logits_per_image") if name in found)
    return found[name].contiguous().clone()


def fill(model: Any, case: str) -> None:
    """Give the adapter weights with an effect at every site."""
    import torch

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".adapters.task." in key:
                is_scale = key.endswith(".scaling")
                wide = 0.6 if parameter.dim() > 1 else 0.4
                parameter.copy_(values(f"{case} {key}", parameter.shape, wide, 1.0 if is_scale else 0.0))


def make_case(root: Path, name: str, case: str, options: Options, inputs: dict[str, Any]) -> tuple[Any, Options]:
    """Save the adapter of one case; return the output and what is known of it."""
    from adapters import BnConfig

    own_factor = isinstance(options["reduction_factor"], dict)
    model, bare, own = model_of(name, prefixed=case in PREFIXED)
    model.add_adapter("task", config=BnConfig(**(options if own_factor else options | SMALL)))
    fill(model, f"{name} {case}")
    model.set_active_adapters("task")
    found = output(bare, inputs)
    folder = root / f"{name}-{case}"
    model.save_adapter(str(folder), "task", use_safetensors=True, with_head=False)
    again, bare, _ = model_of(name, prefixed=case in PREFIXED)
    again.load_adapter(str(folder), use_safetensors=True)
    again.set_active_adapters("task")
    assert float((output(bare, inputs) - found).abs().max()) == 0, (name, case)
    assert float(found.abs().max()) < LARGEST_OUTPUT, (name, case)
    return found, {"family": name, "case": case, "prefixed": own}


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
        for name in FAMILIES:
            inputs = batch(plain(name), padded=FAMILIES[name].padded)
            before = expected[name] = output(plain(name), inputs)
            _, bare, _ = model_of(name, prefixed=False)
            change = float((output(bare, inputs) - before).abs().max())
            assert name in MUTED or change < 1e-6, (name, change)
            for case, options in CASES.items():
                try:
                    found, fields = make_case(root, name, case, options, inputs)
                except CRASHES as error:
                    text = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
                    refused.append({"family": name, "case": case, "error": text})
                    continue
                assert relative({"": found}, {"": before}) > LEAST_EFFECT, (name, case)
                expected[f"{name}-{case}"] = found
                cases.append(fields)
        pack_listed(root, archive, "family-cases", cases, refused, expected)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
