"""Cases of flexible and static heads."""

from __future__ import annotations

from typing import Any

from bottleneck_cases import Workplace, adapter_row, weights_format
from bottleneck_options import PRESETS, Head, Options
from reference_models import CRASHES, LEAST_EFFECT, configuration, fill_adapter, largest, relative, run, with_adapters


def headed(place: Workplace, arch: str, name: str, head: Head, preset: str | None) -> Any:
    """Return an AdapterModel with a filled head and perhaps an adapter."""
    from adapters.heads import ClassificationHead

    model = with_adapters(place.root, arch, arch, "AdapterModel")
    if preset is not None:
        model.add_adapter("task", config=configuration((PRESETS[preset],)))
    model.add_prediction_head(ClassificationHead(model, "task", **vars(head)))
    fill_adapter(model, name)
    if preset is not None:
        model.set_active_adapters("task")
    model.active_head = "task"
    return model.eval()


def head_case(place: Workplace, arch: str, name: str, head: Head, preset: str | None) -> None:
    """Make a case of a flexible head, with an adapter or alone."""
    try:
        model = headed(place, arch, name, head, preset)
        outputs = run(model, "logits")
    except CRASHES as error:
        place.refuse(arch, [vars(head)], error)
        return
    form = weights_format(name, ())
    safe = form == "safetensors"
    path = str(place.folder(name))
    again = with_adapters(place.root, arch, arch, "AdapterModel")
    if preset is None:
        model.save_head(path, "task", use_safetensors=safe)
        again.load_head(path, use_safetensors=safe)
    else:
        model.save_adapter(path, "task", with_head=True, use_safetensors=safe)
        again.load_adapter(path, use_safetensors=safe)
        again.set_active_adapters("task")
    again.active_head = "task"
    checks: Options = {"reload_max_abs_diff": largest(run(again.eval(), "logits"), outputs)}
    if preset is not None:
        again.set_active_adapters(None)
        checks["rel_diff_adapter_on_off_same_head"] = relative(outputs, run(again, "logits"))
        assert checks["rel_diff_adapter_on_off_same_head"] > LEAST_EFFECT, (name, checks)
    again.active_head = None
    checks["inactive_vs_base_max_abs_diff"] = largest(
        run(again, "last_hidden_state"), place.base_output(arch, arch, "Model")
    )
    assert max(checks["reload_max_abs_diff"], checks["inactive_vs_base_max_abs_diff"]) == 0, (name, checks)
    fields = {
        "group": "C",
        "kind": "head" if preset else "head-only",
        "method": "classification",
        "active": "task" if preset else None,
        "active_head": "task",
        "options": [PRESETS[preset]] if preset else [],
        "adapters": adapter_row(form, True),
        "base_output_key": "last_hidden_state",
        "output_key": "logits",
        "output_keys": ["logits"],
        "checks": checks,
        "what": "flexible head saved beside the adapter (alone where `active` is null): run the base with both,"
        " `output` is the logits; `base_output` is base_output_key of the plain base",
    }
    place.write(name, arch, arch, "Model", outputs, fields)


def static_model(place: Workplace, arch: str, base: str) -> Any:
    """Return the class with a static head, ready for adapters."""
    return with_adapters(place.root, arch, base, "ForSequenceClassification")


def static_case(place: Workplace, arch: str, name: str, labels: int, options: Options) -> None:
    """Make a case of an adapter saved with the head of a plain classification class."""
    base = f"{arch}_cls{labels}"
    model = static_model(place, arch, base)
    model.add_adapter("task", config=configuration((options,)))
    fill_adapter(model, name)
    model.set_active_adapters("task")
    outputs = run(model.eval(), "logits")
    form = weights_format(name, (options,))
    safe, path = form == "safetensors", str(place.folder(name))
    model.save_adapter(path, "task", with_head=True, use_safetensors=safe)
    again = static_model(place, arch, base)
    again.load_adapter(path, use_safetensors=safe)
    again.set_active_adapters("task")
    plain = place.base_output(arch, base, "ForSequenceClassification")
    checks = {
        "rel_diff_vs_base": relative(outputs, plain),
        "reload_max_abs_diff": largest(run(again.eval(), "logits"), outputs),
        "flexible_class_max_abs_diff": largest(static_as_flexible(place, arch, base, path, safe), outputs),
    }
    again.set_active_adapters(None)
    checks["rel_diff_adapter_on_off_same_head"] = relative(outputs, run(again, "logits"))
    assert checks["rel_diff_adapter_on_off_same_head"] > LEAST_EFFECT, (name, checks)
    assert checks["reload_max_abs_diff"] == 0, (name, checks)
    fields = static_fields(options, form, checks)
    place.write(name, arch, base, "ForSequenceClassification", outputs, fields)


def static_as_flexible(place: Workplace, arch: str, base: str, path: str, safe: bool) -> dict[str, Any]:
    """Return the logits of the same files in the class with flexible heads, which converts the head."""
    model = with_adapters(place.root, arch, base, "AdapterModel")
    model.load_adapter(path, use_safetensors=safe, load_as="task")
    model.set_active_adapters("task")
    model.active_head = "task"
    return run(model.eval(), "logits")


def static_fields(options: Options, form: str, checks: Options) -> Options:
    """Return the fields of case.json that static heads share."""
    return {
        "group": "C",
        "kind": "static-head",
        "method": "classification",
        "active_head": None,
        "options": [options],
        "adapters": adapter_row(form, True),
        "base_output_key": "logits",
        "output_key": "logits",
        "output_keys": ["logits"],
        "checks": checks,
        "what": "adapter saved with the head of base_class (head_config.json has config null): the head of the file"
        " replaces that of the base; `base_output` is the base with its own head and no adapter",
    }
