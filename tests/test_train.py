"""Training: the loop, the data it reads, and the command `train`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_session import BAD, BASE_ID, GOOD, sentences, type_command, write_csv
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from adapterhub import hub
from adapterhub.adapter import Base, Manifest
from adapterhub.converters import read_manifest
from adapterhub.errors import FormatError, NotFoundError, StateError, UsageError
from adapterhub.loader import attach
from adapterhub.loader.data import (
    Columns,
    Example,
    LabelledText,
    hash_fraction,
    label_names,
    read_texts,
    shuffled_batches,
    split_by_hash,
    to_examples,
)
from adapterhub.loader.training import fit, measure
from adapterhub.loader.training_records import Progress, TrainingConfig, TrainingResult

pytestmark = pytest.mark.usefixtures("clean")

LABELS = ("negative", "positive")
EXAMPLES = to_examples([LabelledText(*row) for row in sentences(200)], LABELS)
QUICK = TrainingConfig(epochs=2, learning_rate=0.02, batch_size=16)


class Bench:
    """A fresh classifier on the tiny model and all that fit wants to have."""

    def __init__(self, folder: Path, labels: int = 2) -> None:
        torch.manual_seed(7)
        self.model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**inputs).logits
        return logits

    def fit(
        self,
        trainable: list[nn.Parameter] | None = None,
        config: TrainingConfig = QUICK,
        examples: list[Example] = EXAMPLES,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> TrainingResult:
        return fit(
            self.model,
            self.model.parameters() if trainable is None else trainable,
            examples[:160],
            examples[160:],
            tokenizer=self.tokenizer,
            config=config,
            forward=self.forward,
            on_progress=on_progress,
        )

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}


@pytest.fixture
def bench(base: Path) -> Bench:
    return Bench(base)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_full_fine_tuning_learns_the_task(bench: Bench) -> None:
    result = bench.fit(config=TrainingConfig(epochs=6, learning_rate=0.01, batch_size=16))
    assert result.metrics["accuracy"] > 0.95
    assert result.parameters == sum(p.numel() for p in bench.model.parameters())
    assert result.steps == 6 * 10
    losses = [epoch.train_loss for epoch in result.epochs]
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_weights_bit_for_bit(base: Path) -> None:
    first, second = Bench(base), Bench(base)
    first.fit()
    torch.rand(3)  # what happened before does not matter
    second.fit()
    assert same(first.state(), second.state())


def test_another_seed_gives_other_weights(base: Path) -> None:
    first, second = Bench(base), Bench(base)
    first.fit()
    second.fit(config=TrainingConfig(epochs=2, learning_rate=0.02, batch_size=16, seed=1))
    assert not same(first.state(), second.state())


def test_only_the_given_parameters_change_and_every_flag_is_put_back(bench: Bench) -> None:
    parameters = dict(bench.model.named_parameters())
    parameters["bert.embeddings.word_embeddings.weight"].requires_grad_(False)
    flags = {name: p.requires_grad for name, p in parameters.items()}
    before = bench.state()
    bench.fit([parameters["classifier.weight"], parameters["bert.encoder.layer.0.output.LayerNorm.bias"]])
    changed = {name for name, value in bench.state().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "bert.encoder.layer.0.output.LayerNorm.bias"}
    assert {name: p.requires_grad for name, p in parameters.items()} == flags
    assert all(p.grad is None for p in parameters.values())
    assert not bench.model.training


def test_a_parameter_that_is_frozen_is_trained_if_it_is_given(bench: Bench) -> None:
    weight = bench.model.get_parameter("classifier.weight")
    weight.requires_grad_(False)
    before = weight.detach().clone()
    bench.fit([weight, weight])
    assert not torch.equal(weight, before)
    assert not weight.requires_grad


def test_the_random_state_of_the_caller_is_left_alone(bench: Bench) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    bench.fit()
    assert torch.equal(torch.rand(4), expected)


def test_progress_is_reported_for_each_step_and_the_end_of_each_epoch(bench: Bench) -> None:
    seen: list[Progress] = []
    result = bench.fit(on_progress=seen.append)
    ends = [report for report in seen if report.ends_epoch]
    assert [report.step for report in seen if not report.ends_epoch] == list(range(1, 21))
    assert [report.evaluation for report in ends] == [epoch.evaluation for epoch in result.epochs]
    rates = [report.learning_rate for report in seen]
    assert max(rates) == pytest.approx(0.02)
    assert 0 < rates[-1] < 0.003
    assert rates[0] < max(rates)


def test_evaluation_does_not_depend_on_the_batch_size(bench: Bench) -> None:
    examples = [Example(" ".join([word] * n), n % 2) for word in GOOD + BAD for n in range(1, 12)]
    found = [
        measure(
            examples,
            tokenizer=bench.tokenizer,
            config=TrainingConfig(batch_size=size),
            forward=bench.forward,
            device=bench.model.device,
        )
        for size in (1, 7, 200)
    ]
    assert found[0].examples == 110
    assert {evaluation.accuracy for evaluation in found} == {found[0].accuracy}
    assert [evaluation.loss for evaluation in found] == pytest.approx([found[0].loss] * 3, rel=1e-5)


def test_keep_best_puts_the_weights_of_the_best_epoch_back(base: Path) -> None:
    # Labels that contradict the training data: with every epoch the evaluation becomes worse.
    wrong = EXAMPLES[:160] + [Example(example.text, 1 - example.label) for example in EXAMPLES[160:]]
    config = TrainingConfig(epochs=4, learning_rate=0.004, batch_size=16)
    kept, last = Bench(base), Bench(base)
    result = kept.fit(config=replace(config, keep_best=True), examples=wrong)
    later = last.fit(config=config, examples=wrong)
    assert result.best == later.best == 1
    assert (result.kept, later.kept) == (1, 4)
    assert result.metrics["accuracy"] > later.metrics["accuracy"]
    again = measure(wrong[160:], tokenizer=kept.tokenizer, config=QUICK, forward=kept.forward, device=kept.model.device)
    assert again.accuracy == result.metrics["accuracy"]


def test_a_training_that_diverges_is_named_and_leaves_the_model_usable(bench: Bench) -> None:
    flags = [p.requires_grad for p in bench.model.parameters()]
    with torch.no_grad():
        bench.model.classifier.weight.fill_(float("inf"))
    with pytest.raises(StateError, match=r"the loss is nan in step 1.*lower learning rate"):
        bench.fit()
    assert [p.requires_grad for p in bench.model.parameters()] == flags
    assert not bench.model.training


def test_a_label_that_the_head_does_not_have_is_named(bench: Bench) -> None:
    with pytest.raises(UsageError, match="label number 2, but the head has only 2 classes"):
        bench.fit(examples=[Example("the film", 2)] * 200)


def test_nothing_to_train_is_an_error(bench: Bench) -> None:
    with pytest.raises(StateError, match="no parameters"):
        bench.fit([])
    with pytest.raises(StateError, match="no examples"):
        bench.fit(examples=[])


def test_all_values_of_a_configuration_that_are_out_of_range_are_listed() -> None:
    with pytest.raises(UsageError, match=r"epochs is 0.*learning rate is nan.*warmup is 1"):
        TrainingConfig(epochs=0, learning_rate=float("nan"), warmup=1)


def test_bfloat16_trains_about_as_well(bench: Bench) -> None:
    config = TrainingConfig(epochs=6, learning_rate=0.01, batch_size=16, bf16=True)
    result = bench.fit(config=config)
    assert result.precision in ("bfloat16", "float32")
    assert result.metrics["accuracy"] > 0.95
    assert {p.dtype for p in bench.model.parameters()} == {torch.float32}


def test_shuffled_batches_hold_every_example_once_and_texts_of_similar_length() -> None:
    lengths = [(37 * n) % 100 + 1 for n in range(1000)]
    batches = shuffled_batches(lengths, 10, seed=3)
    assert sorted(number for batch in batches for number in batch) == list(range(1000))
    assert batches == shuffled_batches(lengths, 10, seed=3) != shuffled_batches(lengths, 10, seed=4)
    padded = sum(len(batch) * max(lengths[n] for n in batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)


# The data


def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path) -> None:
    rows = [("fine, really", "good"), ("dull", "bad")]
    (tmp_path / "a.csv").write_text('text,label\n"fine, really",good\ndull,bad\n')
    (tmp_path / "a.tsv").write_text("label\ttext\ngood\tfine, really\nbad\tdull\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t, "label": label}) + "\n\n" for t, label in rows))
    expected = [LabelledText(*row) for row in rows]
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        assert read_texts([tmp_path / name]) == expected
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "bad.txt").write_text("dull\n")
    (folder / "good.txt").write_text("\ufefffine, really\n\n")
    assert sorted(map(repr, read_texts([folder]))) == sorted(map(repr, expected))


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,stars\nfine,5\n")
    assert read_texts([tmp_path / "a.csv"], Columns("review", "stars")) == [LabelledText("fine", "5")]


def test_all_lines_that_are_no_examples_are_listed_with_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "x", "label": "y"}\n{"text": "x"}\n[1]\n{"text": "", "label": "y"}\n{"text": "x", "label": [1]}\n'
    )
    with pytest.raises(FormatError) as caught:
        read_texts([tmp_path / "a.jsonl"])
    assert caught.value.faults == (
        "line 2: no 'label'",
        "line 3: not an object",
        "line 4: 'text' holds no text",
        "line 5: 'label' is [1], not a word or a whole number",
    )


def test_a_file_of_the_wrong_kind_does_not_fill_the_screen(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("nothing\n" + "here\n" * 5000)
    with pytest.raises(FormatError) as caught:
        read_texts([tmp_path / "a.csv"])
    assert len(caught.value.faults) == 21
    assert caught.value.faults[-1] == "… and 4980 more"


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", b"{oops\n", "line 1 is not JSON"),
        ("a.csv", b"text,label\n\xff\xfe,x\n", "is not UTF-8"),
        ("a.txt", b"\xff\xfe\n", "is not UTF-8"),
        ("a.csv", b'text,label\n"open,x\n', "behind line 1: unexpected end of data"),
        ("a.csv", b"text,label\n", "no examples"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=match):
        read_texts([tmp_path / name])


def test_a_file_that_is_not_there_or_of_an_unknown_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no file .*nowhere\.csv"):
        read_texts([tmp_path / "nowhere.csv"])
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot tell the format"):
        read_texts([tmp_path / "a.parquet"])
    with pytest.raises(NotFoundError, match="holds no data"):
        read_texts([tmp_path])


def test_labels_that_are_numbers_are_in_the_order_of_their_values() -> None:
    assert label_names([LabelledText("", label) for label in ("10", "9", "-1", "x")]) == ("-1", "9", "10", "x")


def test_a_label_that_is_not_among_the_given_ones_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown labels: 'x', 'y'; the adapter knows 'a', 'b'"):
        to_examples([LabelledText("t", label) for label in "abyx"], ("a", "b"))


def test_the_split_depends_on_nothing_but_each_text() -> None:
    texts = [LabelledText(f"text number {n}", "x") for n in range(3000)]
    train, evaluate = split_by_hash(texts, 0.1)
    assert 240 < len(evaluate) < 360
    assert len(train) + len(evaluate) == 3000
    assert split_by_hash(reversed(texts), 0.1)[1] == evaluate[::-1]
    assert set(evaluate) <= set(split_by_hash(texts, 0.2)[1])
    assert hash_fraction("The  FILM ") == hash_fraction("the film")
    assert split_by_hash(texts, 0.0) == (texts, [])


# The verb and the command


def test_training_an_adapter_leaves_the_base_bit_identical(base: Path, tmp_path: Path) -> None:
    loaded = hub.load_base(str(base))
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    trained = hub.train(
        loaded,
        EXAMPLES[:160],
        EXAMPLES[160:],
        out=tmp_path / "a.safetensors",
        manifest=Manifest(name="a", base=Base(architecture="bert"), labels=LABELS),
        config=QUICK,
        method="seq_bn[reduction_factor=4]",
    )
    assert same(before, dict(loaded.model.state_dict()))
    assert trained.manifest.labels == LABELS
    assert trained.result.parameters == 2 * (2 * 32 * 8 + 8 + 32) + 32 * 2 + 2
    adapters = attach(loaded.model)
    assert adapters.replay(adapters.load(trained.path)).difference == 0


def test_a_training_that_fails_leaves_the_base_free_of_adapters(base: Path, tmp_path: Path) -> None:
    loaded = hub.load_base(str(base))
    modules = [name for name, _ in loaded.model.named_modules()]
    with pytest.raises(StateError, match="no examples"):
        hub.train(
            loaded,
            [],
            [],
            out=tmp_path / "a.safetensors",
            manifest=Manifest(name="a", base=Base(architecture="bert"), labels=LABELS),
            config=QUICK,
        )
    assert [name for name, _ in loaded.model.named_modules()] == modules
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_cannot_be_is_refused_before_the_training(base: Path, tmp_path: Path) -> None:
    loaded = hub.load_base(str(base))
    reports: list[Progress] = []
    with pytest.raises(UsageError, match="name"):
        hub.train(
            loaded,
            EXAMPLES,
            [],
            out=tmp_path / "a.safetensors",
            manifest=Manifest(name="Not A Name", base=Base(architecture="bert"), labels=LABELS),
            config=QUICK,
            on_progress=reports.append,
        )
    assert reports == []


def train(tmp_path: Path, base: Path, *more: str, data: str = "reviews.csv", out: str = "a.safetensors") -> list[str]:
    """Return a command line that trains quickly."""
    if not (tmp_path / "reviews.csv").exists():
        write_csv(tmp_path / "reviews.csv", sentences(120))
    start = ["train", str(tmp_path / data), "--base", str(base), "--out", str(tmp_path / out), "--epochs", "1"]
    return [*start, "--method", "seq_bn[reduction_factor=8]", *more]


def test_the_trained_artifact_carries_all_that_is_known(trained: Path) -> None:
    config, manifest = read_manifest(trained)
    assert [part["method"] for part in config] == ["bottleneck", "layer_norm", "classification_head"]
    assert (manifest.name, manifest.version, manifest.labels) == ("tiny-reviews", "1.0.0", LABELS)
    assert (manifest.base.id, manifest.base.architecture) == (BASE_ID, "bert")
    assert manifest.base.fingerprint is not None
    assert manifest.probe is not None
    assert manifest.probe.output == "logits"
    assert manifest.metrics["accuracy"] > 0.95
    assert manifest.training["seed"] == 42
    assert len(manifest.training["history"]) == 10
    assert manifest.training["files"].keys() == {"reviews.csv"}
    (data,) = manifest.datasets
    assert (data.name, data.license) == ("tiny reviews", "CC0-1.0")
    assert data.sizes["train"] + data.sizes["evaluation"] == 240


def test_the_same_command_gives_the_same_file_byte_for_byte(base: Path, tmp_path: Path) -> None:
    for out in ("a.safetensors", "b.safetensors"):
        assert type_command(*train(tmp_path, base, "--name", "x", out=out)).status == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_result_of_train_for_people_programs_and_scripts(base: Path, tmp_path: Path) -> None:
    typed = type_command(*train(tmp_path, base))
    assert typed.out.startswith("a\nfile ")
    assert "epoch 1/1  loss " in typed.err
    assert "the base model is a folder" in typed.err
    typed = type_command(*train(tmp_path, base, "--json", "--force", "--base-id", "acme/tiny"))
    assert typed.json["ok"] is True
    assert typed.json["manifest"]["base"]["id"] == "acme/tiny"
    assert 0 < typed.json["share"] < 0.1
    typed = type_command(*train(tmp_path, base, "-q", "--force"))
    assert (typed.out, typed.err) == (f"{tmp_path / 'a.safetensors'}\n", "")


def test_a_file_that_is_there_is_not_replaced_unasked(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("mine")
    typed = type_command(*train(tmp_path, base, "--json"))
    assert (typed.status, typed.error["code"]) == (1, "E_STATE")
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_texts_for_evaluation_come_from_a_file_of_their_own(base: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "dev.csv", sentences(130)[110:])
    typed = type_command(*train(tmp_path, base, "--json", "--eval", str(tmp_path / "dev.csv")))
    assert typed.json["manifest"]["datasets"][0]["sizes"] == {"train": 120, "evaluation": 20}
    assert "10 texts of --eval are among those to train on" in typed.err


def test_text_files_are_named_after_their_labels(base: Path, tmp_path: Path) -> None:
    for name, words in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.txt").write_text(
            "".join(f"the {word} film number {n}\n" for n in range(8) for word in words)
        )
    typed = type_command(*train(tmp_path, base, str(tmp_path / "bad.txt"), "--json", data="good.txt"))
    assert typed.json["manifest"]["labels"] == ["bad", "good"]


def test_without_texts_to_evaluate_on_there_are_no_metrics(base: Path, tmp_path: Path) -> None:
    typed = type_command(*train(tmp_path, base, "--eval-fraction", "0", "--json"))
    assert typed.json["metrics"] == {}
    assert "metrics" not in typed.json["manifest"]


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--labels", "negative"], 2, "all texts have the label"),
        (["--labels", "negative,good"], 2, "unknown labels: 'positive'"),
        (["--labels", "a,a"], 2, "names a label twice"),
        (["--text-column", "review"], 5, "lines that are no examples"),
        (["--epochs", "0", "--lr", "-1"], 2, "epochs is 0, below 1; learning rate is -1.0"),
        (["--method", "sec_bn"], 2, "no method is called 'sec_bn'"),
        (["--method", "seq_bn[reduction=2]"], 2, "unknown field reduction"),
        (["--name", "Not A Name"], 2, "cannot be written: name: "),
        (["--version", "one"], 2, "cannot be written: version: "),
        (["--eval-fraction", "1"], 2, "is not in the range"),
        (["--pooling", "last"], 2, "is not one of"),
        (["--base", "./nowhere"], 3, "there is no base model in ./nowhere"),
        (["--base", "acme/unknown"], 7, "is not on this machine, and the network is switched off"),
        (["--out", "no/such/folder/a.safetensors"], 3, "there is no folder no/such/folder"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(
    base: Path, tmp_path: Path, more: list[str], status: int, message: str
) -> None:
    typed = type_command(*train(tmp_path, base, *more, "--json"))
    assert (typed.status, message in typed.error["message"]) == (status, True), typed.out
    assert not list(tmp_path.rglob("*.safetensors"))
