"""Cases of files as earlier releases wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bottleneck_cases import Workplace, adapted, adapter_row
from bottleneck_options import CURRENT, LATER_FIELDS, SEQ, TASK, UPPER, V1_EXTRA, V1_FIELDS, Head, Legacy, Options
from head_cases import headed
from reference_models import (
    ARCHITECTURES,
    CRASHES,
    LEAST_EFFECT,
    configuration,
    largest,
    relative,
    run,
    with_adapters,
    within_tolerance,
)

RENAMED = {"gelu": "gelu_new", "gelu_orig": "gelu"}


def written_version(era: str) -> str | None:
    """Return the version string that an era wrote."""
    return None if era in ("prev1", "v1", "v2") else era


def meaning(options: Options, era: str) -> Options:
    """Return today's options for those of an era: without a version, gelu was the tanh approximation."""
    name = options["non_linearity"]
    return options if written_version(era) else options | {"non_linearity": RENAMED.get(name, name)}


def old_config(options: Options, era: str, extra: Options) -> Options:
    """Return the method part of adapter_config.json as an era wrote it."""
    full = dict(configuration((options,)).to_dict())
    if era in ("prev1", "v1"):
        old = {k: full[k] for k in V1_FIELDS} | V1_EXTRA | extra
        if era == "prev1":
            del old["leave_out"]
            old = {UPPER.get(k, k): v for k, v in old.items()}
        return old
    if era == "v2":
        return {k: full[k] for k in V1_FIELDS} | {"inv_adapter": None, "inv_adapter_reduction_factor": None}
    return {k: v for k, v in full.items() if k not in LATER_FIELDS}


def old_key(key: str, words: tuple[str, str]) -> str:
    """Return a tensor's name with the word that its place had."""
    attention = ".attention.output.adapters." in key or ".attention_adapters.adapters." in key
    return key.replace(".adapters.task.", f".{words[0] if attention else words[1]}.task.")


def old_files(path: Path, model: Any, case: Legacy, arch: str) -> None:
    """Write an adapter folder as an era wrote it."""
    import torch

    prefix = f"{arch}." if case.prefix else ""
    ours = {k: v.clone() for k, v in model.state_dict().items() if ".adapters.task." in k}
    ours = {prefix + old_key(k.removeprefix(f"{arch}."), case.words): v for k, v in ours.items()}
    torch.save(ours, path / "pytorch_adapter.bin")
    meta: Options = {"config": old_config(case.options, case.era, case.extra), "name": "task", "hidden_size": 32}
    meta |= {"model_type": arch, "model_name": f"bases/{arch}", "model_class": old_class(arch, case)}
    write_old_json(path / "adapter_config.json", meta, case.era, case.type)


def old_class(arch: str, case: Legacy) -> str:
    """Return the class name of an era."""
    kind = "AdapterModel" if case.era.startswith("adapters.") else "ModelWithHeads"
    return ARCHITECTURES[arch][0] + (kind if case.prefix else "Model")


def write_old_json(path: Path, meta: Options, era: str, type_: str | None = None) -> None:
    """Write a config of an era: with its version and type where it had them."""
    version = written_version(era)
    meta = meta | ({"version": version} if version else {}) | ({"type": type_} if type_ else {})
    path.write_text(json.dumps(meta, indent=2, sort_keys=True), encoding="utf-8")


def try_old(place: Workplace, arch: str, base: str, name: str) -> tuple[dict[str, Any] | None, Options]:
    """Return what the library makes of old files, or None and why."""
    model = with_adapters(place.root, arch, base)
    info: dict[str, Any] = {}
    try:
        model.load_adapter(str(place.root / name / "adapters" / "task"), loading_info=info)
    except CRASHES as error:
        return None, {"reference_loads": False, "reference_error": f"{type(error).__name__}: {error}"[:200]}
    if info["missing_keys"]:
        return None, {"reference_loads": False, "reference_missing_keys": len(info["missing_keys"])}
    model.set_active_adapters("task")
    return run(model.eval(), "last_hidden_state"), {"reference_loads": True}


def legacy_case(place: Workplace, arch: str, case: Legacy) -> None:
    """Make a case of an old folder; where the library cannot read it, the output is that of today's config."""
    name = f"f-{arch}-{case.name}"
    mapped = bool(case.options.get("leave_out")) or isinstance(case.options["reduction_factor"], dict)
    base = f"{arch}3" if mapped else arch
    options = meaning(case.options, case.era)
    model = adapted(place, arch, base, (options,), name)
    today = run(model, "last_hidden_state")
    old_files(place.folder(name), model, case, arch)
    outputs, checks = try_old(place, arch, base, name)
    if outputs is not None:
        checks["legacy_vs_current_max_abs_diff"] = largest(outputs, today)
        assert checks["legacy_vs_current_max_abs_diff"] == 0, (name, checks)
    checks["rel_diff_vs_base"] = relative(today, place.base_output(arch, base, "Model"))
    assert checks["rel_diff_vs_base"] > LEAST_EFFECT, (name, checks)
    if options != case.options and case.options["non_linearity"] != "gelu_orig":
        literal = run(adapted(place, arch, base, (case.options,), name), "last_hidden_state")
        checks["activation_taken_literally_max_abs_diff"] = largest(today, literal)
        assert not within_tolerance(literal, today), (name, checks)
    fields = {
        "group": "F",
        "kind": "legacy",
        "method": case.name,
        "options": [options],
        "adapters": adapter_row("bin", False),
        "output_key": "last_hidden_state",
        "checks": checks,
        "what": "files as an earlier release wrote them; `options` is what they mean today; `output` is what adapters"
        " gives for these files, or for `options` where checks.reference_loads is false",
    }
    place.write(name, arch, base, "Model", today, fields)


def legacy_head_case(place: Workplace, arch: str, short: str, era: str, head: Head) -> None:
    """Make a case of an old flexible head beside a v1 (or later) adapter."""
    import torch

    name = f"f-{arch}-head-{short}"
    model = headed(place, arch, name, head, "seq")
    path = place.folder(name)
    case = Legacy(short, era, TASK if era == "v1" else CURRENT, SEQ, "text_task" if era == "v1" else None)
    old_files(path, model, case, arch)
    config = dict(model.heads["task"].config)
    for later in ("dropout_prob", "bias", *(() if era.startswith("3") else ("use_pooler",))):
        del config[later]
    meta: Options = {"config": config, "name": "task", "hidden_size": 32, "model_name": f"bases/{arch}"}
    meta |= {"model_type": arch, "model_class": old_class(arch, case)}
    write_old_json(path / "head_config.json", meta, era)
    weights = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("heads.task.")}
    torch.save(weights, path / "pytorch_model_head.bin")
    again = with_adapters(place.root, arch, arch, "AdapterModel")
    again.load_adapter(str(path))
    again.set_active_adapters("task")
    again.active_head = "task"
    outputs = run(again.eval(), "logits")
    checks = {"legacy_vs_current_max_abs_diff": largest(outputs, run(model, "logits"))}
    assert checks["legacy_vs_current_max_abs_diff"] == 0, (name, checks)
    fields = {
        "group": "F",
        "kind": "legacy-head",
        "method": short,
        "active_head": "task",
        "options": [SEQ],
        "adapters": adapter_row("bin", True),
        "base_output_key": "last_hidden_state",
        "output_key": "logits",
        "output_keys": ["logits"],
        "checks": checks,
        "what": "flexible head of an earlier release beside its adapter; `output` is what adapters gives for them",
    }
    place.write(name, arch, arch, "Model", outputs, fields)
