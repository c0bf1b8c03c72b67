"""The member of PEFT's enumeration of types that stands for bottlenecks.

Source: PEFT 0.21.2, utils/peft_types.py, whose `register_peft_method` wants a new type to be a member.
"""

from __future__ import annotations

from peft import PeftType

from ..converters.peft.bottleneck import TYPE


def _member() -> PeftType:
    """Return the member, which is added if it is not there yet."""
    if TYPE not in PeftType._value2member_map_:
        member = str.__new__(PeftType, TYPE)
        member._name_ = member._value_ = TYPE
        member.__objclass__ = PeftType
        member._sort_order_ = len(PeftType._member_names_)
        PeftType._member_names_.append(TYPE)
        PeftType._member_map_[TYPE] = member
        PeftType._value2member_map_[TYPE] = member
        type.__setattr__(PeftType, TYPE, member)
    return PeftType(TYPE)


KIND = _member()
