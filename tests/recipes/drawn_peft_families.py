"""Adapters of PEFT of every type on every family, with random options: PEFT makes them, adapterhub has to load them.

    python drawn_peft_families.py FOLDER SEED    needs peft 0.21.2, transformers 5.23 and adapterhub; five minutes

It prints what gives another output, what is refused and what PEFT cannot make. A case follows from its type, its family
and its seed.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from families import FAMILIES, batch
from make_drawn_peft_cases import KINDS, PROMPTS
from make_further_cases import with_head

Arguments = dict[str, Any]

UNREAD = ("LilyConfig", "TinyLoraConfig", "PsoftConfig", "UniLoraConfig", "FrodConfig", "PveraConfig", "OSFConfig")
"""Types that adapterhub does not read; docs/peft-types.md says why."""

TYPES = tuple(kind for kind in KINDS if kind not in (*PROMPTS, *UNREAD, "TrainableTokensConfig"))
ROLES = (
    ("query", "value"),
    ("query", "key", "value"),
    ("value", "output"),
    ("intermediate", "output"),
    ("attention_output", "query", "output"),
)
ALONE = ("LNTuningConfig", "BeftConfig")
"""Types whose targets are no such maps."""


def targets(layout: Any, roles: tuple[str, ...]) -> list[str]:
    """Return the names, behind the index of their layer, of the linear maps that have one of the roles."""
    paths = [one.path for one in layout.linears if set(one.roles) & set(roles) and one.kind in ("linear", "conv1d")]
    return sorted({_behind_index(path) for path in paths})


def _behind_index(path: str) -> str:
    words = path.split(".")
    return ".".join(words[max((i for i, word in enumerate(words) if word.isdigit()), default=-1) + 1 :])


def arguments(kind: str, family: str, layout: Any, seed: int) -> Arguments:
    """Return the arguments of a configuration of PEFT."""
    import peft

    draw = random.Random(f"{kind} {family} {seed}")
    names = targets(layout, draw.choice(ROLES))
    merged = any(one.kind == "conv1d" for one in layout.linears)
    if kind == "LoraConfig":
        found = _lora(draw, names)
    else:
        found = KINDS[kind](draw, "gpt2" if merged else family) | ({} if kind in ALONE else {"target_modules": names})
    if kind == "IA3Config":
        found["feedforward_modules"] = [name for name in names if draw.random() < 0.5]
    if kind == "LNTuningConfig":
        norms = {norm.path.rpartition(".")[2] for norm in layout.norms if norm.layer is not None}
        found["target_modules"] = sorted(norms)
    known = getattr(peft, kind).__dataclass_fields__
    if merged and "fan_in_fan_out" in known:
        found["fan_in_fan_out"] = True
    return {name: value for name, value in found.items() if name in known}


def _lora(draw: random.Random, names: list[str]) -> Arguments:
    first = names[:1]
    return {
        "target_modules": names,
        "r": draw.choice((1, 2, 4, 8)),
        "lora_alpha": draw.choice((1, 3, 8)),
        "use_rslora": draw.random() < 0.3,
        "use_dora": draw.random() < 0.3,
        "bias": draw.choice(("none", "none", "all", "lora_only")),
        "rank_pattern": draw.choice(({}, dict.fromkeys(first, 3))),
        "alpha_pattern": draw.choice(({}, dict.fromkeys(first, 7))),
    }


def given(family: str) -> Arguments:
    """Return a batch; two models in one get no padding, of which PEFT's base has other views than transformers 4."""
    import torch

    found = batch(with_head(family))
    if FAMILIES[family].parts:
        found["attention_mask"] = torch.ones_like(found["attention_mask"])
    return found


def answer(model: Any, inputs: Arguments) -> Any:
    """Return the output that is compared."""
    import torch

    with torch.no_grad():
        found = model(**inputs)
    return next(
        found[name] for name in ("logits", "last_hidden_state", "logits_per_image") if found.get(name) is not None
    )


def made(kind: str, family: str, layout: Any, seed: int, folder: Path) -> Any:
    """Save an adapter with random weights, and return the output of the model that has it."""
    import peft
    import torch

    torch.manual_seed(0)
    configuration = getattr(peft, kind)(**arguments(kind, family, layout, seed))
    model = peft.get_peft_model(with_head(family), configuration).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    model.save_pretrained(folder)
    return answer(model, given(family))


def main(root: Path, seed: int) -> None:
    """Make all and hold them against adapterhub."""
    from adapterhub.errors import AdapterHubError
    from adapterhub.loader import attach

    for family in FAMILIES:
        for kind in TYPES:
            folder, adapters = root / f"{family}-{kind}", attach(with_head(family))
            try:
                expected = made(kind, family, adapters._ground.layout, seed, folder)
            except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
                print(f"PEFT fails: {kind} {family}: {type(error).__name__}: {str(error)[:100]}")
                continue
            try:
                adapters.load(folder, name="x", set_active=True)
            except AdapterHubError as error:
                print(f"refused: {kind} {family}: {str(error)[:200]}")
                continue
            difference = float((answer(adapters.model, given(family)) - expected).abs().max())
            if not difference < 1e-4 * max(1.0, float(expected.abs().max())):
                print(f"other output: {kind} {family}: {difference}")


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]), int(sys.argv[2]))
