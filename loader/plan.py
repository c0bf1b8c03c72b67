"""Plan: what has to stand in which module's `forward` so that an adapter is active, and how it gets there.

A plan is made once and kept; to activate it puts one callable into the `__dict__` of each module concerned, nothing
else. Modules that no active adapter touches are not touched: they cost nothing, whatever is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar

from torch import nn
from transformers import GenerationMixin, PreTrainedModel

from ..architectures import named
from ..errors import StateError, UnsupportedError
from ..methods import Ahead, Binding, BlockOp, EmbeddingOp, HeadOp, LinearOp, PrefixOp, PromptOp, SiteOp
from ..methods.method import Problem
from ..sites import Attention, Site
from .attention_forms import prefix_forward
from .combined_prefixes import Filled
from .combined_tasks import TaskIds
from .forwards import (
    BlockForward,
    EmbeddingForward,
    EmbeddingsForward,
    Forward,
    InverseForward,
    LinearForward,
    Mute,
    PositionsForward,
    owner_of,
)
from .layout import Ground
from .model_forwards import Generate, HeadForward, Idle, NoGenerate, Repeated, WithTasks
from .norms import shadow
from .prefix_filling import Filling
from .prompts import (
    LengthenedEmbeddings,
    LengthenedModel,
    PaddingSeen,
    PromptedHead,
    PromptedModel,
    PromptReader,
)
from .site_forwards import Bypass, ExchangedForward, LastOutput, Residual, SiteForward
from .stack_inputs import PromptedText, StackInputs

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Forwards to install, and the labels that the model shows meanwhile.

    Attributes:
        forwards: the module's attribute dictionary → its forward.
        labels: names of the head's classes, or None where there is no head or its classes have no names.
        problem: what `problem_type` says meanwhile, or None where the head does not say it.
        generate: what stands for the model's `generate`, or None for its own.
    """

    forwards: tuple[tuple[dict[str, Any], Forward], ...]
    labels: tuple[str, ...] | None = None
    problem: Problem | None = None
    generate: Forward | None = None


NOTHING = Plan(())


class Installation:
    """What stands on a model's forward path at the moment, and what stood there before."""

    def __init__(self, ground: Ground) -> None:
        self.plan = NOTHING
        self._config = ground.model.config
        self._model = ground.model.__dict__
        self._before: dict[int, Forward | None] = {
            id(m.__dict__): m.__dict__.get("forward") for m in (ground.model, *ground.modules.values())
        }
        self._shown = (self._config.id2label, self._config.label2id, self._config.problem_type)

    def switch(self, plan: Plan) -> None:
        """Take the present plan off the model and put another one on; microseconds, whatever is loaded.

        Raises:
            StateError: somebody else has put a forward over one of ours.
        """
        present = self.plan.forwards
        for attributes, forward in present:
            if attributes.get("forward") is not forward:
                raise StateError(
                    "another library has replaced the forward of a module that holds an active adapter",
                    hint="take its wrapper off first, or wrap the model before attaching adapters",
                )
        for attributes, _ in present:
            before = self._before[id(attributes)]
            if before is None:
                del attributes["forward"]
            else:
                attributes["forward"] = before
        for attributes, forward in plan.forwards:
            attributes["forward"] = forward
        if plan.generate is not None:
            self._model["generate"] = plan.generate
        elif self.plan.generate is not None:
            del self._model["generate"]
        if plan.labels is not self.plan.labels:
            self._show(plan)
        self.plan = plan

    def original(self, module: nn.Module) -> Forward:
        """Return the forward that a module had when the adapters were attached, whatever stands there now."""
        before = self._before[id(module.__dict__)]
        return MethodType(type(module).forward, module) if before is None else before

    def _show(self, plan: Plan) -> None:
        """Let model.config name the classes of the active head, as pipelines expect it; see docs/adr/0007."""
        if plan.labels is None:
            self._config.id2label, self._config.label2id, self._config.problem_type = self._shown
        else:
            self._config.id2label = dict(enumerate(plan.labels))
            self._config.label2id = {label: i for i, label in enumerate(plan.labels)}
            # The configuration's type lists what transformers knows; a head says nothing else.
            vars(self._config)["problem_type"] = plan.problem or self._shown[2]


def build(
    ground: Ground,
    installation: Installation,
    binding: Binding,
    labels: tuple[str, ...],
    *,
    trains: bool,
    mutes: bool = False,
    copies: int = 1,
    tasks: TaskIds | None = None,
) -> Plan:
    """Return the plan that makes one binding active on a model.

    Args:
        ground: the model.
        installation: what stands on it.
        binding: what is to act.
        labels: names of the head's classes.
        trains: whether gradients must be able to enter the model, see EmbeddingsForward.
        mutes: whether the binding is right only without the modules that its architecture's row calls muted.
        copies: how often the batch is repeated in front of the model.
        tasks: what wants to know the rows' tasks.
    """
    builder = _Builder(ground, installation)
    if mutes:
        builder.mute(ground.architecture.muted)
    builder.substitute(binding.parameters)
    builder.operations(binding)
    if trains:
        builder.embeddings()
    head = binding.head
    if head is not None:
        builder.head(head, binding.embeddings)
    if tasks is not None:
        builder.tasks(tasks)
    if copies > 1:
        builder.repeat(copies)
    if head is None or not head.labels:
        return builder.plan()
    return builder.plan(labels or tuple(f"LABEL_{i}" for i in range(head.labels)), head.problem)


class _Builder:
    """Collects forwards; several on one module stand in front of each other."""

    def __init__(self, ground: Ground, installation: Installation) -> None:
        self._ground = ground
        self._original = installation.original
        self._embeddings = {embedding.path: embedding for embedding in ground.layout.embeddings}
        self._forwards: dict[int, tuple[nn.Module, Forward]] = {}
        self._residuals: dict[tuple[str, int], Residual] = {}
        self._inputs: dict[int, StackInputs] = {}
        self._texts: dict[str, PromptedText] = {}
        self._generate: Forward | None = None

    def plan(self, labels: tuple[str, ...] | None = None, problem: Problem | None = None) -> Plan:
        forwards = tuple((module.__dict__, forward) for module, forward in self._forwards.values())
        return Plan(forwards, labels, problem, self._generate)

    def substitute(self, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        """Put a shadow in front of each module that gets other parameters: a copy of it that shares all else."""
        for path, own in parameters.items():
            module, found = self._ground.modules[path], shadow(self._ground.modules[path], own)
            if path in self._ground.architecture.unasked:
                around, _, leaf = path.rpartition(".")
                module = self._ground.modules[around]
                found = shadow(module, {}, {leaf: found})
            self._put(module, MethodType(type(module).forward, found))

    def operations(self, binding: Binding) -> None:
        """Let every operation act at its place; the innermost first."""
        for path, op in binding.prompts.items():
            self._texts[path] = PromptedText(Ahead(op.length, int(op.after_first)))
        self._each(binding.attentions, self.prefix)
        self._each(binding.positions, self.positions)
        self._each(binding.prompts, self.padding_seen)
        self._each(binding.linears, self.linear)
        sites = [site for site in self._ground.layout.sites if site.path in binding.sites]
        for number, site in enumerate(sites):
            self.site(site, binding.sites[site.path], later=sites[number + 1 :])
        self._each(binding.blocks, self.block)
        self._each(binding.embeddings, self.embedding)
        self._each(binding.prompts, self.prompt)

    def _each(self, ops: Mapping[str, T], put: Callable[[str, T], None]) -> None:
        for path, op in ops.items():
            put(path, op)

    def site(self, site: Site, op: SiteOp, *, later: Sequence[Site]) -> None:
        """Let an operation act at a site; later: the sites behind it at which something acts too."""
        norm = site.norm or site.inner
        forward = None if norm is None else self._forward(self._ground.modules[norm])
        bypass = None
        if site.norm is not None and (op.replaces_norm or site.exchanged):
            module = self._ground.modules[site.norm]
            bypass = Bypass(self._forward(module))
            self._put(module, bypass)
        together = [other for other in self._ground.layout.sites if other.output == site.output]
        reads = op.reads_residual or site.exchanged or len(together) > 1
        output = self._ground.modules[site.output]
        make = ExchangedForward if site.exchanged else SiteForward
        self._put(
            output,
            make(
                self._forward(output),
                op,
                residual=self._residual(site, together) if reads else None,
                beside=self._remembered(site.beside) if site.beside is not None and op.reads_residual else None,
                norm=forward,
                bypass=bypass,
                keeps=any(other.residual == site.residual for other in later),
                takes_turns=len(together) > 1,
            ),
        )

    def linear(self, path: str, op: LinearOp) -> None:
        if path in self._ground.architecture.unasked:
            raise UnsupportedError(
                f"{path} is never called, its weight is read by the module around it: nothing can act there",
                hint="leave it out of the targets",
            )
        module = self._ground.modules[path]
        self._put(module, LinearForward(self._forward(module), op))

    def prefix(self, path: str, op: PrefixOp) -> None:
        """Put a prefix in front of an attention, which must still have the forward of its class."""
        module = self._ground.modules[path]
        if owner_of(self._forward(module)) is not module:
            raise UnsupportedError(
                f"another library has replaced the forward of {path}, so it cannot have a prefix",
                hint="take its wrapper off, or load the model without device_map",
            )
        place = next(attention for attention in self._ground.layout.attentions if attention.path == path)
        filling = self._filling(place, module) if isinstance(op, Filled) else None
        self._put(module, prefix_forward(op, place, self._ground.modules, filling))

    def _filling(self, place: Attention, module: nn.Module) -> Filling:
        """Return what stands in front of shorter prefixes in `adapters`."""
        stack = self._stack(place.path)
        causal = place.stack != "cross" and bool(vars(module).get("is_causal"))
        return Filling(place, stack.config, self._inputs_of(stack), causal=causal)

    def positions(self, path: str, shift: int) -> None:
        module = self._ground.modules[path]
        self._put(module, PositionsForward(self._forward(module), shift, module))

    def padding_seen(self, path: str, op: PromptOp) -> None:
        """Let padding act upon a prompt; innermost, so that others still find a mask without queries."""
        if op.sees_padding or op.padded_bonus:
            model = self._ground.modules[self._embeddings[path].model]
            assert isinstance(model, PreTrainedModel)  # noqa: S101
            self._put(model, PaddingSeen(self._forward(model), op, model, mutual=self._is_deberta()))

    def prompt(self, path: str, op: PromptOp) -> None:
        """Let a prompt join the text; outermost, so that all inside see the longer one."""
        modules, embedding = self._ground.modules, self._embeddings[path]
        model, tokens = modules[embedding.model], None
        if op.place == "tokens":
            tokens = modules[embedding.tokens or ""]
            self._put(model, PromptedModel(self._forward(model), op, model, tokens, self._texts[path]))
        else:
            lengthened = LengthenedModel(self._forward(model), op, self._texts[path], makes_mask=self._is_deberta())
            self._put(model, lengthened)
            module = modules[path]
            self._put(module, LengthenedEmbeddings(self._forward(module), op, lengthened))
        if embedding.reader is not None:
            reader = modules[embedding.reader]
            self._put(reader, PromptReader(self._forward(reader), op))
        outer = self._ground.model
        if outer is not self._ground.bare and not embedding.model:
            self._put(outer, PromptedHead(self._forward(outer), op, tokens))

    def _is_deberta(self) -> bool:
        """Return whether the model makes masks from what it is called with, for queries and keys alike."""
        return any(attention.form.startswith("deberta") for attention in self._ground.layout.attentions)

    def block(self, path: str, op: BlockOp) -> None:
        module = self._ground.modules[path]
        inputs, text = self._inputs_of(self._stack(path)), self._text_around(path)
        self._put(module, BlockForward(self._forward(module), op, inputs, text))

    def _text_around(self, path: str) -> PromptedText | None:
        """Return the text with a prompt that goes through a layer, None if there is none."""
        for place, text in self._texts.items():
            model = self._embeddings[place].model
            if not model or path.startswith(f"{model}."):
                return text
        return None

    def embedding(self, path: str, op: EmbeddingOp) -> None:
        """Let an operation act behind an embedding, and its inverse in front of the output embeddings."""
        module = self._ground.modules[path]
        self._put(module, EmbeddingForward(self._forward(module), op))
        output = self._ground.model.get_output_embeddings()
        if op.before_output and output is not None:
            width, reads = self._embeddings[path].width, output.weight.shape[-1]
            if width != reads:
                raise UnsupportedError(
                    f"the inverse of an invertible adapter for embeddings of {width} numbers cannot stand in front of"
                    f" output embeddings that read {reads}"
                )
            self._put(output, InverseForward(self._forward(output), op))

    def embeddings(self) -> None:
        """Let gradients in behind the input embeddings of every tower, if the layers are checkpointed."""
        layer = self._ground.modules[self._ground.layout.blocks[0].path]
        for embeddings in self._ground.input_embeddings():
            self._put(embeddings, EmbeddingsForward(self._forward(embeddings), layer))

    def mute(self, containers: Sequence[str]) -> None:
        """Let the modules in some containers give zeros; a container's path has `{i}` for the index of the layer."""
        for path, module in self._ground.modules.items():
            if any(named(container, path.rpartition(".")[0]) for container in containers):
                self._put(module, Mute(self._forward(module)))

    def tasks(self, ids: TaskIds) -> None:
        """Take the rows' tasks from the model's inputs."""
        model = self._ground.model
        self._put(model, WithTasks(self._forward(model), ids))

    def repeat(self, copies: int) -> None:
        """Repeat the batch in front of the whole model, and of its generate if it has one."""
        model = self._ground.model
        repeats = Repeated(self._forward(model), copies)
        self._put(model, repeats)
        if isinstance(model, GenerationMixin):
            self._generate = Generate(MethodType(type(model).generate, model), repeats)

    def head(self, head: HeadOp, embeddings: Mapping[str, EmbeddingOp]) -> None:
        """Let a head answer for the model."""
        model, bare = self._ground.model, self._ground.bare
        inverses = [
            embeddings[place.path].inverse for place in self._ground.layout.embeddings if place.path in embeddings
        ]
        run = self._forward(model) if model is bare else bare
        forward = HeadForward(
            run,
            head,
            own=inspect.signature(self._original(model)),
            base=self._signature(bare),
            hidden=self._hidden(),
            invert=inverses[0] if inverses else None,
            returns_dict=bool(model.config.return_dict),
        )
        self._put(model, forward)
        if isinstance(model, GenerationMixin) and not head.generates:
            self._generate = NoGenerate()

    def _signature(self, module: nn.Module) -> inspect.Signature:
        """Return the arguments of a module; of one that only hands them on, those of the module inside."""
        found = inspect.signature(self._original(module))
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in found.parameters.values()):
            return self._signature(next(module.children()))
        return found

    def _hidden(self) -> LastOutput | None:
        """Return what remembers the hidden states in a model that is its own base and has a head, as those of T5 do."""
        model, row = self._ground.bare, self._ground.architecture
        names = {cls.__name__ for cls in type(model).__mro__}
        if model is not self._ground.model or not any(names & set(head.classes) for head in row.heads):
            return None
        output = model.get_output_embeddings()
        if output is not None:
            self._put(output, Idle())
        return self._remembered(row.layers[-1].path.partition(".")[0])

    def _stack(self, path: str) -> PreTrainedModel:
        """Return the innermost model of transformers that a module stands in."""
        words = path.split(".")
        around = (self._ground.modules.get(".".join(words[:count])) for count in range(len(words), -1, -1))
        return next(module for module in around if isinstance(module, PreTrainedModel))

    def _inputs_of(self, stack: PreTrainedModel) -> StackInputs:
        if id(stack) not in self._inputs:
            reads_text, bare = stack.main_input_name == "input_ids", self._ground.bare
            around = None if reads_text or stack is bare else self._inputs_of(bare)
            self._inputs[id(stack)] = StackInputs(self._forward(stack), around=around)
            self._put(stack, self._inputs[id(stack)])
        return self._inputs[id(stack)]

    def _residual(self, site: Site, together: Sequence[Site]) -> Residual:
        """Return what remembers the stream that enters a site; sites that share their output know of each other."""
        for other in together:
            place = (other.residual, other.argument)
            if place not in self._residuals:
                module = self._ground.modules[other.residual]
                self._residuals[place] = Residual(self._forward(module), other.argument)
                self._put(module, self._residuals[place])
        found = [self._residuals[other.residual, other.argument] for other in together]
        for one in found:
            one.rivals = tuple(rival for rival in found if rival is not one)
        return self._residuals[site.residual, site.argument]

    def _remembered(self, path: str) -> LastOutput:
        """Return what remembers the output of a module."""
        module = self._ground.modules[path]
        remembered = LastOutput(self._forward(module))
        self._put(module, remembered)
        return remembered

    def _forward(self, module: nn.Module) -> Forward:
        found = self._forwards.get(id(module))
        return self._original(module) if found is None else found[1]

    def _put(self, module: nn.Module, forward: Forward) -> None:
        self._forwards[id(module)] = (module, forward)
