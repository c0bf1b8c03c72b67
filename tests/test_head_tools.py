"""Heads in the pipelines and the Trainer of transformers, on bare models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_integration import tokenizer
from tiny_models import VOCABULARY, inputs, model, randomise
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer, TrainingArguments, pipeline

from adapterhub.loader import attach

SEQ = "double_seq_bn[reduction_factor=4]"


def with_head(method: str, labels: tuple[str, ...] = ()) -> PreTrainedModel:
    base = model()
    adapters = attach(base)
    adapters.add("a", f"{SEQ}+{method}", labels=labels, set_active=True)
    randomise(adapters, "a")
    return base


def test_token_classification_names_the_classes_of_the_active_head(tmp_path: Path) -> None:
    base = with_head("tagging_head[num_labels=3]", ("O", "PER", "LOC"))
    tag = pipeline("token-classification", model=base, tokenizer=tokenizer(tmp_path), ignore_labels=[])
    found: Any = tag("a good film")
    assert [row["word"] for row in found] == ["a", "good", "film"]
    assert {row["entity"] for row in found} <= {"O", "PER", "LOC"}


def test_fill_mask_asks_the_active_head(tmp_path: Path) -> None:
    base = with_head("masked_lm_head")
    words = tokenizer(tmp_path)
    fill: Any = pipeline("fill-mask", model=base, tokenizer=words, top_k=3)
    found = fill("a [MASK] film")
    batch = words("a [MASK] film", return_tensors="pt")
    with torch.no_grad():
        expected = base(**batch).logits[0, 2].softmax(-1).topk(3)
    assert [row["token"] for row in found] == expected.indices.tolist()
    assert [row["score"] for row in found] == pytest.approx(expected.values.tolist())


def test_classes_that_are_not_exclusive_get_a_probability_each(tmp_path: Path) -> None:
    base = with_head("multilabel_classification_head[num_labels=3]", ("a", "b", "c"))
    words = tokenizer(tmp_path)
    classify: Any = pipeline("text-classification", model=base, tokenizer=words, top_k=None)
    found = {row["label"]: row["score"] for row in classify("a good film")[0]}
    with torch.no_grad():
        expected = base(**words("a good film", return_tensors="pt")).logits[0].sigmoid()
    assert [found[name] for name in "abc"] == pytest.approx(expected.tolist())


class Examples(Dataset[dict[str, Tensor]]):
    """Sixteen texts, and what is right of them: it can be seen in their first token."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids = inputs(rows=1, length=6, seed=i)["input_ids"][0]
        high = ids > VOCABULARY // 2
        right: dict[str, dict[str, Tensor]] = {
            "tagging": {"labels": high.long()},
            "answer": {"start_positions": high[0].long(), "end_positions": high[0].long() + 2},
            "choice": {"labels": high[0].long()},
            "masked": {"labels": torch.where(high, 50, 10)},
            "causal": {"labels": ids},
            "multilabel": {"labels": torch.stack((high[0], ~high[0], high[1])).float()},
        }
        if self.kind == "choice":
            ids = torch.stack((ids, ids.roll(1)))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **right[self.kind]}


HEADS = {
    "tagging": "tagging_head[num_labels=2]",
    "answer": "question_answering_head",
    "choice": "multiple_choice_head[num_choices=2]",
    "masked": "masked_lm_head",
    "causal": "causal_lm_head",
    "multilabel": "multilabel_classification_head[num_labels=3]",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
def test_the_trainer_trains_every_kind_of_head_and_leaves_the_base_alone(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base: PreTrainedModel = model()
    if kind == "causal":
        base = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=40))
    weights = {key: value.clone() for key, value in base.state_dict().items()}
    adapters = attach(base)
    adapters.add("a", f"{SEQ}+{HEADS[kind]}")
    adapters.train("a")
    names = ["start_positions", "end_positions"] if kind == "answer" else ["labels"]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        label_names=names,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=base, args=arguments, train_dataset=Examples(kind), eval_dataset=Examples(kind))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.95 * before
    state = base.state_dict()
    assert all(torch.equal(weights[key], state[key]) for key in weights)
