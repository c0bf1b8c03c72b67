"""A LoRA out of a fine-tuned model, on every family: what it holds, what no LoRA can hold, and nothing lost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_session import type_command
from families import FAMILIES
from tiny_models import answers, family, family_inputs, with_adapters
from torch import Tensor

from adapterhub import Stack, UnsupportedError, read, write
from adapterhub.hub.extracting import extract
from adapterhub.loader import attach
from adapterhub.loader.layout import survey


def updated(layout: Any) -> set[str]:
    """Return the weights that an update of low rank can change: those of one map alone."""
    maps = {f"{linear.path}.weight" for linear in layout.linears if linear.kind != "embedding" and linear.groups == 1}
    return maps - layout.tied.keys()


def tune(base: Any, rank: int = 2, seed: int = 3) -> tuple[set[str], set[str]]:
    """Change every parameter of a model, and return those changed by a low rank and all others."""
    ground = survey(base, None)
    maps, others = updated(ground.layout), set()
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for path, parameter in ground.bare.named_parameters():
            if path in maps:
                product = noise(parameter.shape[0], rank) @ noise(rank, parameter[0].numel())
                parameter.add_(0.1 * product.view(parameter.shape))
            else:
                parameter.add_(0.05 * noise(*parameter.shape))
                others.add(path)
    return maps, others


def pair(base: Any, folder: Path, **how: int) -> tuple[str, str, set[str], set[str]]:
    """Return the folders of a model before and after tuning, and what was changed in which way."""
    base.save_pretrained(folder / "base")
    maps, others = tune(base, **how)
    base.save_pretrained(folder / "tuned")
    return str(folder / "base"), str(folder / "tuned"), maps, others


@pytest.mark.parametrize("name", FAMILIES)
def test_all_that_training_changed_is_in_the_adapter_or_told(name: str, tmp_path: Path) -> None:
    model = family(name)
    base, tuned, maps, others = pair(model, tmp_path)
    wanted, batch = answers(model, family_inputs(model)), family_inputs(model)
    found = extract(base, tuned, name="learnt", rank=2)
    assert {f"{site.path}.weight" for site in found.sites} == maps
    assert all(site.kept == pytest.approx(1, abs=1e-6) for site in found.sites)
    assert {one.path for one in found.kept} == others
    assert found.same == 0
    held = found.adapter.tensors
    assert all(one.values == held[one.path].numel() and one.norm > 0 for one in found.kept)
    adapter = read(write(found.adapter, tmp_path / "learnt.safetensors"))
    again = type(model).from_pretrained(base).eval()
    plain = answers(again, batch)
    attach(again).load(adapter, set_active=True)
    assert torch.allclose(answers(again, batch), wanted, atol=5e-5)
    assert not torch.allclose(plain, wanted, atol=1e-2)


def test_a_weight_that_two_modules_share_is_kept_whole_for_both(tmp_path: Path) -> None:
    model = family("gpt2", "GPT2LMHeadModel")
    base, tuned, _, _ = pair(model, tmp_path)
    wanted = answers(model, family_inputs(model))
    found = extract(base, tuned, name="learnt", rank=2)
    assert [one.path for one in found.kept if one.path in ("wte.weight", "lm_head.weight")] == ["wte.weight"]
    again = type(model).from_pretrained(base).eval()
    attach(again).load(found.adapter, set_active=True)
    assert torch.allclose(answers(again, family_inputs(again)), wanted, atol=5e-5)


@pytest.mark.parametrize("name", ["gpt2", "modernbert", "deberta", "vit"])
def test_the_energy_that_is_told_is_what_is_left_of_each_map(name: str, tmp_path: Path) -> None:
    base, tuned, maps, _ = pair(family(name), tmp_path, rank=6)
    found = extract(base, tuned, name="learnt", rank=2)
    one, two = (survey(type(family(name)).from_pretrained(folder), None) for folder in (base, tuned))
    adapters = attach(one.model)
    adapters.load(found.adapter, name="learnt")
    adapters.merge("learnt")
    for site in found.sites:
        after, merged = (ground.modules[site.path].get_parameter("weight").detach() for ground in (two, one))
        left = float((after - merged).double().square().sum()) / float(site.exact or 0) ** 2
        assert site.kept == pytest.approx(1 - left, abs=1e-5)
        assert 0.3 < site.kept < 0.999
    assert len(found.sites) == len(maps)


def test_the_command_lists_what_no_lora_holds_with_its_size(tmp_path: Path) -> None:
    base, tuned, _, others = pair(family("bert"), tmp_path)
    out = str(tmp_path / "learnt.safetensors")
    arguments = ("extract", "--base", base, "--tuned", tuned, "--rank", "2", "--out", out)
    typed = type_command(*arguments, "--dry-run", "--json")
    listed = {one["path"]: one["values"] for one in typed.json["kept_whole"]}
    assert set(listed) == others
    text = type_command(*arguments).out
    assert "NO LORA HOLDS, KEPT WHOLE" in text
    assert f"{len(others)} parameters with {sum(listed.values()):,} values" in text
    assert "embeddings.word_embeddings.weight" in text


# ----------------------------------------------------------------------------------------------- modules never called


@pytest.mark.parametrize("name", ["deberta", "deberta-v2"])
def test_a_parameter_that_is_read_by_another_module_stands_in_there(name: str) -> None:
    base, tuned = family(name), family(name)
    path = "encoder.rel_embeddings.weight"
    adapters = with_adapters(base, a=f'parameters[names=["{path}"]]')
    with torch.no_grad():
        tuned.get_parameter(path).copy_(adapters.adapter("a").tensors[path])
    wanted, plain = answers(tuned, family_inputs(tuned)), answers(base, family_inputs(base))
    adapters.activate("a")
    assert torch.equal(answers(base, family_inputs(base)), wanted)
    assert torch.equal(answers(copy.deepcopy(base), family_inputs(base)), wanted)
    adapters.activate(None)
    assert torch.equal(answers(base, family_inputs(base)), plain)
    assert not torch.allclose(wanted, plain, atol=1e-3)


def test_nothing_acts_in_silence_at_a_module_that_is_never_called() -> None:
    adapters = attach(family("deberta"))
    with pytest.raises(UnsupportedError, match=r"encoder\.rel_embeddings is never called"):
        adapters.add("table", 'lora[targets=["encoder.rel_embeddings"]]')
    assert adapters.names == ()
    adapters.add("whole", 'parameters[names=["encoder.rel_embeddings.weight"]]')
    adapters.add("b", "seq_bn[reduction_factor=8]")
    with pytest.raises(UnsupportedError, match=r"encoder\.rel_embeddings is never called"):
        adapters.activate(Stack("whole", "b"))


# ------------------------------------------------------------------------------------------------------------- buffers


def bart_pair(folder: Path, **changed: Tensor) -> tuple[str, str]:
    """Return the folders of a BART with a language model head before and after a change of its weights and buffers."""
    model = family("bart", "BartForConditionalGeneration")
    model.save_pretrained(folder / "base")
    with torch.no_grad():
        model.get_submodule("model").encoder.layers[0].fc1.weight.add_(0.1)
        for name, value in changed.items():
            model.get_buffer(name).copy_(value)
    model.save_pretrained(folder / "tuned")
    return str(folder / "base"), str(folder / "tuned")


def test_buffers_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    base, tuned = bart_pair(tmp_path, final_logits_bias=torch.tensor(1.0))
    with pytest.raises(UnsupportedError, match=r"other buffers than .*, which no adapter holds: final_logits_bias"):
        extract(base, tuned, name="learnt", rank=1)
    found = extract(base, tuned, name="learnt", rank=1, without_head=True)
    assert [site.path for site in found.sites] == ["encoder.layers.0.fc1"]


def test_buffers_that_are_the_same_do_not_matter(tmp_path: Path) -> None:
    base, tuned = bart_pair(tmp_path)
    assert [site.path for site in extract(base, tuned, name="learnt", rank=1).sites] == ["encoder.layers.0.fc1"]


def test_a_tied_head_and_zeros_around_it_are_nothing_that_a_bare_base_model_lacks(tmp_path: Path) -> None:
    _, tuned = bart_pair(tmp_path)
    bare = family("bart", "BartForConditionalGeneration").base_model
    bare.save_pretrained(tmp_path / "bare")
    found = extract(str(tmp_path / "bare"), tuned, name="learnt", rank=1)
    assert ([site.path for site in found.sites], found.kept) == (["encoder.layers.0.fc1"], ())


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "GPT2LMHeadModel"), ("bart", "BartForConditionalGeneration")])
def test_what_was_tied_in_the_tuned_model_changes_its_tied_head_too(name: str, kind: str, tmp_path: Path) -> None:
    model = family(name, kind)
    model.base_model.save_pretrained(tmp_path / "bare")
    base, tuned, _, _ = pair(model, tmp_path)
    wanted = answers(model, family_inputs(model))
    found = extract(str(tmp_path / "bare"), tuned, name="learnt", rank=2)
    again = type(model).from_pretrained(base).eval()
    attach(again).load(found.adapter, set_active=True)
    assert torch.allclose(answers(again, family_inputs(again)), wanted, atol=5e-5)
