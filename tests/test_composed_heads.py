"""Heads follow the composition: one answer for each adapter where the rows have different ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import family, inputs, model, with_adapters
from torch import Tensor
from transformers import GPT2Config, GPT2Model

from adapterhub import Average, BatchSplit, Fuse, MultiTask, Parallel, Stack
from adapterhub.errors import NotFoundError, UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach


@pytest.fixture
def adapters() -> AdapterSet:
    torch.manual_seed(0)
    made = attach(model())
    made.add("two", "seq_bn", labels=["no", "yes"])
    made.add("other", "lora", labels=["no", "yes"])
    made.add("three", "seq_bn[reduction_factor=2]", labels=["a", "b", "c"])
    made.add("tags", "seq_bn+tagging_head[num_labels=4]")
    made.add("bare", "lora[r=2]")
    for parameter in made.model.adapterhub.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def answer(adapters: AdapterSet, **given: Tensor) -> Any:
    with torch.no_grad():
        return adapters.model(**inputs(4), **given)


def logits(adapters: AdapterSet, name: str) -> Tensor:
    with adapters.using(name):
        found: Tensor = answer(adapters)["logits"]
    return found


def test_rows_with_heads_of_one_shape_share_their_logits(adapters: AdapterSet) -> None:
    names = ["two", "other", "other", "two"]
    wanted = [logits(adapters, name)[row] for row, name in enumerate(names)]
    with adapters.per_row(names):
        found = answer(adapters)
        assert adapters.model.config.id2label == {0: "no", 1: "yes"}
    assert torch.allclose(found["logits"], torch.stack(wanted), atol=1e-5)
    assert [one["logits"].shape[0] for one in found["outputs"]] == [2, 2]


def test_rows_with_heads_of_different_shapes_answer_apart(adapters: AdapterSet) -> None:
    with adapters.using(BatchSplit("three", "two", batch_sizes=[1, 3])):
        found = answer(adapters)
    assert found.get("logits") is None
    assert torch.allclose(found["outputs"][0]["logits"], logits(adapters, "three")[:1], atol=1e-5)
    assert torch.allclose(found["outputs"][1]["logits"], logits(adapters, "two")[1:], atol=1e-5)


def test_parallel_gives_one_answer_for_each_head_and_the_sum_of_their_losses(adapters: AdapterSet) -> None:
    labels = torch.tensor([0, 1, 1, 0])
    losses = []
    for name in ("two", "three"):
        with adapters.using(name):
            losses.append(answer(adapters, labels=labels)["loss"])
    with adapters.using(Parallel("two", "three")):
        found = answer(adapters, labels=labels)
    assert len(found["outputs"]) == 2
    assert torch.allclose(found["outputs"][1]["logits"], logits(adapters, "three"), atol=1e-5)
    assert torch.allclose(found["loss"], torch.stack(losses).sum(), atol=1e-5)


def test_heads_of_an_encoder_decoder_that_make_their_decoders_text_stand_side_by_side() -> None:
    base = family("bart")
    made = with_adapters(
        base,
        two="lora+classification_head[num_labels=2]",
        three="seq_bn+classification_head[num_labels=3,layers=1]",
    )
    ids = torch.tensor([[39, 26, 46, 55, 2], [36, 96, 13, 28, 2]])
    wanted = []
    for name in ("two", "three"):
        made.activate(name)
        wanted.append(base(input_ids=ids)["logits"])
    made.activate(Parallel("two", "three"))
    found = base(input_ids=ids)["outputs"]
    assert all(torch.allclose(one["logits"], want, atol=1e-5) for one, want in zip(found, wanted, strict=True))


def test_heads_of_different_kinds_stand_side_by_side(adapters: AdapterSet) -> None:
    with adapters.using(MultiTask("tags", "two")):
        found = answer(adapters, task_ids=torch.tensor([1, 0, 0, 1]))
    assert torch.allclose(found["outputs"][0]["logits"], logits(adapters, "tags")[1:3], atol=1e-5)
    assert torch.allclose(found["outputs"][1]["logits"], logits(adapters, "two")[[0, 3]], atol=1e-5)


def test_a_stack_answers_with_its_last_head(adapters: AdapterSet) -> None:
    with adapters.using(Stack("two", "three", "bare")):
        assert answer(adapters)["logits"].shape == (4, 3)
        assert adapters.model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_whose_head_answers_can_be_said(adapters: AdapterSet) -> None:
    with pytest.raises(UnsupportedError, match=r"2 heads cannot share .*head=NAME"):
        adapters.activate(Average("two", "three"))
    adapters.activate(Average("two", "three"), head="three")
    assert adapters.active == Average("two", "three")
    assert answer(adapters)["logits"].shape == (4, 3)
    adapters.activate("bare", head="two")
    assert answer(adapters)["logits"].shape == (4, 2)
    with pytest.raises(UnsupportedError, match="'bare' has no head"):
        adapters.activate(Average("two", "three"), head="bare")
    with pytest.raises(NotFoundError, match="absent"):
        adapters.activate("two", head="absent")
    with pytest.raises(UsageError, match="base model alone"):
        adapters.activate(None, head="two")
    with adapters.per_row(["two", None, "three", "other"], head="two"):
        found = answer(adapters)["logits"]
    assert torch.allclose(found[0], logits(adapters, "two")[0], atol=1e-5)
    assert found.shape == (4, 2)


def test_rows_without_a_head_beside_rows_with_one_are_refused(adapters: AdapterSet) -> None:
    with pytest.raises(UnsupportedError, match="an answer of a head, and others none"):
        adapters.activate(BatchSplit("two", "bare", batch_sizes=2))


def test_a_fusion_layer_can_have_the_head(adapters: AdapterSet) -> None:
    adapters.add("two,three", "fusion", labels=["x", "y", "z", "w"])
    with adapters.using(Fuse("two", "three")):
        assert answer(adapters)["logits"].shape == (4, 4)
        assert adapters.model.config.id2label[3] == "w"


def test_language_models_of_the_rows_answer_for_their_own_rows() -> None:
    torch.manual_seed(0)
    base = GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=40)).eval()
    adapters = attach(base)
    for name in ("a", "b"):
        adapters.add(name, "lora+causal_lm_head")
    for parameter in adapters.model.adapterhub.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with adapters.per_row(["a", "b", "b", "a"]):
        found = answer(adapters)
    assert found["logits"].shape == (4, 9, 100)
    assert torch.allclose(found["logits"][1], logits(adapters, "b")[1], atol=1e-4)
    assert found["past_key_values"] is not None
