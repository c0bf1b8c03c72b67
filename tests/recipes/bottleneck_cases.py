"""One case: its folder, its files, and the checks made before it is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bottleneck_options import CLIPPED, WITH_WEIGHTS, Options
from reference_models import (
    ARCHITECTURES,
    CRASHES,
    LARGEST_OUTPUT,
    LEAST_EFFECT,
    PADDED,
    TOLERANCE,
    UNPADDED,
    configuration,
    fill_adapter,
    is_ours,
    largest,
    load_base,
    relative,
    run,
    with_adapters,
)


class Workplace:
    """The folder being filled, the outputs of the bases, and what the library could not run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: list[Options] = []
        self._bases: dict[str, dict[str, Any]] = {}

    def base_output(self, arch: str, base: str, kind: str) -> dict[str, Any]:
        """Return what the plain base computes."""
        if base not in self._bases:
            key = "last_hidden_state" if kind == "Model" else "logits"
            self._bases[base] = run(load_base(self.root, arch, base, kind), key)
        return self._bases[base]

    def refuse(self, arch: str, options: list[Options], error: Exception) -> None:
        """Note that the library fails with these options (of a bottleneck, a union, or a head)."""
        text = str(error).strip("'\"").splitlines()[0][:120]
        self.refused.append({"arch": arch, "options": options, "error": f"{type(error).__name__}: {text}"})

    def folder(self, name: str) -> Path:
        """Return the adapter folder of a new case."""
        path = self.root / name / "adapters" / "task"
        path.mkdir(parents=True)
        return path

    def write(self, name: str, arch: str, base: str, base_kind: str, outputs: dict[str, Any], fields: Options) -> None:
        """Write expected.safetensors and case.json."""
        from safetensors.torch import save_file

        tensors = {f"base_output{k}": v for k, v in self.base_output(arch, base, base_kind).items()}
        tensors |= {f"output{k}": v for k, v in outputs.items()}
        save_file({k: v.clone() for k, v in tensors.items()}, self.root / name / "expected.safetensors")
        case = {
            "id": name,
            "arch": arch,
            "library": versions(),
            "base": f"../bases/{base}",
            "base_class": ARCHITECTURES[arch][0] + base_kind,
            "fusions": [],
            "active": "task",
            "inputs": PADDED,
            "inputs_unpadded": UNPADDED,
            "float_inputs": [],
            "expected": "expected.safetensors",
            "tolerance": TOLERANCE,
        }
        write_json(self.root / name / "case.json", case | fields)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that compute the outputs."""
    from importlib.metadata import version

    return {name: version(name) for name in ("adapters", "safetensors", "torch", "transformers")}


def write_json(path: Path, value: Any) -> None:
    """Write sorted JSON."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def weights_format(name: str, options: tuple[Options, ...]) -> str:
    """Return how to save: .bin where a tensor has two names, which the library cannot write otherwise, or by chance."""
    if any(o.get("ln_before") or o["non_linearity"] in WITH_WEIGHTS for o in options):
        return "bin"
    return "bin" if hashlib.sha256(name.encode()).digest()[0] % 4 == 0 else "safetensors"


def adapter_row(form: str, with_head: bool) -> list[Options]:
    """Return the `adapters` entry of case.json."""
    return [{"name": "task", "path": "adapters/task", "weights_format": form, "with_head": with_head}]


def width(options: tuple[Options, ...]) -> tuple[float, float]:
    """Return the widths of the matrices: small where no norm bounds the result, large where a clip has to be met."""
    if any(not o.get("original_ln_after", True) for o in options):
        return (0.1, 0.25)
    return (1.5, 2.0) if options[0]["non_linearity"] in CLIPPED else (0.3, 0.6)


def adapted(place: Workplace, arch: str, base: str, options: tuple[Options, ...], name: str) -> Any:
    """Return a base with the adapter of a case, filled and active."""
    model = with_adapters(place.root, arch, base)
    model.add_adapter("task", config=configuration(options))
    fill_adapter(model, name, width(options))
    model.set_active_adapters("task")
    return model.eval()


def reload(place: Workplace, arch: str, base: str, name: str, form: str) -> Any:
    """Return a new base with the case's files loaded and active."""
    model = with_adapters(place.root, arch, base)
    info: dict[str, Any] = {}
    path = str(place.root / name / "adapters" / "task")
    model.load_adapter(path, use_safetensors=form == "safetensors", loading_info=info)
    assert not info["missing_keys"] + info["unexpected_keys"], info
    model.set_active_adapters("task")
    return model.eval()


def effect_of_options(
    place: Workplace, arch: str, base: str, model: Any, preset: Options, got: dict[str, Any]
) -> Options:
    """Return how far the output moves when the same weights run under the preset; nothing if the shapes differ."""
    other = adapted(place, arch, base, (preset,), "preset")
    mine, state = model.state_dict(), other.state_dict()
    ours = [k for k in state if is_ours(k)]
    if any(k not in mine or mine[k].shape != state[k].shape for k in ours):
        return {}
    other.load_state_dict({k: mine[k] for k in ours}, strict=False)
    return {"rel_diff_to_preset": relative(got, run(other, "last_hidden_state"))}


def base_for(arch: str, options: tuple[Options, ...]) -> str:
    """Return the base with three layers where options speak of layers, else that with two."""
    mapped = any(o.get("leave_out") or isinstance(o["reduction_factor"], dict) for o in options)
    return f"{arch}3" if mapped else arch


def runs(place: Workplace, arch: str, options: tuple[Options, ...]) -> bool:
    """Return whether the library can run these options; note them where it cannot."""
    try:
        run(adapted(place, arch, base_for(arch, options), options, "try"), "last_hidden_state")
    except CRASHES as error:
        place.refuse(arch, list(options), error)
        return False
    return True


def bottleneck_case(
    place: Workplace, arch: str, name: str, options: tuple[Options, ...], preset: Options | None = None
) -> None:
    """Make a case of one bottleneck or a union."""
    base = base_for(arch, options)
    model = adapted(place, arch, base, options, name)
    outputs = run(model, "last_hidden_state")
    plain = place.base_output(arch, base, "Model")
    form = weights_format(name, options)
    model.save_adapter(str(place.folder(name)), "task", use_safetensors=form == "safetensors")
    again = reload(place, arch, base, name, form)
    checks: Options = {
        "rel_diff_vs_base": relative(outputs, plain),
        "reload_max_abs_diff": largest(run(again, "last_hidden_state"), outputs),
    }
    again.set_active_adapters(None)
    checks["inactive_vs_base_max_abs_diff"] = largest(run(again, "last_hidden_state"), plain)
    if preset is not None:
        checks |= effect_of_options(place, arch, base, model, preset, outputs)
    checks["max_abs_output"] = max(float(v.abs().max()) for v in outputs.values())
    assert checks["rel_diff_vs_base"] > LEAST_EFFECT, (name, checks)
    assert checks["max_abs_output"] < LARGEST_OUTPUT, (name, checks)
    assert max(checks["reload_max_abs_diff"], checks["inactive_vs_base_max_abs_diff"]) == 0, (name, checks)
    fields = {
        "group": "A",
        "kind": "adapters-loader",
        "method": "bottleneck",
        "options": list(options),
        "adapters": adapter_row(form, False),
        "output_key": "last_hidden_state",
        "checks": checks,
        "what": "load the files on the plain base, activate `active`: output_key equals `output` for `inputs` and"
        " `output_unpadded` for `inputs_unpadded`; with none active it equals `base_output*`",
    }
    place.write(name, arch, base, "Model", outputs, fields)
