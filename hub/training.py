"""Train: a new adapter on labelled texts, saved with everything that is known about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapter import JSON, Adapter, Manifest, MethodConfig
from ..composition import Fuse
from ..errors import FormatError, NotFoundError, StateError, UsageError
from .base_models import BaseModel
from .running import logits_of, longest

if TYPE_CHECKING:
    from ..architectures import Architecture
    from ..loader import AdapterSet
    from ..loader.data import Example
    from ..loader.training_records import Epoch, Progress, TrainingConfig, TrainingResult

FUSION = "fusion"
"""AdapterFusion of Pfeiffer et al. 2021, over adapters that stay as they are; and a head."""

HOULSBY = "double_seq_bn+layer_norm"
"""The recipe of Houlsby et al. 2019: bottlenecks in both places of each layer, and the layer norms; and a head."""


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter that was trained and saved."""

    path: Path
    manifest: Manifest
    result: TrainingResult
    share: float


def train(
    base: BaseModel,
    examples: Sequence[Example],
    evaluate: Sequence[Example],
    *,
    out: Path,
    manifest: Manifest,
    config: TrainingConfig,
    method: str = HOULSBY,
    pooling: str = "mean",
    force: bool = False,
    architecture: Architecture | None = None,
    fuse: Sequence[Adapter] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a new adapter with a classification head, save it as a native file, and return what came of it.

    The manifest gives name, labels, licence, data and the like; base, metrics, training recipe and probe are filled
    in. The same seed on the same machine gives the same file, byte for byte. architecture describes a base model of a
    family that is not known.

    fuse: adapters that stay as they are; what is trained is a fusion layer over them (method: `fusion`, or a head with
        it). It answers nothing without them, so its file has no probe.

    Raises:
        StateError: the file exists and force is not set, or the training diverged.
        UsageError: the method string makes no sense, or the manifest could not be written.
    """
    import torch

    from ..converters import read_manifest
    from ..loader import attach
    from ..loader.training import fit

    configs = _with_head(method, len(manifest.labels), pooling)
    _refuse_early(Adapter(configs, {}, manifest), out, force)
    config = dataclasses.replace(config, max_length=min(config.max_length, longest(base)))
    size = sum(parameter.numel() for parameter in base.model.parameters())
    adapters = attach(base.model, architecture=architecture, base_id=manifest.base.id or None)
    try:
        parts = [adapters.load(adapter) for adapter in fuse]
        configs = tuple(_standing(one, adapters, parts) for one in configs)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            adapters.add(manifest.name, configs, labels=manifest.labels)
        result = fit(
            base.model,
            adapters.train(Fuse(*parts, name=manifest.name) if fuse else manifest.name),
            examples,
            evaluate,
            tokenizer=base.tokenizer,
            config=config,
            forward=lambda inputs: logits_of(base.model, inputs),
            on_progress=on_progress,
            penalty=adapters.regularisation if fuse else None,
        )
        recipe = {**manifest.training, **_recipe(configs, config, result)}
        known = dataclasses.replace(manifest, metrics=result.metrics, training=recipe)
        path = adapters.save(manifest.name, out, manifest=known, force=force)
    finally:
        adapters.detach()
    return Trained(path, read_manifest(path)[1], result, result.parameters / size)


def _standing(config: MethodConfig, adapters: AdapterSet, parts: Sequence[str]) -> MethodConfig:
    """Return a fusion layer's configuration with its adapters and where they stand, any other as it is.

    Raises:
        UsageError: a fusion layer has no adapters, or adapters have no fusion layer.
    """
    from ..loader.fusing import fusion_for
    from ..methods import FusionConfig, is_head

    if isinstance(config, FusionConfig):
        return fusion_for(adapters, parts, config)
    if parts and not is_head(config):
        raise UsageError(f"{config.method} is no fusion layer", hint="with --fuse, --method is fusion or fusion_static")
    return config


def _with_head(method: str, labels: int, pooling: str) -> tuple[MethodConfig, ...]:
    """Return the configurations of a method string, with a linear head if the string names none.

    Raises:
        UsageError: the string names a head for something else than exclusive classes.
    """
    from ..methods import ClassificationHeadConfig, configs_from_json, describe, is_head, parse_method

    configs = parse_method(method)
    named = next((config for config in configs if is_head(config)), None)
    if named is None:
        head = {"method": ClassificationHeadConfig.method, "num_labels": labels, "pooling": pooling}
        return (*configs, *configs_from_json([head]))
    if type(named) is not ClassificationHeadConfig or named.multilabel:
        raise UsageError(
            f"texts with one label each cannot train {describe([named])}",
            hint="leave the head away, or name a classification_head",
        )
    return configs


def _refuse_early(adapter: Adapter, out: Path, force: bool) -> None:
    """Raise now what would go wrong after a long training: a name or licence that cannot be, a file that is there."""
    from ..converters import native

    try:
        native.encode(adapter)
    except FormatError as error:
        raise UsageError(f"what is said of the adapter cannot be written: {'; '.join(error.faults)}") from error
    if out.exists() and not force:
        raise StateError(f"{out} exists already", hint="choose another --out, or replace it with --force")
    if not out.parent.is_dir():
        raise NotFoundError(f"there is no folder {out.parent}", hint="make it first")


def _recipe(configs: tuple[MethodConfig, ...], config: TrainingConfig, result: TrainingResult) -> dict[str, JSON]:
    """Return how the adapter was trained, for its manifest; nothing in it depends on the clock."""
    from ..methods import describe

    return {
        **dataclasses.asdict(config),
        "method": describe(configs),
        "optimizer": "AdamW, linear warm-up and decay",
        "parameters": result.parameters,
        "precision": result.precision,
        "steps": result.steps,
        "kept_epoch": result.kept,
        "history": [_history(epoch) for epoch in result.epochs],
    }


def _history(epoch: Epoch) -> dict[str, JSON]:
    """Return what one epoch gave."""
    known = {"epoch": epoch.number, "train_loss": epoch.train_loss}
    if epoch.evaluation is None:
        return known
    return {**known, "loss": epoch.evaluation.loss, "accuracy": epoch.evaluation.accuracy}
