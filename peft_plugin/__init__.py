"""Bottleneck adapters for PEFT: importing this module is all it takes.

    import adapterhub.peft_plugin

    model = PeftModel.from_pretrained(model, folder)       # written by adapterhub.write(adapter, folder, "peft")
    model.load_adapter(folder)                             # the same on a model of transformers itself
    model = get_peft_model(model, BottleneckConfig.of("double_seq_bn[reduction_factor=8]"))

Houlsby's, Pfeiffer's, parallel and Compacter adapters, and every other bottleneck of this package, are then one more
type of PEFT: loaded, trained, saved, switched and switched off like its own. They are not linear, so PEFT cannot merge
them.

Needs the extra `peft`. Tested with PEFT 0.21.2.
"""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import register_peft_method

from ..converters.peft.bottleneck import PREFIX, TYPE
from .config import BottleneckConfig
from .kind import KIND
from .tuner import BottleneckModel

__all__ = ["BottleneckConfig", "BottleneckModel"]

if KIND not in PEFT_TYPE_TO_CONFIG_MAPPING:
    register_peft_method(name=TYPE.lower(), config_cls=BottleneckConfig, model_cls=BottleneckModel, prefix=PREFIX)
