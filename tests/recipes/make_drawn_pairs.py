"""Make adapters drawn at random, of one library, that the other may have words for; `make peers FOLDER` takes them on.

    python make_drawn_pairs.py bases FOLDER                   needs adapters 1.3.0 and transformers 4.57.6
    python make_drawn_pairs.py adapters FOLDER FIRST LAST     the same
    python make_drawn_pairs.py peft FOLDER FIRST LAST         needs peft 0.21.2 and transformers 5.23.0; bases first;
                                                              from 10,000 on AdaLoRA, VeRA, (IA)³ behind relu
    python make_drawn_pairs.py sample [ARCHIVE]               those of tests/data/pair-cases.tar.gz; needs adapters

A case follows from its library and its number (drawn_pairs.py). FOLDER gets a folder for each, as in the golden cases;
`make peers` (tests/peers) writes them for the other library and loads them there.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drawn_models import answers, configuration, head_class, inputs, set_attention, taken_by
from drawn_options import MODELS, Options
from drawn_pairs import EMBEDDINGS, adapters_case, arguments_of, peft_case
from families import settle

ARCHIVE = Path(__file__).parent.parent / "data" / "pair-cases.tar.gz"
FOUND = (7, 13, 27, 29, 43, 45, 56, 63, 85, 105, 123, 147, 183, 187, 243, 340, 350)
"""Numbers of the cases of `adapters` that found a fault of ours."""

STEP = 19
"""Every which of the first 360 is in the sample besides."""

UNFIT = (133, 152)
"""Of these, cases that lack tensors, and whose plain model computes something else in transformers 5."""

KINDS = ("bare", "head", "SequenceClassification", "TokenClassification", "QuestionAnswering", "ImageClassification")
OUTPUTS = ("logits", "start_logits", "last_hidden_state", "logits_per_image", "image_embeds", "text_embeds")
TASKS = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
}
LANGUAGE = {"CausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ConditionalGeneration": "SEQ_2_SEQ_LM"}
LARGEST_OUTPUT, LEAST_EFFECT, UNTOUCHED = 50.0, 1e-3, 1e-5
ERRORS = (
    *(ValueError, TypeError, RuntimeError, AttributeError, KeyError, AssertionError, IndexError),
    *(ZeroDivisionError, NotImplementedError, OSError, UnboundLocalError),
)


def class_of(name: str, kind: str) -> str | None:
    """Return the class of transformers for a kind of model, None where there is none."""
    import transformers

    family = MODELS[name]
    if kind == "bare":
        return family.model
    if kind == "head":
        return head_class(name)
    found = f"{family.model.removesuffix('Model').removesuffix('Encoder')}For{kind}"
    return found if not family.parts and hasattr(transformers, found) else None


def kind_of(case: Options) -> str:
    """Return of which kind the model of a case is: the nearest to what is wanted that the family has."""
    plain = {"bare": "bare", "own": "bare", "head": "head"}
    wanted: str = plain.get(case["class"]) or case["answers"]
    if case["class"] == "own" and (class_of(case["family"], "head") or "").endswith((*LANGUAGE,)):
        wanted = "head"  # what is for no class in particular, is written for these
    if case["family"] in ("vit", "beit") and wanted in TASKS:
        wanted = "ImageClassification"
    return next(kind for kind in (wanted, "head", "bare") if class_of(case["family"], kind))


def make_bases(root: Path) -> None:
    """Save a model of every family and kind, as transformers 4 names modules."""
    for name in MODELS:
        for kind in KINDS:
            if class_of(name, kind) is not None:
                make_base(root, name, kind)


def make_base(root: Path, name: str, kind: str, rename: Callable[[str], str] = str) -> Path:
    """Save a model; rename gives the names that parameters have in transformers 4."""
    import transformers

    config = configuration(name)
    config.num_labels = 3 if kind.endswith("Classification") else 2
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = 1
    model = settle(getattr(transformers, class_of(name, kind) or "")(config), rename)
    settle(model.model if name == "gemma3_text" and kind == "head" else model.base_model, rename)
    model.save_pretrained(root / "bases" / f"{name}-{kind}")
    return root / "bases" / f"{name}-{kind}"


def load_base(root: Path, name: str, kind: str, case: Options, *, own: Any = None) -> Any:
    """Return a fresh base model; own: the class that it is to be of."""
    import transformers

    cls = own or getattr(transformers, class_of(name, kind) or "")
    place = root / "bases" / f"{name}-{kind}"
    if not place.exists():
        make_base(root, name, kind)
    config = cls.config_class.from_pretrained(place)
    if case["attention"] is not None or name == "gemma2":
        set_attention(config, case["attention"] or "eager")
    return cls.from_pretrained(place, config=config).eval()


def made_by_adapters(root: Path, identity: str, case: Options) -> dict[str, Any]:
    """Make a case of `adapters` and return what case.json says of it."""
    import adapters
    from make_drawn_cases import config_of, fill
    from make_family_cases import without_made_up_biases
    from make_head_cases import fill_head, untied

    kind, name = kind_of(case), case["family"]
    own = getattr(adapters, MODELS[name].model.removesuffix("Model").removesuffix("Encoder") + "AdapterModel", None)
    if case["class"] not in ("own", "flexible") or MODELS[name].parts:
        own = None
    flexible = own is not None and case["class"] == "flexible" and kind in (*TASKS, "ImageClassification")

    def fresh(cls: Any = None) -> Any:
        source = "bare" if flexible else kind
        model = load_base(root, name, source, case, own=cls)
        if cls is None:
            adapters.init(model)
        without_made_up_biases(model)
        return model

    model = fresh(own)
    model.add_adapter("task", config=config_of(case["members"]))
    fill(model, "task", identity)
    if flexible:
        kinds = {"SequenceClassification": "classification", "TokenClassification": "tagging"}
        kinds |= {"QuestionAnswering": "question_answering", "ImageClassification": "image_classification"}
        taken = {"classification": ("layers", "use_pooler", "bias"), "question_answering": ()}
        options = {key: case["head"][key] for key in taken.get(kinds[kind], ("layers",))}
        labels = {} if kind == "QuestionAnswering" else {"num_labels": 3}
        with untied(model):
            model.add_prediction_head_from_config("task", {"head_type": kinds[kind], **labels, **options})
        fill_head(model, identity, lambda key: key.startswith("heads.task."))
    folder = root / identity / "adapters" / "task"
    folder.mkdir(parents=True)
    model.set_active_adapters("task")
    with_head = flexible or kind in (*TASKS, "ImageClassification")
    safe = saved(model, folder, with_head=with_head)
    again = fresh(own if flexible else None)
    info: dict[str, Any] = {}
    with untied(again):
        again.load_adapter(str(folder), use_safetensors=safe, set_active=True, loading_info=info)
    lost = [key for keys in (info.get("missing_keys"), info.get("unexpected_keys")) for key in keys or ()]
    if [key for key in lost if ".pool." not in key]:
        raise ValueError(f"the library loses {lost[:2]}")
    if flexible:
        again.active_head = "task"
    idle = None if flexible else fresh()
    return described(root, identity, case, again.eval(), kind, idle) | {"adapters_class": type(again).__name__}


def saved(model: Any, folder: Path, *, with_head: bool) -> bool:
    """Save an adapter; return whether as safetensors."""
    try:
        model.save_adapter(str(folder), "task", use_safetensors=True, with_head=with_head)
    except RuntimeError:
        for file in folder.iterdir():
            file.unlink()
        model.save_adapter(str(folder), "task", use_safetensors=False, with_head=with_head)
        return False
    return True


def modules_of(model: Any) -> dict[str, list[str]]:
    """Return the paths of linear maps, of embeddings, and of other modules with weights that an adapter may train."""
    import torch
    from transformers.pytorch_utils import Conv1D

    named = list(model.named_modules())
    layered = [path for path, module in named if isinstance(module, (torch.nn.Linear, Conv1D))]
    embeddings = {path.rpartition(".")[2] for path, module in named if isinstance(module, torch.nn.Embedding)}
    norms = {path.rpartition(".")[2] for path, module in named if "norm" in type(module).__name__.lower()}
    pooler = ["pooler"] if any(path.endswith("pooler") for path, _ in named) else []
    return {
        "linear": [path for path in layered if any(word.isdigit() for word in path.split("."))],
        "embedding": sorted(embeddings.intersection(EMBEDDINGS)),
        "other": [*pooler, *sorted(norms)[:2]],
    }


def made_by_peft(root: Path, identity: str, case: Options) -> dict[str, Any]:
    """Make a case of PEFT and return what case.json says of it."""
    import peft
    from make_peft_cases import fill

    kind, name = kind_of(case), case["family"]
    model = load_base(root, name, kind, case)
    config_class, arguments = arguments_of(case, modules_of(model))
    task = TASKS.get(kind) or next(
        (task for end, task in LANGUAGE.items() if (class_of(name, kind) or "").endswith(end)), None
    )
    if task is not None and (case["what"] in ("prefix", "prompt") or kind in TASKS or case["seed"] < 0.5):
        arguments["task_type"] = task
    elif case["what"] in ("prefix", "prompt"):
        arguments["task_type"] = "FEATURE_EXTRACTION"
    if name.startswith("gpt2") and config_class in ("LoraConfig", "AdaLoraConfig", "VeraConfig"):
        arguments["fan_in_fan_out"] = True
    wrapped = peft.get_peft_model(model, getattr(peft, config_class)(**arguments))
    fill(wrapped, identity)
    if case["what"] == "ia3-relu":
        not_negative(wrapped)
    wrapped.peft_config["default"].base_model_name_or_path = None
    folder = root / identity / "adapters" / "task"
    wrapped.save_pretrained(folder)
    (folder / "README.md").unlink()
    again = peft.PeftModel.from_pretrained(load_base(root, name, kind, case), folder).eval()
    found = described(root, identity, case, again, kind, load_base(root, name, kind, case))
    return found | {"arguments": arguments}


def not_negative(model: Any) -> None:
    """Take the signs off the vectors of an (IA)³."""
    for key, parameter in model.named_parameters():
        if "ia3_l" in key:
            parameter.data.abs_()


def described(root: Path, identity: str, case: Options, model: Any, kind: str, idle: Any) -> dict[str, Any]:
    """Keep what a model with its adapter answers, and the idle one; return what is known of the case.

    Raises:
        ValueError: the answer is no use, or the library changes a model without an adapter.
    """
    from safetensors.torch import save_file

    before = load_base(root, case["family"], "bare" if idle is None else kind, case)
    given = inputs(identity, case["shape"], taken_by(before))
    base, found = answers(before, given), answers(model, given)
    key = next(name for name in OUTPUTS if name in found)
    if idle is not None and float((answers(idle, given)[key] - base[key]).abs().max()) > UNTOUCHED:
        raise ValueError("the library changes the model, whatever is active")
    if not float(found[key].abs().max()) < LARGEST_OUTPUT:
        raise ValueError("the output is too large")
    changed = key not in base or base[key].shape != found[key].shape
    changed = changed or float((found[key] - base[key]).abs().max()) > LEAST_EFFECT
    floats = {name: value for name, value in given.items() if value.is_floating_point()}
    outputs = {"output": found[key]} | ({"base_output": base[key]} if key in base else {})
    save_file({**outputs, **floats}, root / identity / "expected.safetensors")
    return {
        "effect": changed,
        "base": f"../bases/{case['family']}-{'bare' if idle is None else kind}",
        "bare_base": f"../bases/{case['family']}-bare",
        "base_class": class_of(case["family"], kind),
        "output_key": key,
        "inputs": {name: value.tolist() for name, value in given.items() if name not in floats},
        "float_inputs": sorted(floats),
        "attn_implementation": case["attention"] or ("eager" if case["family"] == "gemma2" else None),
        "tolerance": {"atol": 1e-4, "rtol": 1e-4},
    }


MAKERS: dict[str, tuple[Callable[[int], Options], Callable[[Path, str, Options], dict[str, Any]], str]] = {
    "adapters": (adapters_case, made_by_adapters, "adapters-loader"),
    "peft": (peft_case, made_by_peft, "peft-loader"),
}


def make(root: Path, library: str, first: int, last: int) -> None:
    """Make the cases from one number to another, the last left out."""
    draw, maker, kind = MAKERS[library]
    refused = []
    for number in range(first, last):
        identity, case = f"pair-{library}-{number}", draw(number)
        try:
            found = maker(root, identity, case)
        except ERRORS as error:
            refused.append([identity, case["family"], case["what"], f"{type(error).__name__}: {str(error)[:200]}"])
            continue
        fields: dict[str, Any] = {"id": identity, "group": "E", "kind": kind, "arch": MODELS[case["family"]].row}
        fields |= {"adapters": [{"name": "task", "path": "adapters/task"}], "active": "task", "drawn": case}
        document = json.dumps(fields | found, indent=1, sort_keys=True)
        (root / identity / "case.json").write_text(document + "\n", encoding="utf-8")
    (root / f"refused-{library}-{first}.json").write_text(json.dumps(refused, indent=1) + "\n", encoding="utf-8")
    print(last - first - len(refused), "cases,", len(refused), "refused")


def sample(archive: Path) -> None:
    """Pack the cases of `adapters` that found faults, and a fair sample of others, without their bases."""
    import shutil
    import tempfile

    from make_bottleneck_cases import pack

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in sorted({*FOUND, *range(0, 360, STEP)}):
            make(root, "adapters", number, number + 1)
        shutil.rmtree(root / "bases")
        for number in UNFIT:
            shutil.rmtree(root / f"pair-adapters-{number}")
        for path in (*root.glob("refused-*"), *(one for one in root.iterdir() if not (one / "case.json").exists())):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        pack(root, archive, "pair-cases")
    print(archive, archive.stat().st_size)


def main() -> None:
    """Make bases, or cases."""
    import torch
    import transformers

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    what, root = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ARCHIVE)
    if what in ("adapters", "sample"):
        from reference_models import stand_in_for_torchvision

        stand_in_for_torchvision()
    if what == "sample":
        sample(root)
    elif what == "bases":
        make_bases(root)
    else:
        make(root, what, int(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
