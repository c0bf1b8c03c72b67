"""The options of `train`, gathered into records: how to read the data, how to train, what to say of the adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .options import collected

if TYPE_CHECKING:
    from ..adapter import Manifest
    from ..loader.data import Example
    from ..loader.training_records import TrainingConfig
    from .destination import Destination

DEFAULT_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class Texts:
    """The data of a training.

    Attributes:
        labels: names of the classes, in the order of their numbers.
        split: how the texts to evaluate on were chosen, for the manifest.
        digests: name of each file → its digest.
        repeated: number of texts to evaluate on that are also trained on.
    """

    labels: tuple[str, ...]
    train: Sequence[Example]
    evaluate: Sequence[Example]
    split: str
    digests: dict[str, str]
    repeated: int

    def counts(self) -> str:
        """Return how many texts of each label there are to train on."""
        found = Counter(example.label for example in self.train)
        return ", ".join(f"{found[number]:,} {label}" for number, label in enumerate(self.labels[:10]))


@dataclass(frozen=True, slots=True)
class Reading:
    """How the data are read and split."""

    evaluate: tuple[Path, ...]
    eval_fraction: float | None
    labels: str | None
    text_column: str
    label_column: str

    def read(self, data: Sequence[Path]) -> Texts:
        """Return the examples in the files.

        Raises:
            UsageError: there are fewer than two labels, or labels that --labels does not name.
            NotFoundError, FormatError: the files cannot be read.
        """
        from ..loader.data import Columns, label_names, read_texts, split_by_hash, to_examples

        columns = Columns(self.text_column, self.label_column)
        train, evaluate = read_texts(data, columns), read_texts(self.evaluate, columns) if self.evaluate else []
        names = _names(self.labels) or label_names([*train, *evaluate])
        if len(names) < 2:
            raise UsageError(
                f"all texts have the label {', '.join(names)!r}", hint="a classifier needs two labels or more"
            )
        fraction = DEFAULT_FRACTION if self.eval_fraction is None and not self.evaluate else self.eval_fraction or 0.0
        train, chosen = split_by_hash(train, fraction)
        if not train:
            raise UsageError("no texts are left to train on", hint="give more data, or a smaller --eval-fraction")
        known = {text.text for text in train}
        return Texts(
            labels=names,
            train=to_examples(train, names),
            evaluate=to_examples([*chosen, *evaluate], names),
            split=_split(fraction, self.evaluate),
            digests=_digests([*data, *self.evaluate]),
            repeated=sum(text.text in known for text in evaluate),
        )


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of the adapter."""

    name: str | None
    version: str
    task: str
    licence: str
    summary: str
    language: tuple[str, ...]
    dataset: str | None
    dataset_license: str
    base_id: str

    def manifest(self, target: Destination, architecture: str, texts: Texts) -> Manifest:
        """Return the manifest as far as it is known before the training."""
        from ..adapter import Base, Dataset, Manifest

        data = Dataset(
            name=self.dataset or ", ".join(texts.digests),
            license=self.dataset_license,
            split=texts.split,
            sizes={"train": len(texts.train), "evaluation": len(texts.evaluate)},
        )
        return Manifest(
            name=target.name,
            base=Base(architecture=architecture, id=self.base_id),
            version=target.version,
            summary=self.summary,
            task=self.task,
            labels=texts.labels,
            license=self.licence,
            language=self.language,
            datasets=(data,),
            training={"files": texts.digests},
        )


def make_config(
    epochs: int,
    lr: float,
    batch_size: int,
    warmup: float,
    weight_decay: float,
    max_length: int,
    seed: int,
    bf16: bool,
    keep_best: bool,
) -> TrainingConfig:
    """Return how to train.

    Raises:
        UsageError: values out of their range; lists them all.
    """
    from ..loader.training_records import TrainingConfig

    return TrainingConfig(
        epochs=epochs,
        learning_rate=lr,
        batch_size=batch_size,
        warmup=warmup,
        weight_decay=weight_decay,
        max_length=max_length,
        seed=seed,
        bf16=bf16,
        keep_best=keep_best,
    )


reading = collected(
    "reading",
    Reading,
    click.option(
        "--eval",
        "evaluate",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Data to evaluate on.",
    ),
    click.option(
        "--eval-fraction",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="X",
        help="Part of the data to evaluate on, chosen by a hash of each text.  [default: 0.1, or 0 with --eval]",
    ),
    click.option("--labels", metavar="A,B,…", help="All labels in order.  [default: those of the data, sorted]"),
    click.option(
        "--text-column", metavar="NAME", default="text", show_default=True, help="Column or key of the texts."
    ),
    click.option(
        "--label-column", metavar="NAME", default="label", show_default=True, help="Column or key of the labels."
    ),
)

recipe = collected(
    "config",
    make_config,
    click.option("--epochs", type=int, default=3, show_default=True, metavar="N", help="Passes over the data."),
    click.option("--lr", type=float, default=1e-3, show_default=True, metavar="X", help="Highest learning rate."),
    click.option("--batch-size", type=int, default=32, show_default=True, metavar="N", help="Texts per step."),
    click.option(
        "--warmup", type=float, default=0.1, show_default=True, metavar="X", help="Part of the steps it rises in."
    ),
    click.option("--weight-decay", type=float, default=0.01, show_default=True, metavar="X", help="Decay of matrices."),
    click.option("--max-length", type=int, default=128, show_default=True, metavar="N", help="Most tokens of a text."),
    click.option("--seed", type=int, default=42, show_default=True, metavar="N", help="Of start, order and dropout."),
    click.option("--bf16", is_flag=True, help="Compute in bfloat16 where the processor can."),
    click.option("--keep-best", is_flag=True, help="Keep the epoch that does best in the evaluation, not the last."),
)

card = collected(
    "card",
    Card,
    click.option("--name", metavar="NAME", help="Name of the adapter.  [default: that of the file]"),
    click.option("--version", metavar="VERSION", default="", help="Version, such as 1.0.0; an index needs one."),
    click.option("--task", metavar="TASK", default="", help="Task, such as sentiment/reviews."),
    click.option(
        "--license", "licence", metavar="SPDX", default="", help="Licence of the adapter, such as Apache-2.0."
    ),
    click.option("--summary", metavar="TEXT", default="", help="One line that says what it is."),
    click.option(
        "--language", metavar="CODE", multiple=True, help="Language of the texts, such as en; may be repeated."
    ),
    click.option("--dataset", metavar="NAME", help="Name of the data.  [default: the names of the files]"),
    click.option("--dataset-license", metavar="SPDX", default="", help="Licence of the data."),
    click.option("--base-id", metavar="ID", default="", help="Hub id of the base model, if --base is a folder."),
)


def _names(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if len(set(names)) < len(names):
        raise UsageError(f"--labels names a label twice: {text}")
    return names


def _split(fraction: float, evaluate: Sequence[Path]) -> str:
    """Return how the texts to evaluate on were chosen."""
    parts = [f"{', '.join(path.name for path in evaluate)} for evaluation"] if evaluate else []
    parts += [f"the {fraction:.0%} with the lowest SHA-256 of the text for evaluation"] if fraction else []
    return "; ".join(parts) or "all for training"


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    """Return file name → digest of all data files, those in folders too."""
    from ..registry import digest

    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    return {file.name: digest.of_file(file) for file in files}
