"""What compositions of the four bundled adapters reach on held-out sentences of each domain.

    python examples/compose_bundled.py [--out FOLDER] [--texts N] [--epochs N] [--table]

Every sentence of the four test parts is judged by each adapter alone; by compositions with the head of the domain's own
adapter; by the composition moods-bert of the index, which does not know the domain; by a mixed batch in which each row
has its own adapter; and by AdapterFusion, which is trained for each domain on N sentences of its training part, as
`adapterhub train --fuse` does. Every result is written to results.json as it
comes, and one that stands there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from sentiment import TASKS, THREE, Split, Task, dataset, fetch, split
from torch.nn.attention import SDPBackend, sdpa_kernel
from train_bundled import BASE
from transformers.utils import logging

from adapterhub import Average, Fuse, Stack, hub
from adapterhub.adapter import Base, Manifest
from adapterhub.composition import Composition
from adapterhub.loader import AdapterSet
from adapterhub.loader.data import Example, hash_fraction
from adapterhub.loader.training_records import TrainingConfig

NAMES = tuple(task.name for task in TASKS)
SEED = 1
BATCH = 64

Setup = Callable[[Task], AbstractContextManager[None]]
"""Task → what is active while its sentences are judged."""


def main() -> None:
    """Measure what is asked for and is not done yet, and print the table."""
    options = _options()
    if not options.table:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        archive = fetch(options.data)
        measure({task: split(task, archive) for task in TASKS}, options)
    print(table(_results(options.out)))


def measure(parts: Mapping[Task, Split], options: argparse.Namespace) -> None:
    """Measure every composition on the test part of every domain."""
    for task, examples in parts.items():
        if not fused_file(task, options.out).exists():
            _remember(options.out, f"training/{task.name}", train_fusion(task, examples, options))
    base = hub.load_base(BASE)
    adapters = hub.attach(base.model, base_id=BASE)
    for name in NAMES:
        adapters.load(name)
    adapters.load("moods-bert")
    for task in TASKS:
        adapters.load(fused_file(task, options.out))
    for what, active in setups(adapters).items():
        for task, examples in parts.items():
            if f"{what}/{task.name}" not in _results(options.out):
                start = time.perf_counter()
                with active(task):
                    accuracy = _accuracy(task, judged(base, examples.test, _labels(what, task)))
                found = {"accuracy": accuracy, "seconds": round(time.perf_counter() - start, 1)}
                _remember(options.out, f"{what}/{task.name}", found)
    if "per row/all" not in _results(options.out):
        _remember(options.out, "per row/all", mixed(base, adapters, parts))


def setups(adapters: AdapterSet) -> dict[str, Setup]:
    """Return what is compared: its name → what is active for a task."""

    def others(task: Task) -> list[str]:
        return [name for name in NAMES if name != task.name]

    def alone(name: str) -> Setup:
        return lambda task: adapters.using(name)

    def composed(make: Callable[[Task], Composition]) -> Setup:
        return lambda task: adapters.using(make(task), head=task.name)

    return {
        **{f"alone {name}": alone(name) for name in NAMES},
        "stack": composed(lambda task: Stack(*others(task), task.name)),
        "average": composed(lambda task: Average(*NAMES)),
        "average, own half": composed(lambda task: Average(task.name, *others(task), weights=[3, 1, 1, 1])),
        "moods-bert": alone("moods-bert"),
        "fused": lambda task: adapters.using(Fuse(*NAMES, name=fused_name(task))),
    }


def train_fusion(task: Task, examples: Split, options: argparse.Namespace) -> dict[str, float]:
    """Train a fusion layer of all four adapters and a head for one domain, and return what it took."""
    chosen = sorted(examples.train, key=lambda example: hash_fraction(example.text))[: options.texts]
    manifest = Manifest(
        name=fused_name(task),
        base=Base(architecture="bert", id=BASE),
        labels=task.labels,
        datasets=(dataset(task, examples),),
    )
    # On short texts the backward pass of the fused attention takes many times as long as that of the plain one.
    with sdpa_kernel(SDPBackend.MATH):
        trained = hub.train(
            hub.load_base(BASE),
            chosen,
            (),
            out=fused_file(task, options.out),
            manifest=manifest,
            config=TrainingConfig(epochs=options.epochs, learning_rate=options.rate, seed=SEED, batch_size=16),
            method=hub.FUSION,
            fuse=[hub.read(hub.pull(name)) for name in NAMES],
        )
    result = trained.result
    return {
        "train_loss": result.epochs[-1].train_loss,
        "parameters": result.parameters,
        "texts": len(chosen),
        "seconds": round(result.seconds),
    }


def judged(base: hub.BaseModel, examples: Sequence[Example], labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the right class and the one that the active setup gives, of every example."""
    found = hub.classify([example.text for example in examples], base=base, labels=labels, batch_size=BATCH)
    for example, verdict in zip(examples, found, strict=True):
        yield example.label, verdict.label


def _accuracy(task: Task, pairs: Iterator[tuple[int, str]]) -> float:
    right = [task.labels[wanted] == found for wanted, found in pairs]
    return sum(right) / len(right)


def _labels(what: str, task: Task) -> Sequence[str]:
    """Return the classes of the head that answers."""
    if what == "moods-bert":
        return THREE
    alone = what.removeprefix("alone ")
    return next((other.labels for other in TASKS if other.name == alone), task.labels)


@torch.no_grad()
def mixed(base: hub.BaseModel, adapters: AdapterSet, parts: Mapping[Task, Split]) -> dict[str, float]:
    """Return the accuracy for each domain where every batch mixes the domains, each row with its own adapter."""
    rows = sorted(
        ((task, example) for task, examples in parts.items() for example in examples.test),
        key=lambda row: (len(row[1].text), row[1].text),
    )
    right = {task.name: 0 for task in parts}
    start = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        texts = [example.text for _, example in batch]
        inputs = base.tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with adapters.per_row([task.name for task, _ in batch]):
            answers = base.model(**inputs)["outputs"]
        heads = list(dict.fromkeys(task.name for task, _ in batch))
        for name, answer in zip(heads, answers, strict=True):
            wanted = [example.label for task, example in batch if task.name == name]
            right[name] += sum(int(a) == b for a, b in zip(answer["logits"].argmax(-1), wanted, strict=True))
    seconds = round(time.perf_counter() - start, 1)
    return {
        **{task.name: right[task.name] / len(examples.test) for task, examples in parts.items()},
        "seconds": seconds,
    }


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Return the Markdown table of accuracies in per cent, a row for each setup and a column for each domain."""
    lines = ["| | " + " | ".join(NAMES) + " | mean |", "|---|" + "---|" * (len(NAMES) + 1)]
    whats = list(
        dict.fromkeys(key.rpartition("/")[0] for key in results if not key.startswith(("training", "per row")))
    )
    rows = {what: [results[f"{what}/{name}"]["accuracy"] for name in NAMES] for what in whats}
    if "per row/all" in results:
        rows["per row"] = [results["per row/all"][name] for name in NAMES]
    for what, cells in rows.items():
        values = [*cells, sum(cells) / len(cells)]
        lines.append(f"| {what} | " + " | ".join(f"{100 * value:.1f}" for value in values) + " |")
    return "\n".join(lines)


def fused_name(task: Task) -> str:
    """Return the name of a domain's fusion layer."""
    return task.name.removesuffix("-bert") + "-fused"


def fused_file(task: Task, out: Path) -> Path:
    """Return where a domain's fusion layer lies."""
    return out / f"{fused_name(task)}.safetensors"


def _results(out: Path) -> dict[str, dict[str, float]]:
    path = out / "results.json"
    found: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _remember(out: Path, key: str, value: Mapping[str, float]) -> None:
    print(key, dict(value), flush=True)
    results = {**_results(out), key: dict(value)}
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("build/data"), help="folder for the source of the data")
    parser.add_argument("--out", type=Path, default=Path("build/compositions"), help="folder for results and files")
    parser.add_argument("--texts", type=int, default=800, help="sentences that each fusion layer is trained on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of the fusion layers")
    parser.add_argument("--table", action="store_true", help="print the table of what is done, and measure nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.data.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
