"""The probe: a few inputs and the answers that the adapted model gave, stored in the artifact and replayed later."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapter import MethodConfig, Probe
from ..errors import IntegrityError
from ..methods import (
    DependencyParsingHeadConfig,
    HeadConfig,
    LanguageModelHeadConfig,
    MultipleChoiceHeadConfig,
    QuestionAnsweringHeadConfig,
    Settings,
    TaggingHeadConfig,
)
from .layout import Ground, setting

OF_THE_BASE = ("last_hidden_state", "logits_per_image")
"""Outputs of base models; all others are those of heads."""

OF_HEADS = ("logits", "start_logits", "arc_preds")
"""Outputs of heads, of which the first that there is is compared."""

WIDTH = 8
"""So many numbers of a hidden state are kept."""

_LOSS = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far an answer may be off, relative to its size, in a model that is loaded in a smaller dtype."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replayed probe.

    Attributes:
        difference: largest absolute difference to the stored answers.
        tolerance: the difference that was allowed.
        effect: largest absolute difference that the adapter makes to the base model's answers, or None for a head.
    """

    difference: float
    tolerance: float
    effect: float | None


def default_inputs(ground: Ground, settings: Settings, head: MethodConfig | None = None) -> dict[str, Tensor]:
    """Return what the model can be asked: token ids (2, 8), an image or speech, as its forward pass takes them.

    Token ids are spread over the vocabulary, the second row has two tokens of padding. Images and speech are small
    tiles, which answer() repeats to the size that the model wants. settings, head: the model's, and the adapter's head
    if it has one, which may want more.
    """
    taken = {*inspect.signature(ground.model.forward).parameters, *inspect.signature(ground.bare.forward).parameters}
    found: dict[str, Tensor] = {}
    if "input_ids" in taken:
        mask = torch.ones(2, 8, dtype=torch.long)
        mask[1, -2:] = 0
        found = {"input_ids": _tokens(ground, 8), "attention_mask": mask}
    if "decoder_input_ids" in taken:
        found["decoder_input_ids"] = _tokens(ground, 4)
    if "lang_ids" in taken and setting(ground.bare.config, "default_language") is None:
        found["lang_ids"] = torch.zeros(2, dtype=torch.long)
    if not found or setting(ground.bare.config, "image_token_id") is None:  # else images have places among the tokens
        found |= {name: _tile(shape[0]) for name, shape in _sizes(ground).items() if name in taken}
    return found if "input_ids" not in found else _with_head(found, settings, head)


def _with_head(inputs: dict[str, Tensor], settings: Settings, head: MethodConfig | None) -> dict[str, Tensor]:
    """Return inputs as a head wants them."""
    if isinstance(head, MultipleChoiceHeadConfig):
        # Each text once more for every choice, with its first tokens moved round.
        ids = torch.stack([inputs["input_ids"].roll(k, -1) for k in range(head.num_choices or 2)], dim=1)
        return inputs | {"input_ids": ids, "attention_mask": inputs["attention_mask"].unsqueeze(1).expand_as(ids)}
    if isinstance(head, DependencyParsingHeadConfig):
        return inputs | {"word_starts": torch.tensor([[2, 3, 5, 7], [2, 4, 5, 6]])}
    if head is not None and head.to_json().get("pooling") == "eos" and settings.end:
        # The decoder reads the input once more, up to its end token.
        inputs["input_ids"][0, -1] = inputs["input_ids"][1, 5] = settings.end[0]
        return {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
    return inputs


def _tokens(ground: Ground, length: int) -> Tensor:
    vocabulary = max(1, ground.layout.vocabulary)
    return torch.tensor([[(7919 * k + 13) % vocabulary for k in range(row, row + length)] for row in (1, 101)])


def _tile(channels: int) -> Tensor:
    """Return values between -1 and 1 (2, channels, 5, 11): sizes that no patch is a multiple of."""
    count = 2 * channels * 55
    values = [(7919 * k + 13) % 201 / 100 - 1 for k in range(count)]
    return torch.tensor([round(value, 2) for value in values]).view(2, channels, 5, 11)


def _sizes(ground: Ground) -> dict[str, tuple[int, int, int]]:
    """Return (channels, height, width) of the images, and of the speech with one channel, that the model takes."""
    config = ground.bare.config
    found = {}
    image = setting(config, "image_size") or setting(config, "vision_config.image_size")
    if image is not None:
        height, width = image if isinstance(image, (list, tuple)) else (image, image)
        channels = setting(config, "num_channels") or setting(config, "vision_config.num_channels", 3)
        found["pixel_values"] = (channels, height, width)
    bins, frames = setting(config, "num_mel_bins"), setting(config, "max_source_positions")
    if bins is not None and frames is not None:
        found["input_features"] = (1, bins, 2 * frames)
    return found


def _whole(ground: Ground, name: str, value: Tensor) -> Tensor:
    """Return an input in the model's dtype and size: a tile that is smaller is repeated."""
    if value.is_floating_point():
        value = value.to(ground.bare.dtype)
    size = _sizes(ground).get(name)
    if size is not None and value.ndim == 4 and value.shape[-2:] == (5, 11):
        times = [-(-want // have) for want, have in zip(size[1:], (5, 11), strict=True)]
        value = value.repeat(1, 1, *times)[..., : size[1], : size[2]]
        value = value.squeeze(1) if name == "input_features" else value
    return value.to(ground.bare.device)


def output_of(ground: Ground, inputs: Mapping[str, Tensor]) -> str:
    """Return the name of the output that tells most of what an adapter does.

    A model that looks backwards only is asked for its last row, `last_hidden_state[-1]`: the first has seen one token.
    """
    place = "[-1]" if _looks_back(ground) else ""
    with _evaluating(ground), torch.no_grad():
        result = ground.bare(**{name: _whole(ground, name, x) for name, x in inputs.items()}, return_dict=True)
    return next(name for name in (*OF_THE_BASE, "logits") if name in result) + place


def output_of_answer(ground: Ground, inputs: Mapping[str, Tensor]) -> str:
    """Return the name of the output of what is active now that is compared: that of a head if there is one.

    Of several heads that answer in different shapes, the hidden states that they read are compared.
    """
    with _evaluating(ground), torch.no_grad():
        result = ground.model(**{name: _whole(ground, name, x) for name, x in inputs.items()}, return_dict=True)
    name = next((name for name in OF_HEADS if result.get(name) is not None), None)
    if name is None or (ground.model is ground.bare and name in OF_THE_BASE):
        return output_of(ground, inputs)
    place = "[-1]" if _looks_back(ground) and result[name].ndim > 2 else ""
    return f"{name}{place}"


def widened(inputs: Mapping[str, Tensor], rows: int, tokens: int) -> dict[str, Tensor]:
    """Return inputs (2, 8) repeated and cut to so many rows and tokens; 0 leaves a number as it is."""
    found = {}
    for name, value in inputs.items():
        if tokens and value.ndim == 2:
            value = value.repeat(1, -(-tokens // value.shape[1]))[:, :tokens]
        if rows:
            value = value.repeat(-(-rows // len(value)), *[1] * (value.ndim - 1))[:rows]
        found[name] = value
    return found


def output_of_head(ground: Ground, head: HeadConfig) -> str:
    """Return the name of the output of a head that is compared, with `[-1]` as in output_of()."""
    if isinstance(head, QuestionAnsweringHeadConfig):
        return "start_logits"
    if isinstance(head, DependencyParsingHeadConfig):
        return "arc_preds"
    by_token = isinstance(head, (TaggingHeadConfig, LanguageModelHeadConfig))
    return "logits[-1]" if by_token and _looks_back(ground) else "logits"


def _looks_back(ground: Ground) -> bool:
    """Return whether a token sees only those in front of it."""
    kinds = {head.kind for head in ground.architecture.heads}
    return bool(kinds & {"causal_lm", "seq2seq_lm"}) and "masked_lm" not in kinds


def record(
    ground: Ground, inputs: Mapping[str, Tensor], output: str, *, base_values: list[list[float]] | None = None
) -> Probe:
    """Return the probe of what is active on the model now; output as in answer()."""
    return Probe(
        inputs={name: tensor.tolist() for name, tensor in inputs.items()},
        output=output,
        values=rounded(answer(ground, inputs, output)),
        base_values=base_values,
    )


def rounded(values: Tensor) -> list[list[float]]:
    """Return float32 values (batch, n) with the nine digits that tell them apart."""
    return [[float(f"{value:.9g}") for value in row] for row in values.tolist()]


def answer(ground: Ground, inputs: Mapping[str, Tensor], output: str) -> Tensor:
    """Return what the model answers now (batch, n): an output, or of one with a row for each token eight numbers.

    output: its name; with `[-1]` behind it the last row is taken and not the first.
    """
    values = whole_answer(ground, inputs, output.removesuffix("[-1]"))
    if values.ndim > 2:
        values = values[:, -1 if output.endswith("[-1]") else 0, :WIDTH]
    return values


def whole_answer(ground: Ground, inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """Return an output of the model as it is now, float32 on the CPU."""
    asked = ground.bare if name in OF_THE_BASE else ground.model
    with _evaluating(ground), torch.no_grad():
        result = asked(**{key: _whole(ground, key, value) for key, value in inputs.items()}, return_dict=True)
    values: Tensor = result[name]
    return values.float().cpu()


@contextmanager
def _evaluating(ground: Ground) -> Iterator[None]:
    """Keep the model in evaluation mode for a while."""
    modes = {module: module.training for module in ground.model.modules()}
    ground.model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def replay(ground: Ground, probe: Probe, what: str) -> Replay:
    """Return what the model that is active now answers to a probe, held against the stored answer.

    Raises:
        IntegrityError: the answers differ by more than the tolerance.
    """
    inputs = {name: torch.tensor(value) for name, value in probe.inputs.items()}
    stored = torch.tensor(probe.values)
    found = answer(ground, inputs, probe.output)
    difference = float((found - stored).abs().max()) if found.shape == stored.shape else float("inf")
    tolerance = probe.atol + _LOSS.get(ground.bare.dtype, 0.1) * float(stored.abs().max())
    # Written so that a NaN fails.
    if not difference <= tolerance:
        raise IntegrityError(
            f"{what} does not answer its probe as it did when it was saved: off by {difference:.3g}, "
            f"allowed {tolerance:.3g}",
            hint="the adapter or the base model was changed; pull both again",
        )
    effect = None
    if probe.base_values is not None:
        effect = float((stored - torch.tensor(probe.base_values)).abs().max())
    return Replay(difference, tolerance, effect)
