"""FlexSN: a core with states, as an ``nn.Module``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from flexsn.captures.binding import ParameterBinding, register_parameters
from flexsn.captures.contract import (
    callable_core,
    check_entries,
    count_outputs,
    read_signature,
    too_few_returned,
)
from flexsn.captures.guards import Captures
from flexsn.errors import CoreError
from flexsn.execution.arguments import Tensors, as_floats, check, complaint, wrong_count
from flexsn.execution.backends import supported_backends
from flexsn.execution.dispatch import ScanDispatcher, opaque_to_compile
from flexsn.execution.loop import Results
from flexsn.execution.masks import Masks
from flexsn.execution.options import ScanOptions
from flexsn.ir.layout import without_axis
from flexsn.modules.in_graph import InGraph, neuron_in_graph
from flexsn.modules.internals import Internals
from flexsn.modules.kernel import FlexSNKernel
from flexsn.modules.options import Options
from flexsn.modules.step_forms import StepForms

if TYPE_CHECKING:
    from flexsn.report.report import Report

__all__ = ["FlexSN"]


class FlexSN(Options, StepForms, InGraph):
    """A spiking neuron from one time step written in plain PyTorch.

    The core is scanned over time by one fused kernel,
    ``(*y[t], *s[t]) = core(*x[t], *s[t-1])``, and is differentiable in inputs, initial states and in every
    parameter the core reads. Every ``nn.Parameter`` it can reach (attributes, closure cells, globals, partial
    arguments, containers) is registered here under its variable name, so that ``parameters()``, ``state_dict()``,
    ``to()`` and optimizers see it. Numbers are constants of the kernel; a changed one counts from the next call on.

    A deep copy trains its own parameters; numbers and objects that the core reads as globals stay shared.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``; see ``docs/cores.md``. A function, lambda, closure,
            bound method, ``functools.partial`` or ``nn.Module``. A subclass may define a ``core`` method instead.
        num_inputs: inputs of the core; 1 where nothing else decides.
        num_states: states of the core; by default what its signature has beyond the inputs.
        num_outputs: outputs of the core; by default found by running it once.
        example_inputs: ``(*inputs, *states)`` tensors, of any shape: their dtypes are those of the states.
        requires_grad: one flag per argument ``(*inputs, *states)``; ``False`` cuts the gradient there.
        step_mode: ``"m"``: inputs are sequences ``[T, ...]``; ``"s"``: inputs are single steps.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.
        store_state_seqs: keep the states of every step of a call in ``state_seqs``.
        example_outputs: as many tensors as the core has outputs; another way to say ``num_outputs``.
        checkpoint: steps between stored states in training (unused by kernels that multiply); ``"auto"``: theirs.
        time_dim: the time axis of multi-step inputs and outputs; 1 for batch-first.
        output_dtype: store the outputs in this dtype (or these, one per output). Spikes in ``torch.bool`` or
            ``torch.uint8`` take a byte each and come as a :class:`~flexsn.SpikeTensor`: a float tensor to every
            layer, with the float tensor's gradients. A float dtype gives a plain tensor of it.
        detach_every: cut the gradient of states before steps ``n, 2n, ...`` of a call, as ``detach()`` between
            chunks of ``n`` steps would (truncated BPTT).
        time_reduction: ``"sum"``, ``"mean"``, ``"last"`` or ``"max"``: outputs come reduced over time; the kernel
            writes one value per lane instead of ``T``. ``"m"`` only.
        rate: keep the mean of the first output over the steps of a call in ``neuron.rate``; it has a gradient.

    Shapes:
        inputs ``[T, *step]`` (``"m"``) or ``[*step]`` (``"s"``); outputs alike, ``[*step]`` with
        ``time_reduction``; states and ``rate`` ``[*step]``.

    Dtypes:
        fp16 and bf16 inputs are computed in fp32; outputs come back in the inputs' dtype, states stay fp32.

    Raises:
        CoreError: counts that contradict the core, or a core that breaks its contract.
        ValueError: shapes, devices or options that do not fit.

    Example:
        >>> import torch
        >>> from flexsn import FlexSN, surrogate
        >>> spike = surrogate.ATan(alpha=2.0)
        >>> def core(x, v):
        ...     h = v + (x - v) / 2.0
        ...     s = spike(h - 1.0)
        ...     return s, h * (1.0 - s)
        >>> neuron = FlexSN(core)
        >>> neuron(torch.full((4, 2), 1.5)).tolist()
        [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()
    integers_as_floats: ClassVar[bool] = False
    """Whether a subclass takes integer and bool inputs, such as frames of uint8, as their ``float()``."""
    core: Callable[..., Any]

    def __init__(
        self,
        core: Callable[..., Any] | None = None,
        num_inputs: int | None = None,
        num_states: int | None = None,
        num_outputs: int | None = None,
        example_inputs: Sequence[Tensor] | None = None,
        requires_grad: Sequence[bool] | None = None,
        step_mode: str = "m",
        backend: str = "auto",
        store_state_seqs: bool = False,
        example_outputs: Sequence[Tensor] | None = None,
        *,
        checkpoint: int | str = "auto",
        time_dim: int = 0,
        output_dtype: torch.dtype | Sequence[torch.dtype | None] | None = None,
        detach_every: int | None = None,
        time_reduction: str | None = None,
        rate: bool = False,
    ) -> None:
        super().__init__()
        if core is not None:
            self.core = callable_core(core)
        elif not callable(getattr(type(self), "core", None)):
            raise CoreError("no core", hint="pass one: FlexSN(core), or define core(self, ...) in a subclass")
        signature = read_signature(self.core, num_inputs, num_states, example_inputs)
        check_entries(signature, example_inputs=example_inputs, requires_grad=requires_grad)
        if any(not isinstance(e, Tensor) for e in example_inputs or ()):
            kinds = ", ".join(type(e).__name__ for e in example_inputs or ())
            raise CoreError(f"example_inputs must be tensors, got {kinds}", why="their dtypes are those of the states")
        if example_outputs is not None and num_outputs not in (None, len(example_outputs)):
            raise CoreError(f"num_outputs={num_outputs}, but example_outputs has {len(example_outputs)} entries")
        self._flexsn = Internals(
            num_inputs=signature.num_inputs,
            state_names=signature.state_names,
            example_dtypes=None if example_inputs is None else tuple(e.dtype for e in example_inputs),
            requires_grad=None if requires_grad is None else tuple(requires_grad),
            num_outputs=num_outputs if example_outputs is None else len(example_outputs),
        )
        self.step_mode, self.backend, self.store_state_seqs = step_mode, backend, store_state_seqs
        self.checkpoint, self.output_dtype, self.time_dim = checkpoint, output_dtype, time_dim
        self.detach_every, self.time_reduction = detach_every, time_reduction
        self._flexsn.set_option(rate=rate)
        if core is not None:  # a subclass is not complete yet, and owns its parameters anyway
            register_parameters(self, self._dispatcher().captures(), self._flexsn.bound_names)
            if self._flexsn.num_outputs is not None:
                self._check_num_outputs(self._count_outputs())

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends that can run on this machine."""
        return supported_backends()

    # ---- the call -----------------------------------------------------------------------------------------

    def forward(
        self, *inputs: Tensor, lengths: Tensor | None = None, reset_mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Run ``T`` steps (``step_mode="m"``) or one (``"s"``), continuing from the last states.

        Args:
            inputs: of the core.
            lengths: how many steps each sample has, integers ``[B]``; the batch is the first dimension of a step.
                From there on its outputs are 0, its states stay and its gradients are 0, whatever the padding is.
                Numbers below 0 or above ``T`` are an error on the CPU; on a GPU, where looking would mean waiting,
                they count as 0 or ``T``. ``"m"`` only.
            reset_mask: bool, as large as an input or without its last dimensions, ``[T, B]``, say: before such a
                step the states are the initial ones (:meth:`init_states`, whatever came before).

        Raises:
            ValueError: inputs that do not fit together, or not the states that are held; lengths or a mask that
                do not fit the inputs; an option that needs a sequence in step mode ``"s"``.
            CoreError: the core breaks its contract.
            UnsupportedOpError, BackendError: a backend asked for by name cannot run this core here.
        """
        own = self._flexsn
        options, multi_step = own.call_options, own.step_mode == "m"
        if len(inputs) != own.num_inputs:
            raise wrong_count(self.core, own.num_inputs, own.state_names, len(inputs), type(self) is FlexSN)
        try:
            if self.integers_as_floats:
                inputs = as_floats(inputs)
            seqs = inputs if multi_step else tuple([x.unsqueeze(0) for x in inputs])
            input_shapes = tuple([without_axis(x.shape, options.time_dim) for x in seqs])
        except (AttributeError, IndexError, RuntimeError):
            if wrong := complaint(partial(check, inputs, (), options.time_dim)):
                raise wrong from None  # an input is no tensor, has no time axis or no shape
            raise
        if own.states is None:
            states = self._initial_states(inputs, seqs, options.time_dim)
        else:
            states = own.states
            unsure = not torch.compiler.is_compiling() and (own.in_transform or torch._C._current_graph_task_id() != -1)
            if unsure or own.input_shapes not in (None, input_shapes):
                self._check_states(input_shapes)
        masks: tuple[Masks, ...] = ()
        if lengths is not None or reset_mask is not None or options.has_rules:
            masks = (self._masks(lengths, reset_mask, inputs, seqs, states),)
        outputs, finals, state_seqs = self._scan(seqs, states, options, *masks)
        if options.rate:
            outputs, own.rate = outputs[:-1], outputs[-1]
        own.hold(finals, input_shapes)
        own.state_seqs = None if not own.store_state_seqs else state_seqs if multi_step else finals
        if own.monitor is not None:
            own.monitor.record(dict(zip(options.wanted_states, state_seqs, strict=True)), options.time_dim)
        if not multi_step:
            outputs = tuple([y.squeeze(0) for y in outputs])
        return outputs[0] if len(outputs) == 1 else outputs

    _advance: ClassVar[Callable[..., Any]] = forward

    def _masks(
        self, lengths: Tensor | None, reset_mask: Tensor | None, inputs: Tensors, seqs: Tensors, states: Tensors
    ) -> Masks:
        """What a call says of its sequences; in step mode "s" there is only one step to speak of."""
        own, initial = self._flexsn, states
        if own.step_mode == "s":
            options = own.call_options
            asked = {"lengths": lengths, "time_reduction": options.time_reduction, "detach_every": options.detach_every}
            wrong = [name for name, value in asked.items() if value is not None]
            if wrong:
                raise ValueError(f'{wrong[0]} is about the steps of a call, of which step mode "s" has one; use "m"')
            if isinstance(reset_mask, Tensor):
                reset_mask = reset_mask.unsqueeze(0)
        if reset_mask is not None and own.states is not None:
            initial = self._initial_states(inputs, seqs, own.call_options.time_dim)
        return Masks(lengths, reset_mask, () if reset_mask is None else initial)

    def _scan(self, inputs: Tensors, states: Tensors, options: ScanOptions, masks: Masks | None = None) -> Results:
        """Scan from these states, with the parameters that are registered; what is held stays as it is."""
        own = self._flexsn
        if own.requires_grad is not None:
            flagged = zip((*inputs, *states), own.requires_grad, strict=True)
            cut = tuple(a if flag else a.detach() for a, flag in flagged)
            inputs, states = cut[: own.num_inputs], cut[own.num_inputs :]
            masks = masks and masks.with_gradients(own.requires_grad[own.num_inputs :])
        in_graph = neuron_in_graph(self, inputs, states, options, masks) if torch.compiler.is_compiling() else None
        return self._dispatched(inputs, states, options, masks) if in_graph is None else in_graph

    @opaque_to_compile
    def _dispatched(self, inputs: Tensors, states: Tensors, options: ScanOptions, masks: Masks | None) -> Results:
        own, dispatcher = self._flexsn, self._dispatcher()
        captures, read = dispatcher.read()
        if own.bound_names and not (binding := self._binding(captures)).holds(self, read):
            with binding.applied(self):
                results = dispatcher(inputs, states, options, masks)
        else:
            results = dispatcher(inputs, states, options, masks, read)
        num_outputs = len(results[0]) - options.rate
        if own.num_outputs != num_outputs:
            self._check_num_outputs(num_outputs)
        return results

    def _dispatcher(self) -> ScanDispatcher:  # no property: an AttributeError inside would name it as what is missing
        own, core = self._flexsn, self.core  # a method is bound anew each time
        known = None if own.dispatcher is None else own.dispatcher.core
        if known is not core and not (isinstance(core, MethodType) and known == core):
            own.dispatcher, own.binding = ScanDispatcher(core, len(own.state_names)), None
        assert own.dispatcher is not None
        return own.dispatcher

    def _binding(self, captures: Captures) -> ParameterBinding:
        own = self._flexsn
        if own.binding is None or own.binding.captures is not captures:
            register_parameters(self, captures, own.bound_names)
            own.binding = ParameterBinding(captures, own.bound_names, own.binding)
        return own.binding

    # ---- what it is ---------------------------------------------------------------------------------------

    @property
    def num_inputs(self) -> int:
        """How many arguments of the core are inputs."""
        return self._flexsn.num_inputs

    @property
    def num_outputs(self) -> int:
        """How many outputs the core has; found by running it once where nobody said so."""
        if self._flexsn.num_outputs is None:
            found = self._count_outputs()
            if found is None:
                raise CoreError(
                    "the number of outputs is not known before the first call",
                    why="the core does not run on small example tensors",
                    hint="pass num_outputs=",
                )
            self._check_num_outputs(found)
        count: int = self._flexsn.num_outputs  # type: ignore[assignment]
        return count

    def _count_outputs(self) -> int | None:
        num_arguments = self.num_inputs + self.num_states
        dtypes = self._flexsn.example_dtypes or (torch.get_default_dtype(),) * num_arguments
        return count_outputs(self._dispatcher().captures(), self.core, dtypes, self.num_states)

    def _check_num_outputs(self, found: int | None) -> None:
        own = self._flexsn
        if found is None:
            return
        if own.num_outputs is None and found > 0:
            own.num_outputs = found
        elif own.num_outputs != found:
            expected = "at least one output" if own.num_outputs is None else f"num_outputs={own.num_outputs}"
            what = f"expected {expected}, the core returns {found} output(s) and {self.num_states} new state(s)"
            raise too_few_returned(self.core, what, self.state_names)

    def explain(self, target: str | None = None, dtype: torch.dtype = torch.float32) -> Report:
        """What the core is compiled to; see :func:`flexsn.explain`."""
        from flexsn.report.build import build_report  # brings the Triton printer, which a call on a CPU does not need

        return build_report(self, self._shown_name(), target or "cpp", dtype)

    def _shown_name(self) -> str:
        shown = self.core if type(self) is FlexSN else type(self)
        return str(getattr(shown, "__qualname__", type(shown).__name__))

    def extra_repr(self) -> str:
        name = getattr(self.core, "__qualname__", type(self.core).__name__)
        return f"core={name}, states={self.state_names}, step_mode={self.step_mode!r}, backend={self.backend!r}"


FlexSNKernel.neuron_type = FlexSN
