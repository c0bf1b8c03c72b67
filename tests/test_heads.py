"""Prediction heads on live models: what they are asked, what they answer, and what they leave alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import classifier, family, family_inputs, hidden, inputs, logits, model, randomise
from torch import Tensor
from transformers import PreTrainedModel

from adapterhub import Stack
from adapterhub.adapter import Adapter
from adapterhub.converters import adapters as adapters_format
from adapterhub.converters import read
from adapterhub.errors import AdapterHubError, UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import ClassificationHeadConfig, ImageClassificationHeadConfig, parse_method
from adapterhub.methods.method import Problem

SEQ = "seq_bn[reduction_factor=4]"
KINDS: dict[str, tuple[str, str]] = {
    "classification": ("bert", "classification_head[num_labels=3,layers=2]"),
    "regression": ("roberta", "classification_head[num_labels=1]"),
    "multilabel": ("distilbert", "multilabel_classification_head[num_labels=3]"),
    "decoder": ("gpt2", "classification_head[num_labels=3]"),
    "both": ("bart", "classification_head[num_labels=3]"),
    "tagging": ("bert", "tagging_head[num_labels=5]"),
    "choice": ("bert", "multiple_choice_head[num_choices=3]"),
    "answer": ("bert", "question_answering_head[layers=2]"),
    "parsing": ("bert", "dependency_parsing_head[num_labels=4]"),
    "masked": ("bert", "masked_lm_head"),
    "causal": ("llama", "causal_lm_head"),
    "seq2seq": ("t5", "seq2seq_lm_head"),
    "image": ("vit", "image_classification_head[num_labels=3]"),
}
"""Kind → family, method."""


def made(kind: str) -> tuple[PreTrainedModel, AdapterSet]:
    """Return a bare model with an active adapter that has a head of some kind."""
    name, head = KINDS[kind]
    base = family(name)
    adapters = attach(base)
    adapters.add("a", f"{SEQ}+{head}", set_active=True)
    randomise(adapters, "a")
    return base, adapters


def asked(kind: str, base: PreTrainedModel) -> dict[str, Tensor]:
    """Return inputs for a head of some kind."""
    batch = family_inputs(base)
    if kind == "choice":
        batch = {key: torch.stack([value, value.roll(1, -1), value.flip(-1)], dim=1) for key, value in batch.items()}
    if kind == "parsing":
        batch["word_starts"] = torch.tensor([[2, 3, 5, 7], [2, 4, 5, 6]])
    if kind == "both":
        del batch["decoder_input_ids"]
        batch["input_ids"][:, 4] = base.config.eos_token_id
    return batch


def right(kind: str) -> dict[str, Tensor]:
    """Return labels for two examples."""
    ids = inputs(rows=2)["input_ids"]
    words = torch.full((2, 9), 1)
    found: dict[str, dict[str, Tensor]] = {
        "regression": {"labels": torch.tensor([0.5, -2.0])},
        "multilabel": {"labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])},
        "tagging": {"labels": (ids % 5).masked_fill(ids % 3 == 0, -100)},
        "answer": {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])},
        "parsing": {
            "labels_arcs": words.index_fill(1, torch.tensor([0, 2]), 2),
            "labels_rels": words.index_fill(1, torch.tensor([0, 2]), 3),
        },
        "masked": {"labels": ids.masked_fill(ids % 2 == 0, -100)},
        "causal": {"labels": ids.masked_fill(ids % 2 == 0, -100)},
        "seq2seq": {"labels": ids[:, :5]},
    }
    return found.get(kind, {"labels": torch.tensor([1, 0])})


@torch.no_grad()
def first(kind: str, base: PreTrainedModel) -> Tensor:
    """Return the first output of a head."""
    return torch.as_tensor(base(**asked(kind, base))[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["native", "adapters"])
def test_an_adapter_with_a_head_is_saved_read_again_and_answers_its_probe(kind: str, form: str, tmp_path: Path) -> None:
    base, adapters = made(kind)
    expected = first(kind, base)
    path = adapters.save("a", tmp_path / "saved", format=form)
    name, _ = KINDS[kind]
    again = attach(family(name))
    loaded = again.load(path, set_active=True)
    assert again.adapter(loaded).config == adapters.adapter("a").config
    assert torch.allclose(first(kind, again.model), expected, atol=1e-6)
    assert again.replay(loaded).difference < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_a_mean_or_the_sum_over_a_given_number_of_items(kind: str) -> None:
    base, _ = made(kind)
    batch = {**asked(kind, base), **right(kind)}
    with torch.no_grad():
        mean, total, half = (
            float(base(**batch, num_items_in_batch=items).loss) for items in (None, 1, torch.tensor(2))
        )
    assert half == pytest.approx(total / 2)
    assert total / mean == pytest.approx(round(total / mean), abs=1e-3)
    assert round(total / mean) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_gives_gradients_to_the_adapter_and_its_head_alone(kind: str) -> None:
    base, adapters = made(kind)
    trained = adapters.train("a")
    base(**asked(kind, base), **right(kind)).loss.backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained[-2:])
    own = {id(parameter) for parameter in trained}
    assert all(parameter.grad is None for parameter in base.parameters() if id(parameter) not in own)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_answers_alike_and_the_base_model_is_untouched_in_the_end(kind: str) -> None:
    base = family(KINDS[kind][0])
    plain = first("", base) if kind not in ("choice", "parsing", "both") else hidden(base)
    adapters = attach(base)
    adapters.add("a", KINDS[kind][1], set_active=True)
    randomise(adapters, "a")
    expected = first(kind, base)
    assert torch.allclose(first(kind, copy.deepcopy(base)), expected, atol=1e-6)
    assert torch.allclose(first(kind, pickle.loads(pickle.dumps(base))), expected, atol=1e-6)
    adapters.detach()
    assert torch.equal(first("", base) if kind not in ("choice", "parsing", "both") else hidden(base), plain)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "parsing"])
def test_a_head_is_compiled_with_its_model_in_one_graph(kind: str) -> None:
    base, adapters = made(kind)
    expected = first(kind, base)
    torch._dynamo.reset()
    compiled = torch.compile(base, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(**asked(kind, base), **right(kind))
    assert torch.allclose(found[1], expected, atol=1e-5)
    adapters.activate(None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_a_tuple_where_that_is_asked_for_and_brings_hidden_states(kind: str) -> None:
    base, _ = made(kind)
    with torch.no_grad():
        whole = base(**asked(kind, base), output_hidden_states=True)
        few = base(**asked(kind, base), return_dict=False)
    assert isinstance(few, tuple)
    assert torch.equal(few[0], whole[0])
    states = whole.get("hidden_states") or whole["decoder_hidden_states"]
    assert len(states) > 1


def test_a_model_s_own_head_does_not_run_while_an_adapter_s_head_answers() -> None:
    full = classifier(labels=3)
    adapters = attach(full)
    adapters.add("a", SEQ, labels=("x", "y", "z"))
    calls: list[int] = []
    full.classifier.register_forward_hook(lambda *_: calls.append(1))
    own = logits(full)
    adapters.activate("a")
    assert not torch.equal(logits(full), own)
    assert len(calls) == 1
    adapters.activate(None)
    assert torch.equal(logits(full), own)


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        ("classification", {"start_positions": torch.tensor([0, 0])}, "does not take start_positions"),
        ("answer", {"labels": torch.tensor([0, 0])}, "does not take labels.*|it takes start_positions"),
        ("decoder", {"logits_to_keep": 1}, "does not take logits_to_keep"),
        ("parsing", {"word_starts": None}, "where words begin"),
        ("parsing", {"word_starts": torch.tensor([[3, 2], [1, 2]])}, "from token 3 to token 2"),
        ("choice", {"input_ids": torch.ones(2, 2, 9, dtype=torch.long), "attention_mask": None}, "3 choices"),
        ("both", {"input_ids": torch.full((2, 9), 7), "attention_mask": None}, "no end token"),
        ("both", {"decoder_input_ids": torch.full((2, 4), 7)}, "9 tokens and the decoder's 4"),
        ("both", {"input_ids": None, "inputs_embeds": torch.zeros(2, 9, 32)}, "as input_ids"),
    ],
)
def test_a_call_that_means_nothing_to_the_head_is_refused_with_the_reason(
    kind: str, arguments: dict[str, Any], says: str
) -> None:
    base, _ = made(kind)
    batch = {**asked(kind, base), **arguments}
    if arguments.get("inputs_embeds") is not None:
        batch |= {"decoder_inputs_embeds": torch.zeros(2, 9, 32)}
    with pytest.raises(UsageError, match=says):
        base(**{key: value for key, value in batch.items() if value is not None})


def test_choices_may_come_flat_where_the_head_knows_how_many_there_are() -> None:
    base, adapters = made("choice")
    batch = asked("choice", base)
    with torch.no_grad():
        expected = base(**batch).logits
        found = base(**{key: value.flatten(0, 1) for key, value in batch.items()}).logits
    assert expected.shape == (2, 3)
    assert torch.equal(found, expected)
    adapters.add("open", "multiple_choice_head", set_active=True)
    with torch.no_grad():
        assert base(**{key: value[:, :2] for key, value in batch.items()}).logits.shape == (2, 2)
    with pytest.raises(UsageError, match="batch, choices, sequence"):
        base(**inputs(rows=2))


@pytest.mark.parametrize(
    ("name", "reads"),
    [("bert", "first"), ("gpt2", "last"), ("qwen2", "last"), ("t5", "eos"), ("bart", "eos"), ("beit", "pooler")],
)
def test_labels_alone_add_a_head_on_what_the_family_s_heads_read(name: str, reads: str) -> None:
    adapters = attach(family(name))
    adapters.add("a", SEQ, labels=("x", "y"))
    head = adapters.adapter("a").config[-1]
    assert isinstance(head, ClassificationHeadConfig)
    assert head.pooling == reads
    assert isinstance(head, ImageClassificationHeadConfig) == (name == "beit")


@pytest.mark.parametrize(
    ("name", "method", "says"),
    [
        ("distilbert", "classification_head[num_labels=2,pooling=pooler]", "pooler"),
        ("clip", "classification_head[num_labels=2]", "no prediction head can stand"),
        ("encoder-decoder", "causal_lm_head", "no prediction head can stand"),
        ("vit", "masked_lm_head", "no vocabulary"),
        ("bert", "tagging_head+question_answering_head", "at most one head"),
        ("bert", "masked_lm_head[layers=1,embedding_size=5]", "embedding_size is 5"),
    ],
)
def test_a_head_for_which_the_base_model_lacks_something_is_refused(name: str, method: str, says: str) -> None:
    with pytest.raises(AdapterHubError, match=says):
        attach(family(name)).add("a", method)


def test_names_are_given_to_as_many_classes_as_the_head_has() -> None:
    adapters = attach(model())
    adapters.add("a", "tagging_head[num_labels=2]", labels=("B", "O"))
    with pytest.raises(UsageError, match="2 labels, and 3 names"):
        adapters.add("b", "tagging_head[num_labels=2]", labels=("B", "I", "O"))
    with pytest.raises(UsageError, match="no labels, and 2 names"):
        adapters.add("b", "masked_lm_head", labels=("B", "O"))


@pytest.mark.parametrize(
    ("kind", "before", "problem"),
    [
        ("classification", "regression", "single_label_classification"),
        ("regression", "single_label_classification", "regression"),
        ("multilabel", None, "multi_label_classification"),
        ("tagging", "regression", "regression"),
        ("answer", "regression", "regression"),
        ("masked", None, None),
    ],
)
def test_the_configuration_shows_classes_and_problem_of_the_active_head_only(
    kind: str, before: Problem | None, problem: Problem | None
) -> None:
    base = family(KINDS[kind][0])
    base.config.problem_type = before
    names = (base.config.id2label, base.config.label2id)
    adapters = attach(base)
    adapters.add("a", KINDS[kind][1], set_active=True)
    assert base.config.problem_type == problem
    if kind in ("answer", "masked"):
        assert (base.config.id2label, base.config.label2id) == names
    else:
        assert base.config.id2label is not names[0]
    adapters.activate(None)
    assert (base.config.id2label, base.config.label2id) == names
    assert base.config.problem_type == before


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_last_token_of_a_text_is_found_on_whichever_side_the_padding_stands(name: str) -> None:
    base = family(name, pad_token_id=1)
    ids = inputs(rows=1, length=5)["input_ids"]
    pad, ones = torch.full((1, 3), 1), torch.ones_like(ids)
    adapters = attach(base)
    adapters.add("a", "classification_head[num_labels=3]", set_active=True)
    randomise(adapters, "a")
    alone = logits(base, {"input_ids": ids})
    mask = torch.cat((ones, torch.zeros_like(pad)), 1)
    right_side = {"input_ids": torch.cat((ids, pad), 1), "attention_mask": mask}
    positions = torch.cat((torch.zeros_like(pad), torch.arange(5)[None]), 1)
    left_side = {"input_ids": torch.cat((pad, ids), 1), "attention_mask": mask.flip(1), "position_ids": positions}
    assert torch.allclose(logits(base, right_side), alone, atol=1e-5)
    assert torch.allclose(logits(base, left_side), alone, atol=1e-5)
    adapter = adapters.adapter("a")
    adapters.detach()
    as_before = attach(base, compat="adapters")
    as_before.load(adapter, set_active=True)
    assert torch.allclose(logits(base, right_side), alone, atol=1e-5)
    assert not torch.allclose(logits(base, left_side), alone, atol=1e-3)


def test_without_a_padding_token_the_mask_tells_which_token_is_the_last() -> None:
    base = family("gpt2", pad_token_id=None)
    adapters = attach(base)
    adapters.add("a", "classification_head[num_labels=3]", set_active=True)
    short = {key: value[-1:, :-3] for key, value in inputs().items()}
    assert torch.allclose(logits(base)[-1:], logits(base, short), atol=1e-5)
    assert torch.allclose(logits(base, {"input_ids": inputs()["input_ids"]})[:1], logits(base)[:1], atol=1e-5)


def test_a_head_over_the_vocabulary_starts_with_the_model_s_word_embeddings() -> None:
    base = family("gpt2", "GPT2LMHeadModel")
    base.lm_head.weight = base.transformer.wte.weight
    own = logits(base)
    adapters = attach(base)
    adapters.add("a", "causal_lm_head", set_active=True)
    assert torch.allclose(logits(base), own, atol=1e-5)
    assert adapters.adapter("a").tensors["head.0.weight"].data_ptr() != base.lm_head.weight.data_ptr()


@pytest.mark.parametrize(("name", "cls"), [("gpt2", "GPT2LMHeadModel"), ("llama", "LlamaForCausalLM")])
def test_generate_goes_on_with_the_head_of_the_active_adapter_and_its_cache(name: str, cls: str) -> None:
    base = family(name, cls)
    adapters = attach(base)
    adapters.add("a", f"{SEQ}+causal_lm_head[layers=2,activation_function=gelu,layer_norm=true,bias=true]")
    randomise(adapters, "a")
    ids = inputs(rows=1, length=4)["input_ids"]
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    plain = base.generate(ids, **settings)
    adapters.activate("a")
    found = base.generate(ids, **settings)
    expected = ids
    for _ in range(6):
        step = logits(base, {"input_ids": expected})[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat((expected, step), 1)
    assert torch.equal(found, expected)
    assert not torch.equal(found, plain)
    with torch.no_grad():
        kept = base(ids, logits_to_keep=2).logits
    assert torch.allclose(kept, logits(base, {"input_ids": ids})[:, -2:], atol=1e-6)
    adapters.add("b", "tagging_head", set_active=True)
    with pytest.raises(UsageError, match="no next token"):
        base.generate(ids, **settings)
    adapters.activate(None)
    assert torch.equal(base.generate(ids, **settings), plain)


def test_rows_generate_each_with_the_head_of_its_own_adapter() -> None:
    base = family("gpt2", "GPT2LMHeadModel")
    adapters = attach(base)
    for number, name in enumerate("ab"):
        adapters.add(name, f"{SEQ}+causal_lm_head")
        randomise(adapters, name, seed=number)
    adapters.add("c", "tagging_head")
    ids = inputs(rows=2, length=4)["input_ids"]
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with adapters.per_row(["a", "b"]):
        together = base.generate(ids, **settings)
    for row, name in enumerate("ab"):
        with adapters.using(name):
            assert torch.equal(base.generate(ids[row : row + 1], **settings)[0], together[row])
    with adapters.per_row(["a", "c"]), pytest.raises(UsageError, match="no next token"):
        base.generate(ids, **settings)


def test_an_encoder_decoder_generates_with_the_head_of_the_active_adapter() -> None:
    base = family("t5", "T5ForConditionalGeneration", num_decoder_layers=2)
    adapters = attach(base)
    adapters.add("a", f"{SEQ}+seq2seq_lm_head", set_active=True)
    randomise(adapters, "a")
    ids = inputs(rows=1, length=4)["input_ids"]
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    found = base.generate(ids, decoder_start_token_id=0, **settings)
    expected = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(5):
        step = logits(base, {"input_ids": ids, "decoder_input_ids": expected})[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat((expected, step), 1)
    assert torch.equal(found, expected)


def test_labels_make_the_decoder_s_input_where_none_is_given() -> None:
    for name, cls in (("t5", "T5Model"), ("bart", "BartModel"), ("mbart", "MBartModel")):
        full = family(name, cls.replace("Model", "ForConditionalGeneration"), decoder_start_token_id=5)
        labels = torch.tensor([[7, 8, 9, 3], [10, 3, -100, -100]])
        shifted = full.prepare_decoder_input_ids_from_labels(labels)
        base = family(name, cls, decoder_start_token_id=5)
        adapters = attach(base)
        adapters.add("a", "seq2seq_lm_head", set_active=True)
        ids = inputs(rows=2, length=4)["input_ids"]
        with torch.no_grad():
            found = base(input_ids=ids, labels=labels)
            expected = base(input_ids=ids, decoder_input_ids=shifted, labels=labels)
        assert torch.equal(found.logits, expected.logits), name
        assert torch.equal(found.loss, expected.loss)
    base = family("t5")
    attach(base).add("a", "seq2seq_lm_head", set_active=True)
    with pytest.raises(UsageError, match="decoder_start_token_id"):
        base(input_ids=ids, labels=labels)


def test_a_stack_answers_with_the_head_of_its_last_adapter() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("language", f"{SEQ}+masked_lm_head")
    adapters.add("task", SEQ, labels=("no", "yes"))
    adapters.activate(Stack("language", "task"))
    assert logits(base).shape == (4, 2)
    assert base.config.id2label == {0: "no", 1: "yes"}
    adapters.activate(Stack("task", "language"))
    assert logits(base).shape == (4, 9, 100)


def test_the_inverse_of_an_invertible_adapter_stands_in_front_of_the_last_layer() -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", "seq_bn_inv+masked_lm_head[layers=1,layer_norm=false,bias=false]", set_active=True)
    randomise(adapters, "a")
    with torch.no_grad():
        states = base(**inputs(), output_hidden_states=True)
        op = adapters._loaded.binding(adapters._loaded["a"]).embeddings["embeddings"]
        expected = op.inverse(states.hidden_states[-1]) @ adapters.adapter("a").tensors["head.0.weight"].T
    assert torch.allclose(states.logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "method", "says"),
    [
        ("bert", "classification_head[num_labels=2,pooling=mean]", "pooling 'mean'"),
        ("gpt2", "classification_head[num_labels=2,pooling=first]", "pooling 'first'"),
        ("bert", "tagging_head[bias=false]", "bias False"),
        ("bert", "multiple_choice_head", "num_choices"),
        ("bert", "masked_lm_head[activation_function=hidden_act]", "hidden_act"),
        ("bert", "masked_lm_head[inverts=false]", "inverts False"),
        ("bert", "dependency_parsing_head[dropout_prob=0.1]", "dropout_prob 0.1"),
    ],
)
def test_a_head_that_the_adapters_format_has_no_word_for_is_not_written_in_it(
    name: str, method: str, says: str, tmp_path: Path
) -> None:
    adapters = attach(family(name))
    adapters.add("a", method)
    with pytest.raises(UnsupportedError, match=says):
        adapters.save("a", tmp_path / "out", format="adapters")
    assert not (tmp_path / "out").exists()


def test_a_fixed_head_that_was_changed_is_written_as_a_flexible_one() -> None:
    adapters = attach(model())
    adapters.add("a", "classification_head[num_labels=2,pooling=pooler,activation_function=null]")
    value = adapters.adapter("a")
    written = adapters_format.encode(value)
    fixed = dataclasses.replace(value.manifest, extra={"adapters": {"fixed_head": "BertForSequenceClassification"}})
    as_fixed = adapters_format.encode(Adapter(value.config, value.tensors, fixed))
    assert written.documents["head_config.json"]["config"]["head_type"] == "classification"
    assert set(as_fixed.tensors["head"]) == {"classifier.weight", "classifier.bias"}
    other = tuple(parse_method("classification_head[num_labels=2,pooling=first,activation_function=null]"))
    as_flexible = adapters_format.encode(Adapter(other, value.tensors, fixed))
    assert set(as_flexible.tensors["head"]) == {"heads.a.1.weight", "heads.a.1.bias"}


def test_a_head_that_only_a_class_of_transformers_has_is_written_as_that_of_the_class(tmp_path: Path) -> None:
    adapters = attach(family("t5"))
    adapters.add("a", "question_answering_head[scaled=false]")
    adapters.save("a", tmp_path / "out", format="adapters")
    document = json.loads((tmp_path / "out" / "head_config.json").read_text("utf-8"))
    assert (document["config"], document["model_class"]) == (None, "T5ForQuestionAnswering")
    (back,), (head,) = read(tmp_path / "out").config, adapters.adapter("a").config
    assert back.to_json() == {**head.to_json(), "activation_function": None}  # behind one layer there is none
