"""Plans: what is to happen in the forward pass for each setup, worked out once and kept until an adapter changes."""

from __future__ import annotations

from collections.abc import Mapping

from ..composition import Composition, fusions, leaves
from ..errors import UsageError
from ..methods import Binding, HeadOp
from .combined_heads import Heads
from .plan import Installation, Plan, build
from .roster import Loaded, Roster
from .setups import Headed, PerRow, Setup, bound, operations

Setting = str | Composition | PerRow | Headed
"""What can be active."""


def used(setup: Setting | None) -> tuple[str | None, ...]:
    """Return the names of the adapters and fusion layers in a setup."""
    if isinstance(setup, Headed):
        return (*used(setup.node), *([setup.head] if setup.head else []))
    if setup is None or isinstance(setup, PerRow):
        return () if setup is None else setup.names
    return (*leaves(setup), *fusions(setup))


class Plans:
    """Setup → plan, for the adapters of one roster."""

    def __init__(self, roster: Roster, installation: Installation) -> None:
        self._roster = roster
        self._ground = roster.ground
        self._installation = installation
        self._bindings: dict[str, Binding] = {}
        self._alone: dict[str, Plan] = {}
        self._together: dict[Composition | Headed, Plan] = {}

    def of(self, setup: Setting) -> Plan:
        """Return the plan of a setup.

        Raises:
            NotFoundError: no adapter of one of the names is loaded.
            UnsupportedError: an adapter cannot stand where the composition has it.
        """
        if isinstance(setup, str):
            plan = self._alone.get(setup)
            if plan is None:
                loaded = self._roster[setup]
                plan = self._alone[setup] = self.alone(loaded, self._roster.binding(loaded))
            return plan
        if isinstance(setup, PerRow) or (isinstance(setup, Headed) and not setup.name):
            return self.together(setup)  # as good as never asked for again
        if setup not in self._together:
            self._together[setup] = self.together(setup)
        return self._together[setup]

    def keep(self, setup: str | Headed, plan: Plan) -> None:
        """Keep a plan that is made already."""
        if isinstance(setup, str):
            self._alone[setup] = plan
        else:
            self._together[setup] = plan

    def forget(self, name: str) -> None:
        """Forget the plans of everything that an adapter is in."""
        self._bindings.pop(name, None)
        self._alone.pop(name, None)
        for setup in [setup for setup in self._together if name in used(setup)]:
            del self._together[setup]

    def drop(self, setup: Headed) -> None:
        """Forget the plan of one composition."""
        self._together.pop(setup, None)

    def clear(self) -> None:
        """Forget all."""
        self._bindings.clear()
        self._alone.clear()
        self._together.clear()

    def alone(self, loaded: Loaded, binding: Binding) -> Plan:
        """Return the plan of one adapter."""
        if binding.fusions:
            raise UsageError(
                f"{loaded.manifest.name!r} is a fusion layer, which does nothing alone",
                hint="activate Fuse(…) of its adapters",
            )
        trains = loaded.bank.trains
        return build(
            self._ground,
            self._installation,
            binding,
            loaded.manifest.labels,
            trains=trains,
            mutes=self._roster.mutes(loaded),
        )

    def together(self, setup: Composition | PerRow | Headed) -> Plan:
        """Return the plan of several adapters."""
        names = [name for name in dict.fromkeys(used(setup)) if name is not None]
        loaded = {name: self._roster[name] for name in names}
        compat = isinstance(setup, Headed) and setup.compat
        parts = {
            name: self._roster.binding(one, compat=True) if compat else self._bound(name, one)
            for name, one in loaded.items()
        }
        made = self._put_together(setup, parts)
        return build(
            self._ground,
            self._installation,
            made.binding,
            self._labels_of(made.binding.head, parts),
            trains=any(one.bank.trains for one in loaded.values()),
            mutes=compat or any(self._roster.mutes(one) for one in loaded.values()),
            copies=made.copies,
            tasks=made.tasks,
        )

    def labels(self, setup: Headed) -> tuple[str, ...]:
        """Return the names of the classes that a composition answers with, () where it has none or several."""
        parts = self._parts(setup)
        head = self._put_together(setup, parts).binding.head
        return () if head is None else self._labels_of(head, parts)

    def whole(self, setup: str | Composition | Headed) -> tuple[Binding, Plan | None]:
        """Return all that a setup does to the model, and the plan of its head alone, None where it has none."""
        parts = self._parts(setup)
        binding = parts[setup] if isinstance(setup, str) else self._put_together(setup, parts).binding
        if binding.head is None:
            return binding, None
        labels = self._labels_of(binding.head, parts)
        return binding, build(self._ground, self._installation, Binding(head=binding.head), labels, trains=False)

    def _parts(self, setup: Setting) -> dict[str, Binding]:
        return {name: self._roster.binding(self._roster[name]) for name in used(setup) if name is not None}

    def _bound(self, name: str, loaded: Loaded) -> Binding:
        """Return the binding of a loaded adapter, made once: every batch of `per_row` asks for many."""
        if name not in self._bindings:
            self._bindings[name] = self._roster.binding(loaded)
        return self._bindings[name]

    def _put_together(self, setup: Composition | PerRow | Headed, parts: Mapping[str, Binding]) -> Setup:
        """Return what several adapters do together."""
        alone = {name: operations(part, self._ground) for name, part in parts.items()}
        return bound(setup, alone.__getitem__, self._ground.layout.attentions, compat=self._roster.compat)

    def _labels_of(self, head: HeadOp | None, parts: Mapping[str, Binding]) -> tuple[str, ...]:
        """Return the names of a head's classes, () where several heads have different ones."""
        answering = head.distinct if isinstance(head, Heads) else [head]
        owners = [name for name, part in parts.items() if part.head is not None and part.head in answering]
        labels = {self._roster[name].manifest.labels for name in owners}
        return labels.pop() if len(labels) == 1 else ()
