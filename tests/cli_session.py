"""The command line in a test: a way to type commands, and a tiny real base model and data on the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        initializer_range=0.2,  # else the random features hardly differ from one text to the next
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
