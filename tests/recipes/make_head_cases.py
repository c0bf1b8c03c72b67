"""Make tests/data/head-cases.tar.gz: prediction heads as the library `adapters` computes them, with their losses.

    python make_head_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, two minutes

README.md beside this file tells what is inside and why. Every number is drawn from a seed that is made of the case's
name, so one case can change without any other. Weights are multiples of 1/256: exact, and they pack well.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bottleneck_cases import versions, write_json
from bottleneck_options import PRESETS
from head_kinds import (
    FAMILIES,
    FURTHER,
    INVERTED,
    PREFIXED,
    PROMPTED,
    SIZES,
    VARIANTS,
    Family,
    Options,
    inputs,
    labels,
    variants,
)
from make_bottleneck_cases import pack
from reference_models import configuration, fill, fill_base, generator, largest

ARCHIVE = Path(__file__).parent.parent / "data" / "head-cases.tar.gz"
TOLERANCE = {"atol": 5e-5, "rtol": 2e-5}


class Place:
    """The folder being filled."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def base(self, arch: str) -> Path:
        return self.root / "bases" / arch

    def folder(self, name: str) -> Path:
        path = self.root / name / "adapters" / "task"
        path.mkdir(parents=True)
        return path


def make_base(place: Place, arch: str, family: Family) -> None:
    """Save a randomly filled plain model."""
    import transformers

    cls = getattr(transformers, family.plain)
    known = inspect.signature(cls.config_class.__init__).parameters
    always = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    sizes = {name: value for name, value in SIZES.items() if name in known or name in always}
    model = cls(cls.config_class(**{**sizes, **(family.changes or {})}))
    fill_base(model, arch)
    model.save_pretrained(place.base(arch))


def load(place: Place, arch: str, cls: Any, **changes: Any) -> Any:
    """Return a model of a class on a base, ready for adapters, with nothing random that the base does not have."""
    import adapters
    import torch

    model = cls.from_pretrained(place.base(arch), **changes)
    model.config.name_or_path = f"bases/{arch}"
    if not cls.__name__.endswith("AdapterModel"):
        adapters.init(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # The library gives the merged projections of DeBERTa and ModernBERT a bias that no file has.
            if key.endswith(("in_proj.bias", "Wqkv.bias")):
                parameter.zero_()
    return model.eval()


def fill_head(model: Any, name: str, ours: Any) -> None:
    """Give the parameters of adapter and head random values."""
    gen = generator(f"head {name}")
    for key, parameter in model.named_parameters():
        if ours(key):
            gain = parameter.dim() == 1 and key.endswith("weight")
            fill(parameter, gen, 0.4 if parameter.dim() > 1 else 0.3, 1.0 if gain else 0.0)


def drawn(family: Family) -> dict[str, Any]:
    """Return pictures or sounds."""
    import torch

    shapes = {"image": ("pixel_values", (2, 3, 8, 8)), "sound": ("input_features", (2, 4, 48))}
    if family.reads not in shapes:
        return {}
    name, shape = shapes[family.reads]
    return {name: torch.round(torch.randn(shape, generator=generator(name)) * 64) / 64}


def answers(model: Any, batch: Options, floats: Options, right: Options) -> dict[str, Any]:
    """Return what a model answers to inputs with labels."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in {**batch, **right}.items()}
    with torch.no_grad():
        found = model(**tensors, **floats, return_dict=True)
    kept = ("loss", "logits", "start_logits", "end_logits", "rel_preds", "arc_preds")
    outputs = {name: found[name].clone().contiguous() for name in kept if found.get(name) is not None}
    assert all(bool(torch.isfinite(value).all()) for value in outputs.values()), outputs
    assert "loss" in outputs
    return outputs


def write(
    place: Place, name: str, arch: str, family: Family, outputs: Options, floats: Options, fields: Options
) -> None:
    """Write expected.safetensors and case.json."""
    from safetensors.torch import save_file

    save_file({**outputs, **floats}, place.root / name / "expected.safetensors")
    case = {
        "id": name,
        "arch": arch,
        "library": versions(),
        "base": f"../bases/{arch}",
        "base_class": family.plain,
        "adapters": [{"name": "task", "path": "adapters/task"}],
        "float_inputs": sorted(floats),
        "outputs": sorted(outputs),
        "tolerance": TOLERANCE,
    }
    write_json(place.root / name / "case.json", case | fields)


def heads_only(key: str) -> bool:
    words = (".adapters.task.", ".invertible_adapters.task.", ".prompt_tunings.task.", "prefix_tunings.task.")
    return key.startswith("heads.task.") or any(word in key for word in words)


def flexible(place: Place, arch: str, family: Family, name: str, kind: str, options: Options, beside: Any) -> None:
    """Make a case of a flexible head, alone or beside an adapter."""
    import adapters

    cls = getattr(adapters, f"{family.stem}AdapterModel")
    full = f"{arch}-{name}"
    model = load(place, arch, cls)
    if beside is not None:
        model.add_adapter("task", config=beside)
    with untied(model):
        model.add_prediction_head_from_config("task", {"head_type": kind, **options})
    head = model.heads["task"]
    fill_head(model, full, heads_only)
    if beside is not None:
        model.set_active_adapters("task")
    model.active_head = "task"
    model.eval()
    config = dict(head.config)
    count = config.get("num_labels") or config.get("vocab_size") or 2
    batch = inputs(family, kind, config.get("num_choices", 0))
    right = labels(kind, count, multilabel=bool(config.get("multilabel")))
    floats = drawn(family)
    outputs = answers(model, batch, floats, right)
    path = str(place.folder(full))
    if beside is None:
        model.save_head(path, "task", use_safetensors=True)
    else:
        model.save_adapter(path, "task", with_head=True, use_safetensors=True)
    again = load(place, arch, cls)
    with untied(again):
        if beside is None:
            again.load_head(path, use_safetensors=True)
        else:
            again.load_adapter(path, use_safetensors=True, set_active=True)
    again.active_head = "task"
    difference = largest(answers(again.eval(), batch, floats, right), outputs)
    assert difference == 0, (full, difference)
    fields = {
        "kind": "flexible",
        "method": kind,
        "options": options,
        "inputs": batch,
        "labels": right,
        "checks": {"reload_max_abs_diff": difference},
    }
    write(place, full, arch, family, outputs, floats, fields)


@contextlib.contextmanager
def untied(model: Any) -> Iterator[None]:
    """Let heads over the vocabulary have a last layer of their own; filling or loading it would change the base."""
    tied, model.config.tie_word_embeddings = model.config.tie_word_embeddings, False
    try:
        yield
    finally:
        model.config.tie_word_embeddings = tied


def own_output(model: Any) -> None:
    """Give a class of transformers output embeddings of its own."""
    import torch

    layer = model.get_output_embeddings()
    if layer is not None:
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone())


def static(
    place: Place, arch: str, family: Family, name: str, flex: Options, beside: Any = None, word: str = "beside"
) -> None:
    """Make a case of the head of a class of transformers, alone or beside an adapter, which word is for."""
    import transformers

    full = f"{arch}-{name.removeprefix(family.stem)}{'' if beside is None else '-' + word}"
    cls = getattr(transformers, name)
    classes = flex["head_type"] in ("classification", "image_classification", "tagging")
    model = load(place, arch, cls, **({"num_labels": 3} if classes else {}))
    prefix = f"{model.base_model_prefix}."
    outer = model.base_model is not model

    def ours(key: str) -> bool:
        return (
            not key.startswith((prefix, "encoder.", "decoder.", "shared."))
            if outer
            else key.startswith(("lm_head.", "qa_outputs."))
        )

    own_output(model)
    if beside is not None:
        model.add_adapter("task", config=beside)
        fill_head(model, full, heads_only)
        model.set_active_adapters("task")
    fill_head(model, full, ours)
    model.eval()
    for key, buffer in model.named_buffers():
        if key == "final_logits_bias":
            fill(buffer, generator(f"bias {full}"), 0.3)
    kind = flex["head_type"]
    count = SIZES["vocab_size"] if kind.endswith("lm") else model.config.num_labels
    batch, floats = inputs(family, kind, 3), drawn(family)
    right = labels(kind, count, static=True)
    outputs = answers(model, batch, floats, right)
    path = str(place.folder(full))
    if beside is not None:
        saved(path, lambda safe: model.save_adapter(path, "task", with_head=False, use_safetensors=safe))
    saved(path, lambda safe: model.save_head(path, None, use_safetensors=safe))
    fields = {
        "kind": "static",
        "method": kind,
        "head_class": name,
        "options": {},
        "inputs": batch,
        "labels": right,
        "checks": {},
    }
    if beside is not None and outer:
        fields["base_class"] = type(model.base_model).__name__.removesuffix("WithAdapters")
    write(place, full, arch, family, outputs, floats, fields)


def saved(path: str, save: Callable[[bool], None]) -> None:
    """Save something as safetensors, or as a pickle where tensors share memory, which the library cannot."""
    try:
        save(True)
    except RuntimeError:
        save(False)


def make(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch
    from adapters.head_utils import STATIC_TO_FLEX_HEAD_MAP as CLASSES

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for arch, family in FAMILIES.items():
            make_base(place, arch, family)
            for name, kind, options in variants(arch, family):
                flexible(place, arch, family, name, kind, options, None)
            further = {name: {"config": {"head_type": kind}} for name, kind in FURTHER.items()}
            for name, flex in {**CLASSES, **further}.items():
                if max((f.stem for f in FAMILIES.values() if name.startswith(f.stem)), key=len) == family.stem:
                    static(place, arch, family, name, flex["config"])
        beside(place)
        pack(place.root, archive, "head-cases")
        print(len(list(place.root.glob("*/case.json"))), "cases")


def beside(place: Place) -> None:
    """Make the heads beside adapters."""
    from adapters import PrefixTuningConfig, PromptTuningConfig, SeqBnInvConfig

    bert = FAMILIES["bert"]
    for name, kind, options in VARIANTS:
        if kind in bert.kinds.split() and "layers" not in name:
            flexible(place, "bert", bert, f"{name}-beside", kind, options, configuration((PRESETS["seq"],)))
    for name, kind, options in VARIANTS[:1] + [row for row in VARIANTS if row[0] in PROMPTED]:
        flexible(place, "bert", bert, f"prompt-{name}", kind, options, PromptTuningConfig(prompt_length=3))
    for arch, kind in INVERTED:
        name = f"inverse-{kind.removesuffix('_lm')}"
        flexible(place, arch, FAMILIES[arch], name, kind, {}, SeqBnInvConfig(reduction_factor=4))
    inverse = SeqBnInvConfig(reduction_factor=4)
    for arch, name in (("bert", "BertForMaskedLM"), ("modernbert", "ModernBertForMaskedLM")):
        static(place, arch, FAMILIES[arch], name, {"head_type": "masked_lm"}, inverse)
    for arch, name, kind in PREFIXED:
        prefix = PrefixTuningConfig(prefix_length=3, bottleneck_size=4)
        static(place, arch, FAMILIES[arch], name, {"head_type": kind}, prefix, "prefix")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
