"""The configuration that PEFT makes, saves and reads: `adapter_config.json` of bottlenecks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from peft import PeftConfig

from ..converters.peft.bottleneck import FIELDS, OURS, PLUGIN, config_of, fields_of
from ..errors import UsageError
from ..methods import BottleneckConfig as Bottlenecks
from ..methods import parse_method
from .kind import KIND


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """Bottlenecks for PEFT; the fields are those of `adapters`' BnConfig, the defaults Houlsby's adapter.

    Attributes:
        target_modules: where they stand; follows from the other fields and the model, and is filled in.
        modules_to_save: modules that are trained in full besides, such as a classifier.
        architecture: the model family; filled in.
        plugin: the module that has to be imported; for readers of the file.
        phm_layer: whether the projections are PHM layers (Compacter); else the fields behind it mean nothing.
    """

    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    architecture: str | None = None
    plugin: str = PLUGIN
    phm_layer: bool = False

    mh_adapter: bool = True
    output_adapter: bool = True
    reduction_factor: float | dict[str, float] = 16
    non_linearity: str = "swish"
    cross_adapter: bool = False
    original_ln_before: bool = False
    original_ln_after: bool = True
    ln_before: bool = False
    ln_after: bool = False
    residual_before_ln: bool | Literal["post_add"] = True
    adapter_residual_before_ln: bool = False
    is_parallel: bool = False
    scaling: float | Literal["learned", "channel"] = 1.0
    use_gating: bool = False
    leave_out: list[int] = field(default_factory=list)
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    init_weights: Literal["bert", "houlsby", "mam_adapter"] = "bert"
    init_weights_seed: int | None = None
    phm_dim: int = 4
    phm_rank: int = 1
    factorized_phm_W: bool = True  # noqa: N815
    shared_W_phm: bool = False  # noqa: N815
    shared_phm_rule: bool = True
    factorized_phm_rule: bool = False
    phm_c_init: Literal["normal", "uniform"] = "normal"
    phm_init_range: float = 1e-4
    learn_phm: bool = True
    hypercomplex_nonlinearity: Literal["phm", "glorot-normal", "glorot-uniform", "normal"] = "glorot-uniform"
    phm_bias: bool = True

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            UsageError: one of them has a value that it cannot have.
        """
        super().__post_init__()
        self.peft_type = KIND
        self.bottlenecks()

    @classmethod
    def of(cls, text: str, *, task_type: str | None = None, modules_to_save: Sequence[str] | None = None) -> Self:
        """Return the configuration that a text names, as in `double_seq_bn[reduction_factor=8]`.

        Raises:
            UsageError: the text names something else than bottlenecks.
        """
        config, *more = parse_method(text)
        if more or not isinstance(config, Bottlenecks):
            raise UsageError(
                f"{text!r} is not a bottleneck alone", hint="modules_to_save names what is trained besides"
            )
        saved = None if modules_to_save is None else list(modules_to_save)
        return cls(task_type=task_type, modules_to_save=saved, **fields_of(config))

    def bottlenecks(self) -> Bottlenecks:
        """Return what this package calls the same configuration."""
        mine: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return config_of({**FIELDS, **{name: mine[name] for name in (*OURS, "phm_layer")}})
