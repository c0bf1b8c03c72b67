"""adapterhub train: an adapter from labelled texts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import destination as where
from . import options
from .command import Documented
from .entries import size
from .output import Output, style, width
from .progress import ProgressLine, duration
from .table import facts
from .training_options import Card, Reading, card, reading, recipe

if TYPE_CHECKING:
    from ..adapter import Adapter
    from ..hub import Trained
    from ..loader.training_records import Progress, TrainingConfig


@click.command(
    cls=Documented,
    short_help="Train an adapter on labelled texts.",
    epilog="""
    adapterhub train reviews.csv --base sentence-transformers/all-MiniLM-L6-v2 --out reviews@1.0.0
    adapterhub train positive.txt negative.txt --base ./model --out mine.safetensors --epochs 5
    adapterhub train reviews.csv --base ./model --out fused.safetensors --fuse sst2-bert,tweets-bert
    adapterhub train a.jsonl --eval b.jsonl --base ./model --out c.safetensors --method "seq_bn[reduction_factor=8]"
    """,
)
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", required=True, metavar="MODEL", help="Base model: a folder, or an id of the Hugging Face Hub.")
@options.architecture
@where.out
@click.option("--force", is_flag=True, help="Replace --out if it is there.")
@reading
@click.option(
    "--method",
    metavar="METHOD",
    help="What to train, such as seq_bn[reduction_factor=8].  [default: double_seq_bn+layer_norm]",
)
@click.option(
    "--fuse",
    metavar="A,B,…",
    help="Train a fusion layer (AdapterFusion) over these adapters, which stay as they are.",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "first", "pooler"]),
    default="mean",
    show_default=True,
    help="What the head reads: the mean of the tokens, the first one, or the base model's pooler.",
)
@recipe
@card
@options.registry
@options.offline
@options.with_output
def command(
    output: Output,
    data: tuple[Path, ...],
    base: str,
    architecture: Path | None,
    out: str,
    force: bool,
    method: str | None,
    fuse: str | None,
    pooling: str,
    registry: str | None,
    offline: bool | None,
    reading: Reading,
    config: TrainingConfig,
    card: Card,
) -> None:
    """Train an adapter and a classification head on labelled texts, and write both into one file.

    DATA are CSV, TSV or JSON Lines files with the columns or keys `text` and `label`; or text files with one text per
    line, named after their label (positive.txt, negative.txt); or folders of such files. The base model stays as it
    is. By default Houlsby's recipe is trained: bottlenecks in both places of every layer, the layer norms, and the
    head. The same data and seed give the same file on the same machine.

    The file carries labels, metrics on the evaluation data, the recipe, a fingerprint of the base model, and a probe
    that `verify --run` replays.

    With --fuse, AdapterFusion is trained: a layer that mixes adapters which are there already, and a new head. Its
    file answers nothing alone: `adapterhub run "fuse(A, B, name=./FILE)"`, or give that to `compose`.
    """
    from .. import hub
    from ..architectures import by_model_type

    target = where.destination(out, name=card.name, version=card.version)
    texts = reading.read(data)
    output.note(f"{len(texts.train):,} texts to train on, {len(texts.evaluate):,} to evaluate on: {texts.counts()}")
    if texts.repeated:
        output.warning(f"{texts.repeated} texts of --eval are among those to train on; the metrics are too good")
    with ProgressLine(output, "loading", None):
        row = None if architecture is None else hub.read_architecture(architecture)
        parts = [_adapter(word, base, registry, offline) for word in fuse.split(",")] if fuse else []
        model = hub.load_base(base, offline=offline)
    with TrainingLine(output) as line:
        trained = hub.train(
            model,
            texts.train,
            texts.evaluate,
            out=target.path,
            manifest=card.manifest(target, (row or by_model_type(model.model.config.model_type)).name, texts),
            config=config,
            method=method or (hub.FUSION if fuse else hub.HOULSBY),
            pooling=pooling,
            fuse=parts,
            force=force,
            architecture=row,
            on_progress=line.report,
        )
    if not trained.manifest.base.id:
        output.warning("the base model is a folder, so the file does not say where others find it")
    print_trained(output, trained)
    if fuse:
        output.note(f'to use it: adapterhub run "fuse({fuse}, name={_written(target.path)})"')


def _written(out: Path) -> str:
    """Return a path as a reference."""
    return str(out) if out.is_absolute() else f"./{out}"


def _adapter(word: str, base: str, registry: str | None, offline: bool | None) -> Adapter:
    """Return an adapter that is to be fused."""
    from .. import hub
    from .. import registry as registries
    from ..registry import Reference

    reference = Reference.parse(word.strip())
    wanted = None if hub.is_folder(base) else base
    pulled = registries.pull(reference, registry=None if reference.registry else registry, base=wanted, offline=offline)
    return hub.read(pulled.path)


class TrainingLine(ProgressLine):
    """The progress of a training: a line that moves within an epoch, and one that stays after each."""

    def __init__(self, output: Output) -> None:
        super().__init__(output, "training", None)
        self.output = output

    def report(self, progress: Progress) -> None:
        """Show where the training stands."""
        self.what, self.total = f"epoch {progress.epoch}/{progress.epochs}", progress.steps
        if progress.ends_epoch:
            self.clear()
            self.output.note(f"epoch {progress.epoch}/{progress.epochs}  {_outcome(progress)}")
        else:
            self.show(progress.step, f"loss {progress.loss:.3f}")


def print_trained(output: Output, trained: Trained) -> None:
    """Print what came of the training."""
    from ..adapter import to_json
    from ..registry import digest

    manifest, result, found = trained.manifest, trained.result, digest.of_file(trained.path)
    data = {
        "name": manifest.name,
        "path": str(trained.path),
        "digest": found,
        "size": trained.path.stat().st_size,
        "parameters": result.parameters,
        "share": trained.share,
        "metrics": result.metrics,
        "seconds": round(result.seconds, 1),
        "manifest": to_json(manifest),
    }
    output.result(data, ids=[str(trained.path)], text=_facts(trained, found))


def _facts(trained: Trained, digest: str) -> Iterator[str]:
    manifest, result = trained.manifest, trained.result
    yield style(manifest.name, sys.stdout, bold=True)
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    pairs = [
        ("file", f"{trained.path} ({size(trained.path.stat().st_size)})"),
        ("labels", ", ".join(manifest.labels)),
        ("trained", f"{result.parameters:,} parameters, {trained.share:.2%} of the base model's"),
        ("metrics", metrics or "none: there was nothing to evaluate on"),
        ("kept", f"epoch {result.kept} of {len(result.epochs)}" if result.kept != len(result.epochs) else ""),
        ("time", f"{duration(result.seconds)} in {result.precision}"),
        ("digest", digest),
    ]
    yield from facts(pairs, width(sys.stdout))


def _outcome(progress: Progress) -> str:
    found = progress.evaluation
    if found is None:
        return f"loss {progress.loss:.4f}"
    return f"loss {progress.loss:.4f}  evaluation: loss {found.loss:.4f}, accuracy {found.accuracy:.4f}"
