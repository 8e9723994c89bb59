"""FlexSN: a core with states, as an ``nn.Module``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from flexsn.captures.binding import NOTHING_BOUND, register_parameters
from flexsn.captures.contract import count_outputs, read_signature
from flexsn.errors import CoreError, defined_at
from flexsn.execution.arguments import check, compute_dtype, fit
from flexsn.execution.opaque import opaque_to_compile
from flexsn.modules.monitor import Recording
from flexsn.modules.scanned import Scanned
from flexsn.modules.stateful import Shapes

if TYPE_CHECKING:
    from flexsn.modules.explain import Report

__all__ = ["FlexSN"]


class FlexSN(Scanned):
    """A spiking neuron from one time step written in plain PyTorch.

    The core is scanned over time by one fused kernel,
    ``(*y[t], *s[t]) = core(*x[t], *s[t-1])``, and is differentiable in inputs, initial states and in every
    parameter the core reads. Every ``nn.Parameter`` it can reach (attributes, closure cells, globals, partial
    arguments, containers) is registered here under its variable name, so that ``parameters()``, ``state_dict()``,
    ``to()`` and optimizers see it. Numbers are constants of the kernel; a changed one counts from the next call on.

    A deep copy trains its own parameters; numbers and objects that the core reads as globals stay shared.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``, pointwise. A function, lambda, closure,
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
        checkpoint: steps between stored states in training; ``"auto"`` lets the plan choose.
        time_dim: the time axis of multi-step inputs and outputs; 1 for batch-first.
        output_dtype: keep the outputs in this dtype (or these, one per output). Spikes in ``torch.bool`` or
            ``torch.uint8`` take a byte each and come as a :class:`~flexsn.SpikeTensor`: a float tensor to every
            layer, with the float tensor's gradients. A float dtype gives a plain tensor of it.

    Shapes:
        inputs ``[T, *step]`` (``"m"``) or ``[*step]`` (``"s"``); outputs alike; states ``[*step]``.

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

    # a neuron's machinery, no core reads these: see captures.origin
    _flexsn_internal: ClassVar[frozenset[str]] = frozenset(
        {"num_inputs", "num_states", "state_names", "time_dim", "store_state_seqs", "state_seqs"}
        | {"_states", "_input_shapes", "_in_transform", "_num_outputs", "_example_dtypes", "_requires_grad"}
        | {
            "_step_mode",
            "_backend",
            "_checkpoint",
            "_output_dtype",
            "_recording",
            "_dispatcher_cache",
            "_loans_cache",
            "_loan_names",
        }
    )

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
    ) -> None:
        super().__init__()
        if core is None:
            if not callable(getattr(type(self), "core", None)):
                raise CoreError("no core", hint="pass one: FlexSN(core), or define core(self, ...) in a subclass")
        elif not callable(core):
            raise CoreError(f"core must be callable, got {type(core).__name__}")
        else:
            self.core = core
        signature = read_signature(self.core, num_inputs, num_states, example_inputs)
        self._name_states(signature.num_inputs, signature.state_names)
        self.__dict__["_loan_names"] = {}
        self._example_dtypes = None if example_inputs is None else tuple(e.dtype for e in example_inputs)
        self._requires_grad = None if requires_grad is None else tuple(requires_grad)
        for what, given in (("example_inputs", example_inputs), ("requires_grad", requires_grad)):
            if given is not None and len(given) != self.num_inputs + self.num_states:
                raise CoreError(
                    f"{what} has {len(given)} entries, the core takes {self.num_inputs + self.num_states} arguments",
                    why="one entry per argument, inputs then states",
                )
        self.step_mode = step_mode
        self.backend = backend
        self.store_state_seqs = store_state_seqs
        self.checkpoint = checkpoint
        self.output_dtype = output_dtype
        self.time_dim = time_dim
        self._num_outputs = num_outputs
        if example_outputs is not None:
            self._num_outputs = len(example_outputs)
            if num_outputs not in (None, len(example_outputs)):
                raise CoreError(f"num_outputs={num_outputs}, but example_outputs has {len(example_outputs)} entries")
        if core is not None:  # a subclass is not complete yet, and owns its parameters anyway
            register_parameters(self, self._dispatcher.captures(), self._loan_names)
            if self._num_outputs is not None:
                self._check_num_outputs(self._count_outputs())

    def explain(self, target: str | None = None, dtype: torch.dtype = torch.float32) -> Report:
        """What the core is compiled to; see :func:`flexsn.modules.explain`."""
        from flexsn.modules.explain import explain

        return explain(self, target, dtype)

    # ---- the call -----------------------------------------------------------------------------------------

    @opaque_to_compile
    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run ``T`` steps (``step_mode="m"``) or one (``"s"``), continuing from the last states.

        Raises:
            ValueError: inputs that do not fit together, or not the states that are held.
            CoreError: the core breaks its contract.
            UnsupportedOpError, BackendError: a backend asked for by name cannot run this core here.
        """
        mine = self.__dict__
        if len(inputs) != self.num_inputs:
            raise ValueError(f"expected {self.num_inputs} input(s), got {len(inputs)}")
        multi_step = mine["_step_mode"] == "m"
        time_dim = mine["time_dim"] if multi_step else 0
        states = mine["_states"]
        try:
            seqs = inputs if multi_step else tuple([x.unsqueeze(0) for x in inputs])
            input_shapes = tuple([_without(x.shape, time_dim) for x in seqs])
        except AttributeError:
            check(inputs, (), time_dim)  # says which input is no tensor
            raise
        if states is None:
            try:
                states = self._initial_states(inputs, time_dim)
            except (IndexError, RuntimeError, ValueError):
                fit(seqs, (), time_dim)  # says what is wrong with the inputs, if they are to blame
                raise
        elif mine["_input_shapes"] not in (None, input_shapes):
            raise ValueError(
                f"the step shape changed from {_shapes(mine['_input_shapes'])} to {_shapes(input_shapes)} "
                f"while {type(self).__name__} still holds states; call reset() before a batch of another shape"
            )
        elif mine["_in_transform"] and not torch._C._are_functorch_transforms_active():
            raise ValueError(
                f"{type(self).__name__} holds states of a vmap, grad or jvp that has ended; call reset() before it ends"
            )
        recording: Recording | None = mine["_recording"]
        everything = tuple(range(self.num_states)) if mine["store_state_seqs"] else ()
        wanted = everything or (recording.states if recording and multi_step else ())
        outputs, finals, state_seqs = self._scan(seqs, states, time_dim, wanted)
        self._keep(finals, input_shapes)
        mine["state_seqs"] = None if not mine["store_state_seqs"] else state_seqs if multi_step else finals
        if recording:
            recording.take(dict(zip(wanted, state_seqs, strict=True)), time_dim)
        if not multi_step:
            outputs = tuple([y.squeeze(0) for y in outputs])
        return outputs[0] if len(outputs) == 1 else outputs

    def _scan(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...], time_dim: int, wanted: tuple[int, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        mine = self.__dict__
        if self._requires_grad is not None:
            inputs, states = self._cut(inputs, states)
        binding = self._loans()
        with binding.applied(self) if binding else NOTHING_BOUND:
            result = self._dispatcher(
                inputs,
                states,
                backend=mine["_backend"],
                time_dim=time_dim,
                wanted_states=wanted,
                checkpoint=mine["_checkpoint"],
                output_dtype=mine["_output_dtype"],
            )
        if self._num_outputs != len(result[0]):
            self._check_num_outputs(len(result[0]))
        return result

    def _cut(self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], ...]:
        flags = self._requires_grad or ()
        cut = tuple(a if keep else a.detach() for a, keep in zip((*inputs, *states), flags, strict=True))
        return cut[: self.num_inputs], cut[self.num_inputs :]

    def _initial_states(self, inputs: tuple[Tensor, ...], time_dim: int) -> tuple[Tensor, ...]:
        time_first = tuple(x.movedim(time_dim, 0) for x in inputs) if time_dim else inputs
        states = tuple(self.init_states(self.num_states, self.step_mode, *time_first))
        if len(states) != self.num_states or not all(isinstance(s, Tensor) for s in states):
            raise CoreError(
                f"init_states returned {len(states)} value(s) {tuple(type(s).__name__ for s in states)}, "
                f"expected {self.num_states} tensor(s) for the states {self.state_names}"
            )
        if self._example_dtypes is not None:
            dtypes = self._example_dtypes[self.num_inputs :]
            states = tuple(s.to(compute_dtype(d)) for s, d in zip(states, dtypes, strict=True))
        return states

    @property
    def num_outputs(self) -> int:
        """How many outputs the core has; found by running it once where nobody said so."""
        if self._num_outputs is None:
            found = self._count_outputs()
            if found is None:
                raise CoreError(
                    "the number of outputs is not known before the first call",
                    why="the core does not run on small example tensors",
                    hint="pass num_outputs=",
                )
            self._check_num_outputs(found)
        count: int = self._num_outputs  # type: ignore[assignment]
        return count

    def _count_outputs(self) -> int | None:
        num_arguments = self.num_inputs + self.num_states
        dtypes = self._example_dtypes or (torch.get_default_dtype(),) * num_arguments
        return count_outputs(self._dispatcher.captures(), self.core, dtypes, self.num_states)

    def _check_num_outputs(self, found: int | None) -> None:
        if found is None:
            return
        if self._num_outputs is None and found > 0:
            self._num_outputs = found
        elif self._num_outputs != found:
            expected = "at least one output" if self._num_outputs is None else f"num_outputs={self._num_outputs}"
            raise CoreError(
                f"expected {expected}, the core returns {found} output(s) and {self.num_states} new state(s)",
                where=defined_at(self.core),
                why="a core returns (*outputs, *new_states)",
            )

    def extra_repr(self) -> str:
        name = getattr(self.core, "__qualname__", type(self.core).__name__)
        return f"core={name}, states={self.state_names}, step_mode={self.step_mode!r}, backend={self.backend!r}"


def _without(shape: torch.Size, axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :]) if axis != -1 else shape[:-1]


def _shapes(shapes: Shapes) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)
