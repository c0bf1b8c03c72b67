"""Make heads with random options beside random adapters, alone and side by side, as `adapters` computes them.

    python make_drawn_head_cases.py FOLDER FIRST LAST    needs adapters 1.3.0 and transformers 4.57.6

A case follows from its number alone; what FOLDER gets is as in make_drawn_cases.py, with `bases/` besides.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import warnings
from pathlib import Path
from typing import Any

from drawn_options import ACTIVATIONS, KINDS, Options, often
from head_kinds import FAMILIES, LABELS, VARIANTS, inputs, labels
from make_drawn_cases import config_of, distance, fill, folder_of, node
from make_head_cases import Place, drawn, fill_head, load, make_base, untied
from reference_models import CRASHES, LARGEST_OUTPUT, stand_in_for_torchvision

PROMPTED = ("bert", "roberta", "xlm-roberta", "electra", "albert", "xmod", "bert-generation", "vit", "beit")
HEAD_WORDS = ("loss", "logits", "start_logits", "end_logits", "rel_preds", "arc_preds")


def head(draw: random.Random, kinds: list[str]) -> list[Any]:
    """Return kind and options of a head."""
    kind, options = draw.choice([(kind, options) for _, kind, options in VARIANTS if kind in kinds])
    found = dict(options)
    if kind in ("classification", "multilabel_classification", "tagging", "image_classification"):
        found |= {"layers": draw.choice((1, 2, 3)), "activation_function": often(draw, "tanh", *ACTIVATIONS, None)}
        found |= {"bias": often(draw, True, False)} if kind in ("classification", "multilabel_classification") else {}
        found.pop("id2label", None)
        found["num_labels"] = 3 if draw.random() < 0.5 and "classification" not in kind else draw.choice((2, 3, 4))
        found |= LABELS if found["num_labels"] == 3 and draw.random() < 0.4 else {}
    return [kind, found]


def adapter(draw: random.Random, arch: str) -> list[Options]:
    """Return the members of an adapter that stands beside a head."""
    kinds = ["bottleneck", "bottleneck", "invertible", "lora", "ia3", "reft", "dora", "compacter"]
    kinds += ["prompt", "prefix"] if arch in PROMPTED else []
    kinds = [kind for kind in kinds if kind != "invertible" or arch not in ("vit", "beit")]
    members = KINDS[draw.choice(kinds)](draw)
    # The bases have one layer.
    return [member | {name: [] for name in ("leave_out",) if name in member} for member in members]


def head_case(number: int) -> Options:
    """Return a case: one head, or two of the same adapters' side by side."""
    draw = random.Random(f"head {number}")
    arch = [*FAMILIES][number % len(FAMILIES)]
    kinds = FAMILIES[arch].kinds.split()
    setup = draw.choice(("alone", "alone", "stack", "parallel", "batch_split"))
    if setup == "alone":
        return {"arch": arch, "adapters": {"a": adapter(draw, arch)}, "heads": {"a": head(draw, kinds)}, "active": "a"}
    # Side by side they answer to the same labels.
    one = draw.choice([kind for kind in kinds if kind != "multiple_choice"] or kinds)
    first, second = head(draw, [one]), head(draw, [one])
    second[1] = dict(first[1]) | {"layers": draw.choice((1, 2))} if "layers" in first[1] else dict(first[1])
    where: Options = {"batch_sizes": [1, 1]} if setup == "batch_split" else {}
    members = adapter(draw, arch)
    return {
        "arch": arch,
        "adapters": {"a": members, "b": members},
        "heads": {"a": first, "b": second},
        "active": {setup: ["a", "b"]} | where,
    }


def answers(model: Any, batch: Options, floats: Options, right: Options) -> dict[str, Any]:
    """Return what a model answers to inputs with labels; what several heads say each, by their numbers."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in {**batch, **right}.items()}
    with torch.no_grad():
        found = model(**tensors, **floats, return_dict=True)
    several = hasattr(found, "head_outputs")
    kept: dict[str, Any] = {}
    for number, one in enumerate(found.head_outputs if several else [found]):
        mark = f"{number}." if several else ""
        kept |= {f"{mark}{w}": one[w].clone().contiguous() for w in HEAD_WORDS if w in one and one[w] is not None}
    return kept


def model_of(place: Place, case: Options) -> Any:
    """Return the library's own class for a family."""
    import adapters

    return load(place, case["arch"], getattr(adapters, f"{FAMILIES[case['arch']].stem}AdapterModel"))


def make_case(place: Place, identity: str, case: Options) -> tuple[dict[str, Any], Options]:
    """Save adapters and heads of a case; return what a new model answers with them, and what is known of it."""
    import torch

    torch.manual_seed(0)
    family = FAMILIES[case["arch"]]
    model = model_of(place, case)
    safe: dict[str, bool] = {}
    for name, members in case["adapters"].items():
        kind, options = case["heads"][name]
        model.add_adapter(name, config=config_of(members))
        fill(model, name, identity)
        with untied(model):
            model.add_prediction_head_from_config(name, {"head_type": kind, **options})
        fill_head(model, f"{identity} {name}", lambda key, name=name: key.startswith(f"heads.{name}."))
        folder = folder_of(place.root, identity, name)
        folder.mkdir(parents=True)
        try:
            model.save_adapter(str(folder), name, with_head=True, use_safetensors=True)
            safe[name] = True
        except RuntimeError:
            for file in folder.iterdir():
                file.unlink()
            model.save_adapter(str(folder), name, with_head=True, use_safetensors=False)
            safe[name] = False
    again = model_of(place, case)
    with untied(again):
        for name in case["adapters"]:
            again.load_adapter(str(folder_of(place.root, identity, name)), use_safetensors=safe[name])
    found: list[dict[str, Any]] = []
    kind = case["heads"]["a"][0]
    config = dict(again.heads["a"].config)
    count = config.get("num_labels") or config.get("vocab_size") or 2
    batch, floats = inputs(family, kind, config.get("num_choices", 0)), drawn(family)
    right = labels(kind, count, multilabel=bool(config.get("multilabel")))
    right = right if isinstance(case["active"], str) else {}
    for one in (model, again):
        one.set_active_adapters(node(case["active"]))
        if isinstance(case["active"], str) or "stack" in case["active"]:
            one.active_head = "a" if isinstance(case["active"], str) else "b"
        one.eval()
        found.append(answers(one, batch, floats, right))
    if not all(float(value.abs().max()) < LARGEST_OUTPUT for value in found[1].values()):
        raise ValueError("the output is too large")
    told = {"reloads_otherwise": True} if distance(*found) > 0 else {}
    fields = {"id": identity, "inputs": batch, "labels": right, "float_inputs": sorted(floats)}
    return found[1] | floats, case | fields | told


def make(root: Path, first: int, last: int) -> None:
    """Make the cases from one number to another, the last left out."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    stand_in_for_torchvision()
    place = Place(root)
    for arch, family in FAMILIES.items():
        make_base(place, arch, family)
    cases: list[Options] = []
    refused: list[Options] = []
    expected: dict[str, Any] = {}
    for number in range(first, last):
        identity, case = f"head-{number}", head_case(number)
        try:
            found, fields = make_case(place, identity, case)
        except (*CRASHES, IndexError, AssertionError, NotImplementedError) as error:
            text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            refused.append(case | {"id": identity, "error": text})
            continue
        cases.append(fields)
        expected |= {f"{identity} {key}": value for key, value in found.items()}
    save_file(expected, root / "expected.safetensors")
    document = {"cases": cases, "refused": refused}
    (root / "cases.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(len(cases), "cases,", len(refused), "refused")


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
