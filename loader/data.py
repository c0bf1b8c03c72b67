"""Labelled texts: read from files, split by hash, tokenised and put into batches of similar length. Loads no torch.

file                  what it holds
*.csv, *.tsv          a header line, then rows; the columns `text` and `label`
*.jsonl, *.ndjson     one object per line with the keys `text` and `label`
*.txt                 one text per line; the name of the file is the label (`positive.txt`)
a folder              all files of these kinds in it
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError, NotFoundError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
"""Endings of the files that can be read."""

MOST_FAULTS = 20
"""So many faults are listed; a file in the wrong format has one in every line."""

LONGEST_FIELD = 1 << 24
"""Bound of one CSV field in characters; an unclosed quotation mark otherwise swallows the rest of the file."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a text and the number of its class."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One example as it lies in a file, the class by its name."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns (CSV) or keys (JSON) that hold the text and the label."""

    text: str = "text"
    label: str = "label"


def read_texts(paths: Iterable[Path], columns: Columns = Columns()) -> list[LabelledText]:
    """Return the labelled texts of all files, in the order of the files and of their lines.

    Raises:
        NotFoundError: a file does not exist, or a folder holds no file that can be read.
        UsageError: the ending of a file names no known format.
        FormatError: lines without text or label; lists the first of them with their line numbers.
    """
    texts = [text for path in paths for file in _files(path) for text in _read_file(file, columns)]
    if not texts:
        raise FormatError("the files hold no examples", hint="give at least one text with its label")
    return texts


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file that hold more than blanks, without their line ends.

    Raises:
        NotFoundError, FormatError: no such file, or not UTF-8.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    with path.open(encoding="utf-8-sig") as lines:
        try:
            yield from (line.strip() for line in lines if line.strip())
        except UnicodeDecodeError as error:
            raise FormatError(f"{path} is not UTF-8: {error.reason}", hint="save the file as UTF-8") from error


def label_names(texts: Iterable[LabelledText]) -> tuple[str, ...]:
    """Return the different labels in order: numbers by their value, then words by the alphabet.

    >>> label_names([LabelledText("a", "pos"), LabelledText("b", "neg"), LabelledText("c", "pos")])
    ('neg', 'pos')
    >>> label_names([LabelledText("a", "10"), LabelledText("b", "9")])
    ('9', '10')
    """
    names = {text.label for text in texts}
    return tuple(
        sorted(names, key=lambda name: (0, int(name), "") if re.fullmatch(r"-?[0-9]+", name) else (1, 0, name))
    )


def to_examples(texts: Iterable[LabelledText], labels: Sequence[str]) -> list[Example]:
    """Return the texts with the numbers of their labels; labels gives the order of the classes.

    Raises:
        UsageError: texts have labels that are not among labels; lists all such labels.
    """
    texts, numbers = list(texts), {name: number for number, name in enumerate(labels)}
    unknown = sorted({text.label for text in texts} - numbers.keys())
    if unknown:
        raise UsageError(
            f"unknown labels: {', '.join(map(repr, unknown))}; the adapter knows {', '.join(map(repr, labels))}",
            hint="name every label in --labels, or take those examples out",
        )
    return [Example(text.text, numbers[text.label]) for text in texts]


def split_by_hash(texts: Iterable[LabelledText], fraction: float) -> tuple[list[LabelledText], list[LabelledText]]:
    """Return (train, evaluate): a text goes to evaluate if its hash falls into the lowest fraction.

    The split depends on nothing but the text: not on the order, the other texts or a seed. So a text that occurs
    twice is never on both sides, and new data never move old data across.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"the fraction for evaluation is {fraction}", hint="give a number from 0 to below 1, e.g. 0.1")
    train: list[LabelledText] = []
    evaluate: list[LabelledText] = []
    for text in texts:
        (evaluate if hash_fraction(text.text) < fraction else train).append(text)
    return train, evaluate


def hash_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone, ignoring case and spacing.

    >>> hash_fraction("A  fine film ") == hash_fraction("a fine film")
    True
    """
    digest = hashlib.sha256(" ".join(text.lower().split()).encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)


Tokens = Mapping[str, list[int]]
"""One tokenised text: model input (`input_ids`, `attention_mask`, …) → one number per token."""

WINDOW = 64
"""So many batches are drawn at random before their texts are sorted by length: less padding, still random order."""


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Tokens]:
    """Return each text as tokens, not padded, cut to max_length tokens, in the given order."""
    if not texts:
        return []
    found = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False, return_attention_mask=True)
    return [{name: rows[number] for name, rows in found.items()} for number in range(len(texts))]


@dataclass(frozen=True, slots=True)
class Padding:
    """How a tokenizer fills up short texts.

    Attributes:
        fill: model input → the number that is put in; 0 for an input that is not named.
        left: whether it is put in front.
    """

    fill: Mapping[str, int]
    left: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Padding:
        """Return the padding of a tokenizer; one without a padding token gets 0, which the attention mask hides."""
        fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        return cls(fill, tokenizer.padding_side == "left")


def padded(texts: Sequence[Tokens], padding: Padding) -> dict[str, list[list[int]]]:
    """Return model input → one row per text, all as long as the longest.

    >>> padded([{"input_ids": [7, 8]}, {"input_ids": [9]}], Padding({"input_ids": 0}, left=False))
    {'input_ids': [[7, 8], [9, 0]]}
    """
    longest = max(len(text["input_ids"]) for text in texts)
    return {
        name: [_filled(text[name], longest, padding.fill.get(name, 0), padding.left) for text in texts]
        for name in texts[0]
    }


def _filled(row: list[int], length: int, fill: int, left: bool) -> list[int]:
    more = [fill] * (length - len(row))
    return more + row if left else row + more


def shuffled_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Return the numbers 0 … n-1 in batches of about equal lengths, in an order that depends on the seed alone.

    >>> sorted(number for batch in shuffled_batches([5, 1, 4, 2, 3], 2, seed=7) for number in batch)
    [0, 1, 2, 3, 4]
    """
    order = list(range(len(lengths)))
    draw = random.Random(seed)  # noqa: S311 (an order of examples is no secret)
    draw.shuffle(order)
    window = batch_size * WINDOW
    batches = [
        batch
        for start in range(0, len(order), window)
        for batch in _cut(sorted(order[start : start + window], key=lengths.__getitem__), batch_size)
    ]
    draw.shuffle(batches)
    return batches


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the numbers 0 … n-1 in batches, the longest texts first, so that a lack of memory shows at once.

    >>> sorted_batches([1, 3, 2], 2)
    [[1, 2], [0]]
    """
    return list(_cut(sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True), batch_size))


def _cut(order: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield list(order[start : start + size])


def _files(path: Path) -> list[Path]:
    """Return path itself, or the readable files of a folder by name."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
        if not files:
            raise NotFoundError(f"the folder {path} holds no data", hint=f"files must end in {', '.join(READERS)}")
        return files
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="give a CSV, TSV, JSON Lines or text file, or a folder")
    if path.suffix.lower() not in READERS:
        raise UsageError(f"cannot tell the format of {path}", hint=f"its name must end in {', '.join(READERS)}")
    return [path]


def _read_file(path: Path, columns: Columns) -> list[LabelledText]:
    ending = path.suffix.lower()
    if ending == ".txt":
        return [LabelledText(line, path.stem) for line in read_lines(path)]
    rows = _json_rows(path) if ending in (".jsonl", ".ndjson") else _csv_rows(path, "\t" if ending == ".tsv" else ",")
    try:
        return _accept(path, rows, columns)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error.reason}", hint="save the file as UTF-8") from error


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, object]]:
    """Yield (line number, column → value) of each row."""
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise FormatError(
                f"{path}, behind line {reader.line_num}: {error}", hint="check the quotation marks"
            ) from error


def _json_rows(path: Path) -> Iterator[tuple[int, object]]:
    """Yield (line number, value) of each line that is not blank."""
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise FormatError(f"{path}, line {number} is not JSON: {error.msg}") from error


def _accept(path: Path, rows: Iterable[tuple[int, object]], columns: Columns) -> list[LabelledText]:
    """Return the rows as labelled texts; raise one FormatError for all that are none."""
    texts, faults = [], []
    for number, row in rows:
        found = _labelled(row, columns)
        if isinstance(found, LabelledText):
            texts.append(found)
        else:
            faults.append(f"line {number}: {found}")
    if faults:
        more = [f"… and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise FormatError(
            f"{path} has lines that are no examples",
            faults=faults[:MOST_FAULTS] + more,
            hint=f"each needs a text in '{columns.text}' and a label in '{columns.label}' "
            "(--text-column, --label-column name others)",
        )
    return texts


def _labelled(row: object, columns: Columns) -> LabelledText | str:
    """Return the example in a row, or what is wrong with the row."""
    if not isinstance(row, dict):
        return "not an object"
    missing = [name for name in (columns.text, columns.label) if row.get(name) is None]
    if missing:
        return f"no {' and no '.join(map(repr, missing))}"
    text, label = row[columns.text], row[columns.label]
    if not isinstance(text, str) or not text.strip():
        return f"{columns.text!r} holds no text"
    if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip():
        return f"{columns.label!r} is {json.dumps(label)}, not a word or a whole number"
    return LabelledText(text.strip(), str(label).strip())
