"""The command line in a test: a tiny real base model on the disk, data, a registry, and a way to type commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import BertConfig, BertModel, BertTokenizer

from adapterhub.cli.application import run

GOOD = ("good", "great", "fine", "lovely", "superb")
BAD = ("bad", "awful", "dull", "poor", "weak")
FILLING = ("the", "a", "film", "movie", "plot", "was", "is", "and", "very", "it")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BASE_ID = "acme/tiny-bert"


@dataclass(frozen=True)
class Typed:
    """What came of a command line."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error of a command that failed with --json."""
        assert self.json["ok"] is False
        found: dict[str, str] = self.json["error"]
        return found


def type_command(*arguments: str, stdin: str = "") -> Typed:
    """Run a command line in this process."""
    runner = CliRunner()
    with runner.isolation(input=stdin) as (out, err, _):
        status = run(arguments)
        return Typed(status, out.getvalue().decode(), err.getvalue().decode())


def make_base(folder: Path, seed: int = 0) -> Path:
    """Return a folder with a BERT of two layers and its tokenizer."""
    folder.mkdir(parents=True)
    words = [*SPECIAL, *FILLING, *GOOD, *BAD]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def sentences(count: int) -> list[tuple[str, str]]:
    """Return different texts with their labels; one word in each decides."""
    made = []
    for number in range(count):
        label, words = (("positive", GOOD), ("negative", BAD))[number % 2]
        k = number // 2
        filling = [FILLING[k % 10], FILLING[k // 10 % 10], FILLING[k // 100 % 10]]
        made.append((" ".join([*filling, words[k % 5], FILLING[(k + 3) % 10]]), label))
    return made


def write_csv(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Write texts and labels."""
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model."""
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the same shape with other weights."""
    return make_base(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained on the tiny model by the command line; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_csv(folder / "reviews.csv", sentences(240))
    out = folder / "tiny-reviews.safetensors"
    texts = ["--summary", "Is a tiny review positive?", "--dataset", "tiny reviews", "--dataset-license", "CC0-1.0"]
    typed = type_command(
        *("train", str(data), "--base", str(base), "--base-id", BASE_ID, "--out", str(out), "--version", "1.0.0"),
        *("--task", "sentiment/reviews", "--license", "Apache-2.0", "--language", "en", *texts),
        *("--epochs", "12", "--lr", "0.02", "--method", "double_seq_bn[reduction_factor=2]+layer_norm"),
    )
    assert typed.status == 0, typed.err
    return out


@pytest.fixture
def registry(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _clean: None) -> Path:
    """A registry with the trained adapter, which is the default one."""
    folder = tmp_path / "hub"
    folder.mkdir()
    file = folder / "tiny-reviews-1.0.0.safetensors"
    file.write_bytes(trained.read_bytes())
    typed = type_command(
        "index", "add", str(file), "--index", str(folder / "index.json"), "--alias", "tiny/reviews@acme"
    )
    assert typed.status == 0, typed.err
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing of the person who tests be read or changed: settings, caches, network, colours."""
    for name in ("ADAPTERHUB_REGISTRY", "ADAPTERHUB_DEBUG", "ADAPTERHUB_OFFLINE", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    yield


Make = Callable[[], object]
