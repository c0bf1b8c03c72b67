"""Adapters inside what people run models with: torch.compile, checkpointing, bf16, pipelines, the Trainer."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import (
    VOCABULARY,
    cast,
    classifier,
    family,
    family_inputs,
    hidden,
    inputs,
    logits,
    model,
    randomise,
    with_adapters,
)
from torch.utils.data import Dataset
from transformers import BertTokenizerFast, PreTrainedModel, Trainer, TrainingArguments, pipeline

from adapterhub.loader import AdapterSet, attach

SEQ, DOUBLE = "seq_bn[reduction_factor=4]", "double_seq_bn[reduction_factor=4]+layer_norm"
SITES = (
    SEQ,
    DOUBLE,
    "par_bn[reduction_factor=4]",
    "seq_bn[reduction_factor=4,original_ln_after=false,residual_before_ln=false]",
    "double_seq_bn[reduction_factor=4,ln_before=true,ln_after=true,use_gating=true,scaling=learned]",
)
LINEARS = (
    'lora[r=4,alpha=1,targets=["all-linear"]]',
    "lora[r=4,gating=true]",
    "dora[r=4]",
    "ia3",
    "vera[r=4]",
    "dvora[r=4,alpha=1,form=matrices,magnitude=dora_adapters]",
    "mtl_lora[r=4,ups=3]",
)
IN_FRONT = (
    "prefix_tuning[prefix_length=3,bottleneck_size=5]",
    "prefix_tuning_flat[prefix_length=3,use_gating=true,positions=shifted]",
    "prompt_tuning[prompt_length=3,sees_padding=true]",
    "prompt_tuning[prompt_length=3,place=tokens]",
    "p_tuning[prompt_length=3]",
    "p_tuning[prompt_length=3,encoder=lstm]",
    "mam[prefix_length=3,bottleneck_size=5]",
    "unipelt[prefix_length=3,bottleneck_size=5]",
)
FURTHER = (
    "compacter[reduction_factor=4]+loreft[r=2,tied_weights=true,dropout=0]",
    "compacter++[reduction_factor=4,shared_W_phm=true,factorized_phm_rule=true]",
    "seq_bn_inv[reduction_factor=4]",
    "loreft[r=2,suffix_positions=2,layers=[0,1],dropout=0]",
    "direft[layers=[1],tied_weights=true,suffix_positions=1,non_linearity=relu,dropout=0]",
)
OPTIONS = SITES + LINEARS + IN_FRONT + FURTHER


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [SITES, LINEARS, IN_FRONT, FURTHER], ids=["sites", "linears", "in front", "further"]
)
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_compiled_model_follows_every_activation_without_a_graph_break(family: str, options: tuple[str, ...]) -> None:
    base = model(family)
    adapters = with_adapters(base, **{f"m{i}": text for i, text in enumerate(options)})
    torch._dynamo.reset()
    compiled = torch.compile(base, backend="eager", fullgraph=True)
    for name in (None, *adapters.names, "m0", None):
        adapters.activate(name)
        with torch.no_grad():
            assert torch.allclose(compiled(**inputs()).last_hidden_state, hidden(base), atol=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("languages", [{}, {"lang_ids": torch.tensor([0, 1])}], ids=["of the model", "of each row"])
def test_a_model_that_chooses_modules_by_language_is_compiled_without_a_graph_break(languages: dict[str, Any]) -> None:
    base = family("xmod")
    batch = family_inputs(base) | languages
    adapters = with_adapters(base, a=SEQ, b="lora", c="loreft[dropout=0]", d="prefix_tuning_flat[prefix_length=3]")
    torch._dynamo.reset()
    compiled = torch.compile(base, backend="eager", fullgraph=True)
    for name in (None, *adapters.names):
        adapters.activate(name)
        with torch.no_grad():
            assert torch.allclose(compiled(**batch).last_hidden_state, hidden(base, batch), atol=1e-6), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own
def test_the_default_compiler_gives_the_same_answers() -> None:
    base = model()
    adapters = with_adapters(base, a=SEQ)
    adapters.activate("a")
    torch._dynamo.reset()
    compiled = torch.compile(base)
    with torch.no_grad():
        assert torch.allclose(compiled(**inputs()).last_hidden_state, hidden(base), atol=1e-5)


def gradients(base: PreTrainedModel, adapters: AdapterSet) -> list[torch.Tensor]:
    trained = adapters.train("a")
    base.train()
    base(**inputs(), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    return [torch.zeros(1) if p.grad is None else p.grad.clone() for p in trained]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("text", OPTIONS)
def test_gradients_are_the_same_with_checkpointing(text: str, reentrant: bool) -> None:
    found = []
    for checkpointed in (False, True):
        base = model()
        for module in base.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for layer in base.encoder.layer:
            layer.attention.self.dropout.p = 0.0
        adapters = attach(base)
        adapters.add("a", text, labels=("no", "yes"))
        randomise(adapters, "a")
        if checkpointed:
            base.activation_checkpointing_enable({"use_reentrant": reentrant})
        found.append(gradients(base, adapters))
    assert all(g.abs().sum() > 0 for g in found[0])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("text", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_to_float32(text: str, dtype: torch.dtype) -> None:
    exact_base, half_base = model(), cast(model(), dtype)
    exact = with_adapters(exact_base, a=text)
    half = attach(half_base)
    half.load(exact.adapter("a"), set_active=True, allow_base_mismatch=True)
    exact.activate("a")
    expected = hidden(exact_base)
    found = hidden(half_base)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("text", OPTIONS)
def test_a_copy_and_a_pickled_model_answer_alike_without_the_original(text: str) -> None:
    base = model()
    adapters = with_adapters(base, a=text)
    adapters.activate("a")
    expected = hidden(base)
    twins = copy.deepcopy(base), pickle.loads(pickle.dumps(base))
    adapters.detach()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.zero_()
    assert all(torch.equal(hidden(twin), expected) for twin in twins)


def tokenizer(folder: Path) -> BertTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words + [f"w{i}" for i in range(VOCABULARY - len(words))]) + "\n")
    return BertTokenizerFast(str(vocabulary))


def test_a_pipeline_on_the_bare_model_names_the_classes_of_the_active_head(tmp_path: Path) -> None:
    base = model()
    adapters = attach(base)
    adapters.add("a", SEQ, labels=("bad", "so so", "good"), set_active=True)
    randomise(adapters, "a")
    classify = pipeline("text-classification", model=base, tokenizer=tokenizer(tmp_path), top_k=None)
    found: Any = classify("a good film")[0]
    assert {row["label"] for row in found} == {"bad", "so so", "good"}
    assert sum(row["score"] for row in found) == pytest.approx(1.0, abs=1e-5)


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """Sixteen examples whose label is whether their first token is above the middle."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        ids = inputs(rows=1, length=6, seed=i)["input_ids"][0]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids[0] > VOCABULARY // 2).long()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bare", "classifier"])
def test_the_trainer_trains_the_adapter_and_only_the_adapter(kind: str, tmp_path: Path) -> None:
    base = model() if kind == "bare" else classifier()
    weights = {k: v.clone() for k, v in base.state_dict().items()}
    adapters = attach(base)
    adapters.add("a", DOUBLE, labels=("low", "high"))
    start = adapters.adapter("a").tensors
    adapters.train("a")
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        label_names=["labels"],
        report_to=[],
        save_strategy="epoch",
        eval_strategy="epoch",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=base,
        args=arguments,
        train_dataset=Sentences(),
        eval_dataset=Sentences(),
        compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(-1) == found.label_ids).mean()},
    )
    trainer.train()
    assert "eval_accuracy" in trainer.evaluate()
    trained = adapters.adapter("a").tensors
    assert any(not torch.equal(start[key], trained[key]) for key in start)
    state = base.state_dict()
    assert all(torch.equal(weights[key], state[key]) for key in weights)
    assert logits(base).shape == (4, 2)
