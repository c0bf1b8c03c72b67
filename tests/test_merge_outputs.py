"""Merged adapters answer as those that `adapters` and PEFT made of the same parents."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden import GOLDEN, MERGES, Case
from peft import LoraConfig, get_peft_model
from tiny_models import inputs, model
from torch import Tensor

from adapterhub import Adapter, UnsupportedError, merge, read
from adapterhub.loader import attach

AVERAGES = GOLDEN.cases(kinds="average_adapter")
FURTHER = [(case, name) for case in MERGES.cases(kinds="average_adapter") for name in case["averages"]]
MULTI = [case for archive in (GOLDEN, MERGES) for case in archive.cases(kinds="peft-multi")]
WEIGHTED = [(case, name) for case in MULTI for name in case.get("weighted") or {}]

WHERE_PEFT_ADDS = ("cat", "svd", "ties_svd")
"""Combination types of PEFT that act on the updates themselves, so that they need no compat."""


def answer(case: Case, adapter: Adapter) -> Tensor:
    """Return what the case's base model answers with an adapter."""
    base = getattr(transformers, case["base_class"]).from_pretrained(case.base).eval()
    adapters = attach(base)
    adapters.load(adapter, name="x", set_active=True)
    with torch.no_grad():
        found: Tensor = base(**case.inputs())[case["output_key"]]
    return found


def averaged(case: Case, asked: dict[str, Any]) -> Adapter:
    """Return an average as a case asks for it."""
    return merge(
        [case.adapters[name] for name in asked.get("adapter_list", case.adapters)],
        method=asked.get("combine_strategy", "linear"),
        weights=asked.get("weights"),
        rank=asked.get("svd_rank"),
        normalize=asked.get("normalize_weights"),
        compat="adapters",
    )


@pytest.mark.parametrize(("case", "name"), FURTHER, ids=[f"{case}-{name}" for case, name in FURTHER])
def test_every_strategy_of_average_adapter(case: Case, name: str) -> None:
    made = averaged(case, case["averages"][name])
    assert case.close(answer(case, made), case.expected()[f"output_{name}"])


@pytest.mark.parametrize("case", AVERAGES, ids=str)
def test_average_adapter_of_adapters(case: Case) -> None:
    asked = case["average"]
    made = averaged(case, asked)
    assert case.close(answer(case, made), case.expected()["output"])
    theirs = read(case.folder / case["result_adapter"]["path"])
    assert theirs.tensors.keys() == made.tensors.keys()
    if asked.get("combine_strategy", "linear") == "linear":
        assert all(torch.allclose(made.tensors[key], theirs.tensors[key], atol=1e-6) for key in made.tensors)


def weighted(case: Case, name: str, **more: Any) -> Adapter:
    """Return a weighted merge as a case asks for it."""
    asked = case["weighted"][name]
    return merge(
        [case.adapters[parent] for parent in asked["adapters"]],
        method=asked.get("combination_type", "linear"),
        weights=asked["weights"],
        rank=asked.get("svd_rank"),
        density=asked.get("density"),
        seed=asked.get("seed"),
        majority=asked.get("majority_sign_method", "total"),
        **more,
    )


@pytest.mark.parametrize(("case", "name"), WEIGHTED, ids=[f"{case}-{name}" for case, name in WEIGHTED])
def test_add_weighted_adapter_of_peft(case: Case, name: str) -> None:
    # Only the base tells that its maps are kept the other way round, which decides what a seed drops.
    turned = case["base_class"] == "GPT2Model" and "seed" in case["weighted"][name]
    made = weighted(case, name, compat="peft", base=str(case.base) if turned else None)
    assert case.close(answer(case, made), case.expected()[f"output_{name}"])
    if case["weighted"][name].get("combination_type") in WHERE_PEFT_ADDS:
        assert case.close(answer(case, weighted(case, name)), case.expected()[f"output_{name}"])


# ----------------------------------------------------------------------------------------------------- PEFT at work

TYPES: dict[str, dict[str, Any]] = {
    "linear": {},
    "cat": {},
    "svd": {"svd_rank": 3},
    "ties": {"density": 0.5},
    "ties_svd": {"density": 0.5},
    "dare_linear": {"density": 0.7},
    "dare_linear_svd": {"density": 0.7},
    "dare_ties": {"density": 0.7},
    "dare_ties_svd": {"density": 0.7},
    "magnitude_prune": {"density": 0.5},
    "magnitude_prune_svd": {"density": 0.5},
}


def made_by_peft(folder: Path, names: dict[str, dict[str, Any]]) -> Any:
    """Return PEFT's model with random LoRAs, which are also saved."""
    torch.manual_seed(0)
    wrapped: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about itself
        for name, options in names.items():
            config = LoraConfig(target_modules=["query", "value"], **options)
            if wrapped is None:
                wrapped = get_peft_model(model("bert"), config, adapter_name=name)
            else:
                wrapped.add_adapter(name, config)
        for key, parameter in wrapped.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.2)
            if "magnitude" in key:
                parameter.data.mul_(1.5)
        wrapped.eval().save_pretrained(folder)
    return wrapped


def ours(adapter: Adapter) -> Tensor:
    """Return what the base model answers with an adapter."""
    base = model("bert")
    attach(base).load(adapter, name="x", set_active=True)
    with torch.no_grad():
        found: Tensor = base(**inputs()).last_hidden_state
    return found


def theirs(wrapped: Any, name: str) -> Tensor:
    """Return what PEFT answers with one of its adapters."""
    wrapped.set_adapter(name)
    with torch.no_grad():
        found: Tensor = wrapped(**inputs()).last_hidden_state
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("peft")
    return made_by_peft(folder, {"one": {"r": 4, "lora_alpha": 8}, "two": {"r": 4, "lora_alpha": 2}}), folder


@pytest.mark.parametrize("weights", [(0.7, 0.4), (1.0, -0.5)], ids=str)
@pytest.mark.parametrize("kind", TYPES)
def test_each_type_of_peft_with_compat(plain: tuple[Any, Path], kind: str, weights: tuple[float, float]) -> None:
    wrapped, folder = plain
    name = f"{kind}_{weights[1] > 0}"
    torch.manual_seed(11)
    wrapped.add_weighted_adapter(["one", "two"], list(weights), name, combination_type=kind, **TYPES[kind])
    options = {"rank" if key == "svd_rank" else key: value for key, value in TYPES[kind].items()}
    options |= {"seed": 11} if "dare" in kind else {}
    made = merge([folder / "one", folder / "two"], method=kind, weights=weights, compat="peft", **options)
    assert torch.allclose(ours(made), theirs(wrapped, name), atol=2e-5)
    if kind in ("cat", "svd", "ties_svd", "magnitude_prune_svd"):
        made = merge([folder / "one", folder / "two"], method=kind, weights=weights, **options)
        assert torch.allclose(ours(made), theirs(wrapped, name), atol=2e-5)


@pytest.mark.parametrize(
    "options", [{"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}], ids=["rslora", "dora", "bias"]
)
def test_what_peft_gets_wrong_is_refused_with_its_name_and_right_without(
    options: dict[str, Any], tmp_path: Path
) -> None:
    wrapped = made_by_peft(tmp_path, {"one": {"r": 4, "lora_alpha": 8, **options}})
    wrapped.add_weighted_adapter(["one"], [1.0], "same")
    want, peft = theirs(wrapped, "one"), theirs(wrapped, "same")
    assert not torch.allclose(want, peft, atol=1e-2), "PEFT has mended this; compat='peft' need not refuse it"
    again = merge([tmp_path / "one", tmp_path / "one"], weights=[0.5, 0.5], base=model("bert"))
    assert torch.allclose(ours(again), want, atol=2e-5)
    with pytest.raises(UnsupportedError, match="PEFT computes something else there than it means"):
        merge([tmp_path / "one", tmp_path / "one"], compat="peft")
