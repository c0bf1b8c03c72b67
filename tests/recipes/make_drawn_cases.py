"""Make cases drawn at random as the library `adapters` computes them: what nobody thought of.

    python make_drawn_cases.py FOLDER DIMENSION FIRST LAST    needs adapters 1.3.0 and transformers 4.57.6
    python make_drawn_cases.py sample [ARCHIVE]               those of tests/data/drawn-cases.tar.gz

FOLDER gets a folder for each case with what the library wrote, cases.json and expected.safetensors. A case follows from
its dimension and its number (drawn_options.py).
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from drawn_models import answers, configuration, head_class, inputs, plain, set_attention, taken_by
from drawn_options import LATER, MODELS, Options, composition_case, dated_case, default_case, method_case
from families import settle, values
from make_bottleneck_cases import pack
from make_family_cases import MUTED, without_made_up_biases
from reference_models import CRASHES, LARGEST_OUTPUT, stand_in_for_torchvision

ARCHIVE = Path(__file__).parent.parent / "data" / "drawn-cases.tar.gz"
FOUND: dict[str, list[int]] = {
    "default": [83, 108],
    "method": [
        *(976, 1000, 1176, 1180, 1188, 1286, 1334, 1355, 1420, 1436, 1487, 1512, 1516, 1620, 1667, 1691, 1704),
        *(1844, 1917, 1931, 1932, 1991, 2013, 2150, 2193, 2195, 2387),
    ],
    "composition": [
        *(8, 11, 17, 63, 77, 82, 83, 148, 198, 215, 239, 281, 327, 338, 347, 373, 390, 393, 413, 416, 470, 514, 517),
        *(525, 533, 538, 545, 588, 600, 611, 621, 624, 668, 677, 1500, 1511, 2160),
    ],
    "dated": [276, 313, 376],
}
"""Dimension → numbers of the cases that found a fault of ours."""

STEPS = {"default": 29, "method": 23, "composition": 19, "dated": 37}
"""Dimension → every which case is in the sample besides."""

DIMENSIONS = {"default": default_case, "method": method_case, "composition": composition_case, "dated": dated_case}
UNTOUCHED = 1e-5
SCALES: tuple[str, ...] = (
    ".scaling",
    "adapter_norm_before.weight",
    "adapter_norm_after.weight",
    "m.weight",
    ".weights",
)
SCALES += ("task_specific.values",)


def adapted(case: Options) -> tuple[Any, Any, str]:
    """Return a model that takes adapters, the bare one in it, and of which kind it is."""
    import adapters

    name, kind = case["family"], case["class"]
    own = MODELS[name].model.removesuffix("Model").removesuffix("Encoder") + "AdapterModel"
    if kind == "own" and not MODELS[name].parts and hasattr(adapters, own):
        config = configuration(name)
        if case["attention"] is not None:
            set_attention(config, case["attention"])
        model = getattr(adapters, own)(config)
        bare = settle(model.base_model)
        without_made_up_biases(model)
        return model.eval(), bare, "own"
    model, bare = plain(name, kind, case["attention"])
    adapters.init(model)
    without_made_up_biases(model)
    return model, bare, "head" if kind == "head" and head_class(name) else "bare"


def config_of(members: list[Options]) -> Any:
    """Return the configuration of an adapter."""
    from adapters import AdapterConfig, BnConfig, ConfigUnion

    made = [AdapterConfig.load(dict(m)) if "architecture" in m else BnConfig(**m) for m in members]
    return made[0] if len(made) == 1 else ConfigUnion(*made)


def fill(model: Any, name: str, case: str) -> None:
    """Give an adapter or a fusion layer weights with an effect everywhere."""
    import torch

    for key, base in model.named_buffers():
        if f".{name}." in key and key.endswith(".base"):
            order = torch.argsort(values(f"{case} {key}", base.shape[:1], 1.0) * len(base) + torch.arange(len(base)))
            base.copy_(torch.eye(len(base))[order])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f".{name}." not in f".{key}" or ".pool." in key:
                continue
            scale = key.endswith(SCALES) or (key.endswith("lora_B") and parameter.shape[1:] == (1,))
            wide = 0.9 if "phm_rule" in key else 0.2 if key.endswith("vera_B") else 0.3 if "invertible" in key else 0.5
            new = values(f"{case} {key}", parameter.shape, wide, 1.0 if scale else 0.0)
            if key.endswith(".original"):
                new.diagonal().copy_(parameter.diagonal())
            parameter.copy_(new)


def save(model: Any, name: str, folder: Path) -> bool:
    """Save an adapter; return whether as safetensors, which the library cannot where a tensor has several names."""
    folder.mkdir(parents=True)
    try:
        model.save_adapter(str(folder), name, use_safetensors=True, with_head=False)
    except RuntimeError as error:
        if "share memory" not in str(error) and "shared" not in str(error):
            raise
        for file in folder.iterdir():
            file.unlink()
        model.save_adapter(str(folder), name, use_safetensors=False, with_head=False)
        return False
    return True


def folder_of(root: Path, identity: str, name: str) -> Path:
    """Return the folder of an adapter or a fusion layer."""
    return root / identity / name.replace(",", "+")


def date_back(path: Path, era: str) -> None:
    """Let a document be of an earlier release, without the fields and the version that it did not have."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document.pop("version")
    document |= {} if era == "v2" else {"version": era}
    later = next(names for start, names in LATER.items() if era.startswith(start))
    for config in document["config"].get("configs", [document["config"]]):
        for name in later:
            config.pop(name, None)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def setup_of(case: Options) -> Any:
    """Return what is active: a name, or a composition of the library."""
    return next(iter(case["adapters"])) if "active" not in case else node(case["active"])


def node(data: Any) -> Any:
    """Return a composition of `adapters`."""
    from make_composition_cases import node as made

    return made(data)


def saved(root: Path, identity: str, case: Options) -> tuple[Any, Any, dict[str, bool]]:
    """Save what a case has; return the model with it, the bare one in it, and name → whether as safetensors."""
    from adapters.configuration import DynamicAdapterFusionConfig

    model, bare, _ = adapted(case)
    safe = {}
    for name, members in case["adapters"].items():
        model.add_adapter(name, config=config_of(members))
        fill(model, name, identity)
        safe[name] = save(model, name, folder_of(root, identity, name))
        if "era" in case:
            date_back(folder_of(root, identity, name) / "adapter_config.json", case["era"])
    for name, changes in case.get("fusions", {}).items():
        model.add_adapter_fusion(name.split(","), DynamicAdapterFusionConfig(**changes))
        fill(model, name, identity)
        folder = folder_of(root, identity, name)
        folder.mkdir(parents=True)
        model.save_adapter_fusion(str(folder), name.split(","), use_safetensors=True)
    model.set_active_adapters(setup_of(case))
    return model.eval(), bare, safe


def reloaded(root: Path, identity: str, case: Options, safe: dict[str, bool]) -> tuple[Any, Any, str, list[str]]:
    """Return a new model with the files of a case, the bare one in it, of which kind it is, and keys that are amiss."""
    model, bare, kind = adapted(case)
    lost: list[str] = []
    for name in case["adapters"]:
        info: dict[str, Any] = {}
        model.load_adapter(str(folder_of(root, identity, name)), use_safetensors=safe[name], loading_info=info)
        lost += info["missing_keys"] + info["unexpected_keys"]
    for name in case.get("fusions", {}):
        model.load_adapter_fusion(str(folder_of(root, identity, name)), use_safetensors=True)
    model.set_active_adapters(setup_of(case))
    return model.eval(), bare, kind, lost


def make_case(root: Path, identity: str, case: Options) -> tuple[dict[str, Any], Options]:
    """Save the adapters of a case; return the outputs of a new model with the files, and what is known of it."""
    import torch

    torch.manual_seed(0)
    _, before = plain(case["family"], "bare", case["attention"])
    given = inputs(identity, case["shape"], taken_by(before))
    base, idle = answers(before, given), answers(adapted(case)[1], given)
    if case["family"] not in MUTED and distance(base, idle) > UNTOUCHED:
        raise ValueError("the library changes the model, whatever is active")
    _, bare, safe = saved(root, identity, case)
    first = answers(bare, given)
    model, bare, kind, lost = reloaded(root, identity, case, safe)
    found = answers(bare, given)
    told: Options = {"lost": lost[:1]} if lost else {}
    told |= {"reloads_otherwise": True} if distance(first, found) > 0 else {}
    if kind == "head" and not lost:
        found |= {f"head.{key}": value for key, value in answers(model, given).items()}
    largest = max(float(value.abs().max()) for value in found.values())
    if not largest < LARGEST_OUTPUT:
        raise ValueError(f"the output is as large as {largest}")
    told |= {"id": identity, "class": kind, "change": distance(base, found)}
    return found | {f"base.{key}": value for key, value in base.items()}, case | told


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference of outputs that both have, in the same shape."""
    both = [key for key in one if key in other and one[key].shape == other[key].shape]
    return max((float((one[key] - other[key]).abs().max()) for key in both), default=0.0)


def make(root: Path, numbers: Mapping[str, Iterable[int]], *, bases: bool = True) -> None:
    """Make cases of these numbers.

    numbers: dimension → those of its cases; bases: keep what the plain models compute too.
    """
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    stand_in_for_torchvision()
    root.mkdir(parents=True, exist_ok=True)
    cases: list[Options] = []
    refused: list[Options] = []
    expected: dict[str, Any] = {}
    for dimension, number in ((dimension, number) for dimension, all_ in numbers.items() for number in all_):
        identity, case = f"{dimension}-{number}", DIMENSIONS[dimension](number)
        try:
            found, fields = make_case(root, identity, case)
        except (*CRASHES, IndexError, AssertionError, NotImplementedError) as error:
            text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            refused.append(case | {"id": identity, "error": text})
            shutil.rmtree(root / identity, ignore_errors=True)
            continue
        cases.append(fields)
        expected |= {f"{identity} {key}": value for key, value in found.items() if bases or not key.startswith("base.")}
    save_file(expected, root / "expected.safetensors")
    document = {"cases": cases, "refused": refused}
    (root / "cases.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(len(cases), "cases,", len(refused), "refused")


def sample(archive: Path) -> None:
    """Pack the cases that found faults, and a fair sample of all."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = {name: sorted({*FOUND[name], *range(0, 600, step)}) for name, step in STEPS.items()}
        make(Path(folder), numbers, bases=False)
        pack(Path(folder), archive, "drawn-cases")
    print(archive, archive.stat().st_size)


if __name__ == "__main__":
    if sys.argv[1:2] == ["sample"]:
        sample(Path(sys.argv[2]) if len(sys.argv) > 2 else ARCHIVE)
    else:
        make(Path(sys.argv[1]), {sys.argv[2]: range(int(sys.argv[3]), int(sys.argv[4]))})
