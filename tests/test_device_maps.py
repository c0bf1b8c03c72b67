"""Models that accelerate has placed: adapters act as on any other, or the reason why not is told before anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from tiny_models import answers, family, family_inputs, with_adapters
from transformers import PreTrainedModel

from adapterhub.errors import UnsupportedError
from adapterhub.loader import attach

METHODS = (
    "double_seq_bn[reduction_factor=4]+layer_norm",
    "seq_bn_inv",
    'lora[r=2,targets=["all-linear"]]',
    "dora[r=2]",
    "ia3",
    "loreft[r=2]",
)
MERGEABLE = ("lora", "dora", "ia3")


@pytest.fixture(params=["bert", "llama"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    family(request.param).save_pretrained(tmp_path / "base")
    return request.param, tmp_path / "base"


def mapped(name: str, folder: Path) -> PreTrainedModel:
    made: PreTrainedModel = type(family(name)).from_pretrained(folder, device_map={"": "cpu"})
    return made.eval()


def dispatched(name: str, folder: Path) -> PreTrainedModel:
    made: PreTrainedModel = type(family(name)).from_pretrained(folder)
    places = dict.fromkeys([path for path, _ in made.named_children()], "cpu")
    return dispatch_model(made.eval(), places, main_device="cpu", force_hooks=True)


@pytest.mark.parametrize("place", [mapped, dispatched])
def test_a_placed_model_computes_what_any_other_does(
    place: Callable[[str, Path], PreTrainedModel], saved: tuple[str, Path]
) -> None:
    base = place(*saved)
    batch = family_inputs(base)
    before = answers(base, batch)
    for method in METHODS:
        plain = with_adapters(family(saved[0]), a=method)
        plain.activate("a")
        wanted = answers(plain.model, batch)
        adapters = attach(base)
        adapters.load(plain.adapter("a"), name="a", set_active=True)
        assert torch.allclose(answers(base, batch), wanted, atol=1e-5), method
        if method.startswith(MERGEABLE):
            adapters.merge("a")
            assert torch.allclose(answers(base, batch), wanted, atol=1e-4), method
            adapters.unmerge()
        trained = adapters.train("a")
        base(**batch)[0].sum().backward()
        assert any(parameter.grad is not None for parameter in trained), method
        adapters.detach()
        assert torch.equal(answers(base, batch), before), method


def test_a_hook_in_front_of_an_attention_leaves_no_room_for_a_prefix(saved: tuple[str, Path]) -> None:
    adapters = attach(dispatched(*saved))
    with pytest.raises(UnsupportedError, match=r"replaced the forward of .*cannot have a prefix"):
        adapters.add("a", "prefix_tuning[prefix_length=2]")
    assert adapters.names == ()


def on_disk(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    made: PreTrainedModel = disk_offload(base, str(folder), execution_device=torch.device("cpu"))
    return made


def on_cpu(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    made: PreTrainedModel = cpu_offload(base, execution_device=torch.device("cpu"))
    return made


@pytest.mark.parametrize("offload", [on_disk, on_cpu])
def test_an_offloaded_model_is_refused_by_name_and_goes_on_as_before(
    offload: Callable[[PreTrainedModel, Path], PreTrainedModel], tmp_path: Path
) -> None:
    base = offload(family("bert"), tmp_path)
    batch = family_inputs(base)
    before = answers(base, batch)
    with pytest.raises(UnsupportedError, match=r"embeddings\.word_embeddings\.weight is offloaded.*device_map"):
        attach(base)
    assert torch.equal(answers(base, batch), before)
    assert "adapterhub" not in dict(base.named_children())
