"""FlexSN: a core with states, as an ``nn.Module``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.errors import CoreError
from flexsn.backends import check_backend, supported_backends
from flexsn.arguments import compute_dtype
from flexsn.scanner import Scanner
from flexsn.signature import read_signature

if TYPE_CHECKING:
    from flexsn.explain import Report

__all__ = ["FlexSN", "FlexSNKernel"]


class FlexSN(nn.Module):
    """A spiking neuron from one time step written in plain PyTorch.

    The core is scanned over time by one fused kernel,
    ``(*y[t], *s[t]) = core(*x[t], *s[t-1])``, and is differentiable in inputs, initial states and in every
    parameter the core reads.

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
    ) -> None:
        super().__init__()
        if core is None:
            if not callable(getattr(type(self), "core", None)):
                raise CoreError("no core", hint="pass one: FlexSN(core), or define core(self, ...) in a subclass")
        else:
            self.core = core
        signature = read_signature(self.core, num_inputs, num_states, example_inputs)
        self.num_inputs, self.num_states = signature.num_inputs, signature.num_states
        self.__dict__["state_names"] = signature.state_names
        self.__dict__["_states"] = None
        self.__dict__["_input_shapes"] = None
        self._num_outputs = len(example_outputs) if num_outputs is None and example_outputs else num_outputs
        self._example_dtypes = None if example_inputs is None else tuple(e.dtype for e in example_inputs)
        self._requires_grad = None if requires_grad is None else tuple(requires_grad)
        num_arguments = self.num_inputs + self.num_states
        for what, given in (("example_inputs", example_inputs), ("requires_grad", requires_grad)):
            if given is not None and len(given) != num_arguments:
                raise CoreError(
                    f"{what} has {len(given)} entries, the core takes {num_arguments} arguments",
                    why="one entry per argument, inputs then states",
                )
        self.step_mode = step_mode
        self.backend = backend
        self.store_state_seqs = store_state_seqs
        self.checkpoint = checkpoint
        self.time_dim = time_dim
        self.state_seqs: tuple[Tensor, ...] | None = None

    # ---- states -------------------------------------------------------------------------------------------

    @staticmethod
    def init_states(num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]:
        """The states before the first step; override for anything but zeros.

        Args:
            num_states: how many.
            step_mode: ``"m"`` if ``args`` are sequences ``[T, ...]``, ``"s"`` if single steps.
            args: the inputs of the call, time first.

        Returns:
            ``num_states`` tensors that broadcast against the step shape.
        """
        x = args[0]
        zero = torch.zeros((), dtype=compute_dtype(x.dtype), device=x.device)
        shapes = [a.shape[1:] if step_mode == "m" else a.shape for a in args]
        shape = shapes[0] if len(shapes) == 1 else torch.Size(np.broadcast_shapes(*shapes))
        return [zero.expand(shape)] * num_states

    @property
    def states(self) -> tuple[Tensor, ...] | None:
        """The states after the last step, or ``None`` before the first call. Settable."""
        states: tuple[Tensor, ...] | None = self.__dict__["_states"]
        return states

    @states.setter
    def states(self, states: Sequence[Tensor] | Tensor | None) -> None:
        if isinstance(states, Tensor):
            states = (states,)
        if states is not None and len(states) != self.num_states:
            raise ValueError(f"expected {self.num_states} states {self.state_names}, got {len(states)}")
        self._keep(None if states is None else tuple(states), None)

    def _keep(self, states: tuple[Tensor, ...] | None, input_shapes: tuple[torch.Size, ...] | None) -> None:
        self.__dict__["_states"] = states
        self.__dict__["_input_shapes"] = input_shapes

    def reset(self) -> None:
        """Forget the states; the next call starts from ``init_states``."""
        self._keep(None, None)
        self.state_seqs = None

    def detach(self) -> None:
        """Cut the graph at the current states (truncated BPTT)."""
        states, input_shapes = self.__dict__["_states"], self.__dict__["_input_shapes"]
        if states is not None:
            self._keep(tuple(state.detach() for state in states), input_shapes)

    def explain(self, target: str | None = None, dtype: torch.dtype = torch.float32) -> Report:
        """What the core is compiled to; see :func:`flexsn.explain`."""
        from flexsn.explain import explain

        return explain(self, target, dtype)

    # ---- the call -----------------------------------------------------------------------------------------

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run ``T`` steps (``step_mode="m"``) or one (``"s"``), continuing from the last states."""
        if len(inputs) != self.num_inputs:
            raise ValueError(f"expected {self.num_inputs} input(s), got {len(inputs)}")
        multi_step = self.step_mode == "m"
        seqs = inputs if multi_step else tuple(x.unsqueeze(0) for x in inputs)
        time_dim = self.time_dim if multi_step else 0
        states = self.__dict__["_states"]
        input_shapes = tuple(x.shape[:time_dim] + x.shape[time_dim + 1 :] for x in seqs)
        if states is None:
            states = self._initial_states(inputs, time_dim)
        elif self.__dict__["_input_shapes"] not in (None, input_shapes):
            raise ValueError(
                f"the step shape changed from {_shapes(self.__dict__['_input_shapes'])} to {_shapes(input_shapes)} "
                f"while {type(self).__name__} still holds states; call reset() before a batch of another shape"
            )
        if self._requires_grad is not None:
            kept = zip((*seqs, *states), self._requires_grad, strict=True)
            cut = tuple(a if keep else a.detach() for a, keep in kept)
            seqs, states = cut[: self.num_inputs], cut[self.num_inputs :]
        outputs, finals, state_seqs = self._scanner(
            seqs,
            tuple(states),
            backend=self._backend,
            time_dim=time_dim,
            want_state_seqs=self.store_state_seqs,
            checkpoint=self.checkpoint,
        )
        self._check_num_outputs(len(outputs))
        self._keep(finals, input_shapes)
        if self.store_state_seqs:
            self.state_seqs = state_seqs if multi_step else finals
        if not multi_step:
            outputs = tuple(y.squeeze(0) for y in outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _initial_states(self, inputs: tuple[Tensor, ...], time_dim: int) -> tuple[Tensor, ...]:
        time_first = tuple(x.movedim(time_dim, 0) for x in inputs) if time_dim else inputs
        states = tuple(self.init_states(self.num_states, self.step_mode, *time_first))
        if len(states) != self.num_states:
            raise CoreError(f"init_states returned {len(states)} states, expected {self.num_states}")
        if self._example_dtypes is not None:
            dtypes = self._example_dtypes[self.num_inputs :]
            states = tuple(s.to(compute_dtype(d)) for s, d in zip(states, dtypes, strict=True))
        return states

    def _check_num_outputs(self, found: int) -> None:
        if self._num_outputs is None:
            self._num_outputs = found
        elif self._num_outputs != found:
            raise CoreError(
                f"num_outputs={self._num_outputs} contradicts the core, which returns {found} output(s) "
                f"and {self.num_states} new state(s)"
            )

    # ---- options ------------------------------------------------------------------------------------------

    @property
    def step_mode(self) -> str:
        """``"m"`` (inputs are sequences) or ``"s"`` (inputs are single steps)."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, step_mode: str) -> None:
        if step_mode not in ("m", "s"):
            raise ValueError(f'step_mode must be "m" (multi-step) or "s" (single-step), got {step_mode!r}')
        self._step_mode = step_mode

    @property
    def backend(self) -> str:
        """What runs the scan: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``."""
        return self._backend

    @backend.setter
    def backend(self, backend: str) -> None:
        self._backend = check_backend(backend)

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends that can run on this machine."""
        return supported_backends()

    # ---- nn.Module plumbing -------------------------------------------------------------------------------

    @property
    def _scanner(self) -> Scanner:
        scanner: Scanner | None = self.__dict__.get("_scanner_cache")
        if scanner is None:
            scanner = self.__dict__["_scanner_cache"] = Scanner(self.core, self.num_states)
        return scanner

    def __getattr__(self, name: str) -> Any:
        names = self.__dict__.get("state_names", ())
        if name in names:
            states = self.__dict__["_states"]
            return None if states is None else states[names.index(name)]
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        names = self.__dict__.get("state_names", ())
        if name in names and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            states = self.__dict__["_states"]
            if states is None:
                zero = torch.zeros((), dtype=value.dtype, device=value.device).expand(value.shape)
                states = (zero,) * len(names)
            position = names.index(name)
            self._keep((*states[:position], value, *states[position + 1 :]), None)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FlexSN:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        states = self.__dict__["_states"]
        if states is not None:
            self._keep(tuple(fn(state) for state in states), self.__dict__["_input_shapes"])
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_scanner_cache", None)
        for name in ("_states", "state_seqs"):
            if state[name] is not None:
                state[name] = tuple(value.detach() for value in state[name])
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> FlexSN:
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return clone

    def extra_repr(self) -> str:
        name = getattr(self.core, "__qualname__", type(self.core).__name__)
        return f"core={name}, states={self.state_names}, step_mode={self.step_mode!r}, backend={self.backend!r}"


def _shapes(shapes: Sequence[torch.Size]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)


class FlexSNKernel:
    """The stateless form: ``kernel(*input_seqs, *states) -> (*output_seqs, *state_seqs)``.

    Args:
        core: as for :class:`FlexSN`.
        num_inputs, num_states, num_outputs: the counts of the core.
        example_inputs, requires_grad: as for :class:`FlexSN`.
        backend: as for :class:`FlexSN`.
    """

    def __init__(
        self,
        core: Callable[..., Any],
        num_inputs: int,
        num_states: int,
        num_outputs: int,
        example_inputs: Sequence[Tensor] | None = None,
        requires_grad: Sequence[bool] | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        self._neuron = FlexSN(
            core, num_inputs, num_states, num_outputs, example_inputs, requires_grad, "m", backend, True
        )

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Scan the input sequences ``[T, ...]`` from the given states ``[...]``."""
        neuron = self._neuron
        expected = neuron.num_inputs + neuron.num_states
        if len(args) != expected:
            raise ValueError(f"expected {neuron.num_inputs} input sequence(s) and {neuron.num_states} state(s), "
                             f"got {len(args)} tensors")
        neuron.states = args[neuron.num_inputs :]
        outputs = neuron(*args[: neuron.num_inputs])
        state_seqs = neuron.state_seqs or ()
        neuron.reset()
        return (*(outputs if isinstance(outputs, tuple) else (outputs,)), *state_seqs)


