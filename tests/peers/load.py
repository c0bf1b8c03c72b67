"""Load what was written for one library with that library, and keep where its outputs are not those of the cases.

python load.py adapters|peft FOLDER      in an environment with the library and without this project
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file


def main() -> None:
    """Run every case."""
    name, place = sys.argv[1], Path(sys.argv[2])
    library = importlib.import_module(name)
    if name == "adapters":
        sys.path.append(str(Path(__file__).parent.parent / "recipes"))
        importlib.import_module("reference_models").stand_in_for_torchvision()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    same, other = [], {}
    bases: dict[Any, Any] = {}
    for row in json.loads((place / f"{name}.json").read_text("utf-8")):
        try:
            with torch.no_grad():
                fault = LOADERS[name](library, row, bases)
        except Exception as error:  # noqa: BLE001 (whatever a library says of what it is given)
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if fault:
            other[row["name"]] = fault
        else:
            same.append(row["name"])
    found = {"library": f"{name} {library.__version__}", "same": same, "other": other}
    (place / f"{name}-found.json").write_text(json.dumps(found), "utf-8")


def with_adapters(library: Any, row: dict[str, Any], bases: dict[Any, Any]) -> str:
    """Return what is wrong with a folder as `adapters` loads it, "" if nothing."""
    folder = Path(row["folder"])
    config = folder / "adapter_config.json"
    by_peft = row["kind"] == "peft-loader"
    if config.exists() and '"prefix_tuning"' in config.read_text("utf-8"):
        # Under other attentions the library loses the prefix in decoders; where it made the case, the case says which.
        row = {**row, "attn_implementation": row["attn_implementation"] or ("eager" if by_peft else None)}
    flexible = (folder / "head_config.json").exists() and "AdapterModel" in (folder / "head_config.json").read_text()
    if flexible:
        model = base_of({**row, "base": row["bare_base"]}, bases, library.AutoAdapterModel)
    else:
        labels = (
            load_file(row["expected"])[row.get("expected_key", "output")].shape[-1]
            if "Classification" in row["base_class"]
            else None
        )
        model = base_of(row, bases, getattr(transformers, row["base_class"]), labels)
        library.init(model)
    tied = with_own_output(model)
    without_made_up_biases(model)
    plain = model.state_dict().keys()
    info: dict[str, Any] = {}
    if config.exists():
        safe = (folder / "adapter.safetensors").exists()
        name = model.load_adapter(row["folder"], use_safetensors=safe, loading_info=info)
        model.set_active_adapters(name)
    else:
        safe = (folder / "model_head.safetensors").exists()
        model.load_head(row["folder"], use_safetensors=safe, loading_info=info)
        name = json.loads((folder / "head_config.json").read_text("utf-8"))["name"]
    if flexible:
        model.active_head = name
    model.config.tie_word_embeddings = tied
    # Every attention names the pool of prefixes once more, and two models in one what they share, which is one.
    again = (
        ".pool.",
        *(("shared_parameters.", "invertible_adapters.") if "EncoderDecoder" in row["base_class"] else ()),
    )
    every = [key for keys in info.values() if isinstance(keys, list) for key in keys]
    # The head of some classes of T5 is looked for together with the base model's own weights, which are there.
    own = load_file(folder / "adapter.safetensors") if (folder / "adapter.safetensors").exists() else {}
    lost = [key for key in every if key not in plain and key not in own and not any(word in key for word in again)]
    return compared(model.eval(), row) or (f"keys that are missing or left over: {lost[:3]}" if lost else "")


def with_own_output(model: Any) -> Any:
    """Give a model output embeddings of its own, for a head to fill; return whether its configuration ties them."""
    tied, model.config.tie_word_embeddings = model.config.tie_word_embeddings, False
    layer = None if type(model).__name__.endswith("AdapterModel") else model.get_output_embeddings()
    if layer is not None:
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    return tied


def without_made_up_biases(model: Any) -> None:
    """Take the random bias away that the library gives to a merged projection without one, and saves nowhere."""
    for key, parameter in model.named_parameters():
        if key.endswith(("attention.self.in_proj.bias", "attn.Wqkv.bias")):
            parameter.data.zero_()


def with_peft(library: Any, row: dict[str, Any], bases: dict[Any, Any]) -> str:
    """Return what is wrong with a folder as PEFT loads it, "" if nothing."""
    document = json.loads((Path(row["folder"]) / "adapter_config.json").read_text("utf-8"))
    if "PEFT_PLUGIN" in document.get("peft_type", ""):
        importlib.import_module("adapterhub.peft_plugin")
    wrapped = row["base_class"] if row["kind"] == "peft-loader" else wrapped_by(document, row["base_class"])
    labels = (
        load_file(row["expected"])[row.get("expected_key", "output")].shape[-1] if "Classification" in wrapped else None
    )
    model = base_of(row, bases, getattr(transformers, wrapped), labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return compared(library.PeftModel.from_pretrained(model, row["folder"]).eval(), row)


def wrapped_by(document: dict[str, Any], plain: str) -> str:
    """Return the class that a document is for; plain: the one of a case, which may have no head."""
    named = (document.get("auto_mapping") or {}).get("base_model_class")
    head = TASKS.get(document.get("task_type") or "") if document.get("modules_to_save") else None
    return named or (f"{plain.removesuffix('Model')}{head}" if head and plain.endswith("Model") else plain)


def base_of(row: dict[str, Any], bases: dict[Any, Any], kind: Any, labels: int | None = None) -> Any:
    """Return a fresh base model; labels: of its head."""
    attention = row["attn_implementation"]
    key = row["base"], kind.__name__, attention, labels
    if key not in bases:
        words: dict[str, Any] = {"attn_implementation": attention} if attention else {}
        words |= {"num_labels": labels} if labels else {}
        bases[key] = kind.from_pretrained(row["base"], **words).eval()
    return copy.deepcopy(bases[key])


def compared(model: Any, row: dict[str, Any]) -> str:
    """Return how far a model's output is off, "" where it is the expected one."""
    expected = load_file(row["expected"])
    inputs = {name: torch.tensor(value) for name, value in (row["inputs"] or {}).items()}
    inputs |= {name: expected[name] for name in row["float_inputs"] or ()}
    found, wanted = model(**inputs)[row["output_key"]], expected[row.get("expected_key", "output")]
    tolerance = row["tolerance"] or {"atol": 1e-4, "rtol": 1e-4}
    if found.shape != wanted.shape:
        return f"an output of shape {tuple(found.shape)} in place of {tuple(wanted.shape)}"
    return "" if torch.allclose(found, wanted, **tolerance) else f"off by {float((found - wanted).abs().max()):.2g}"


TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}
LOADERS = {"adapters": with_adapters, "peft": with_peft}

if __name__ == "__main__":
    main()
