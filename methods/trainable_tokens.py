"""Trained tokens: the adapter brings its own rows for a few tokens of the word embeddings.

    E[t] = e_t     for the tokens t of the adapter, in the table of embeddings and in what shares its weight

Where the layer in front of the vocabulary uses the same weight, its logits of these tokens change along.

Source: PEFT 0.21.2, tuners/trainable_tokens/layer.py, which leaves out the bias of a linear map that has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Layout, Linear
from .config import Config
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .method import Apply

MOST_TOKENS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrainableTokensConfig(Config):
    """Which rows are trained.

    Attributes:
        tokens: path of an embedding, or of a linear map onto the vocabulary → numbers of its rows, in the order of
            the rows of the tensor.
        keeps_bias: whether a linear map keeps its bias.
    """

    method: ClassVar[str] = "trainable_tokens"

    tokens: Mapping[str, tuple[int, ...]]
    keeps_bias: bool = True

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [] if self.tokens else ["tokens is empty"]
        for path, rows in self.tokens.items():
            if not rows or len(rows) > MOST_TOKENS or min(rows) < 0:
                faults.append(f"tokens[{path!r}] has {len(rows)} numbers, expected 1 to {MOST_TOKENS} of 0 and more")
            if len(set(rows)) < len(rows):
                faults.append(f"tokens[{path!r}] names a token twice")
        return faults


def shapes(config: TrainableTokensConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of the rows of each map.

    Raises:
        UsageError: the model has no such map, or not as many rows.
    """
    found: Shapes = {}
    for path, rows in config.tokens.items():
        linear = layout.linear.get(path)
        if linear is None:
            raise UsageError(f"the model has no embedding called {path}")
        count, width = linear.inputs, linear.outputs
        if linear.kind != "embedding":
            count, width = width, count
        if max(rows) >= count:
            raise UsageError(
                f"the adapter has a row for token {max(rows)}, {path} has {count} rows",
                hint="resize the model's embeddings to those of its tokenizer first",
            )
        found[f"{path}.trained_rows"] = (len(rows), width)
    return found


def initial(config: TrainableTokensConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: the rows of the base model."""
    return {
        f"{path}.trained_rows": base(f"{path}.weight").detach()[list(rows)].float().clone()
        for path, rows in config.tokens.items()
    }


def facts(config: TrainableTokensConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the smallest embeddings that have these rows."""
    linears = {}
    for path, rows in config.tokens.items():
        shape = have.get(f"{path}.trained_rows", ())
        if len(shape) == 2:
            linears[path] = Linear(path=path, inputs=max(rows) + 1, outputs=shape[1], kind="embedding", bias=False)
    return Facts(linears=linears)


def bind(config: TrainableTokensConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations at the maps themselves and at those that share their weights."""
    import torch

    ops: dict[str, LinearOp] = {}
    for path, rows in config.tokens.items():
        weight = f"{path}.weight"
        for place in live.layout.tied.get(weight, (weight,)):
            module = place.rpartition(".")[0]
            linear = live.layout.linear.get(module)
            if linear is not None and (module == path or module not in config.tokens):
                numbers = torch.tensor(rows, device=tensors[f"{path}.trained_rows"].device)
                ops[module] = TrainedRows(tensors[f"{path}.trained_rows"], numbers, linear, config, live)
    return Binding(linears=ops)


class TrainedRows:
    """A map in which some rows of the weight are others."""

    __slots__ = ("bias", "keeps_bias", "linear", "numbers", "rows")

    def __init__(
        self, rows: Tensor, numbers: torch.Tensor, linear: Linear, config: TrainableTokensConfig, live: Live
    ) -> None:
        self.rows = rows
        self.numbers = numbers
        self.linear = linear
        self.keeps_bias = config.keeps_bias
        self.bias = live.base(f"{linear.path}.bias") if linear.bias else None

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the rows of tokens x (…, outputs), or the logits of all tokens."""
        import torch
        from torch.nn.functional import linear

        y = forward(x)
        numbers = self.numbers.to(x.device)
        if self.linear.kind != "embedding":
            if self.bias is not None and not self.keeps_bias:
                y = y - self.bias
            own = linear(x, self.rows, self.bias[numbers] if self.bias is not None and self.keeps_bias else None)
            return y.index_copy(-1, numbers, own.to(y.dtype))
        same = x.unsqueeze(-1) == numbers
        own = self.rows[same.int().argmax(dim=-1)] * self.linear.scale
        return torch.where(same.any(dim=-1, keepdim=True), own.to(y.dtype), y)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W with the adapter's rows in it."""
        embedding = self.linear.kind == "embedding"
        numbers, rows = self.numbers.to(weight.device), self.rows.float()
        merged = weight.index_copy(1, numbers, rows.t()) if embedding else weight.index_copy(0, numbers, rows)
        return merged, bias if self.keeps_bias else None


METHOD = Method(config=TrainableTokensConfig, presets={}, shapes=shapes, initial=initial, bind=bind, facts=facts)
