"""What snnTorch's neurons share: their arguments, how they are called, how they fire and reset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn import FlexSN, surrogate
from flexsn.neurons.arguments import (
    MaskArguments,
    Number,
    SequenceOptions,
    SpikeFunction,
    check_callable,
    check_flag,
    float_tensor,
    shown,
    step_shape,
    wrong,
)
from flexsn.neurons.base_node import StepView
from flexsn.neurons.peer_class import PeerClass
from flexsn.neurons.snntorch import quant
from flexsn.neurons.snntorch import surrogate as factories

__all__ = ["CommonOptions", "Options", "Returned", "SpikingNeuron", "by_position"]

RESET_MECHANISMS = ("subtract", "zero", "none")
Quantizer = SpikeFunction | bool
Returned = Tensor | tuple[Tensor, ...]


class CommonOptions(SequenceOptions, total=False):
    """The common arguments whose default is the same for all; see :class:`SpikingNeuron`."""

    threshold: Number
    spike_grad: SpikeFunction | None
    surrogate_disable: bool
    init_hidden: bool
    inhibition: bool
    learn_threshold: bool
    state_quant: Quantizer
    output: bool
    graded_spikes_factor: Number
    learn_graded_spikes_factor: bool
    step_mode: str
    backend: str
    store_state_seqs: bool


class Options(CommonOptions, total=False):
    """All common arguments."""

    reset_mechanism: str


def by_position(
    *own: str, learned: tuple[str, ...], fed_back: tuple[str, ...] = (), last: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """snnTorch's order: what is learned of a neuron's own stands amid the common arguments."""
    fires = "threshold", "spike_grad", "surrogate_disable", "init_hidden", "inhibition"
    return (*own, *fires, *learned, "learn_threshold", *fed_back, "reset_mechanism", "state_quant", "output", *last)


class SpikingNeuron(FlexSN, metaclass=PeerClass):
    """The arguments and the calling convention all of them share.

    Args:
        threshold: membrane above which it fires; a number or a tensor that broadcasts against the step shape.
        spike_grad: the spike function; by default ``ATan(2.0, strict=True)``. snnTorch's own work as well.
        surrogate_disable: spike without a gradient, whatever ``spike_grad`` says.
        init_hidden: a single-step call returns the spikes alone, and takes no states.
        inhibition: only the neuron of a sample with the largest membrane (along dimension 1 of a step) may fire. It
            compares neurons with each other, so it runs as the torch loop.
        learn_threshold: make ``threshold`` a parameter.
        reset_mechanism: ``"subtract"``, ``"zero"`` or ``"none"``.
        state_quant: a pointwise function applied to every new state, such as one of
            ``flexsn.neurons.snntorch.quant``, or ``False``.
        output: return the states along with the spikes, in either step mode.
        graded_spikes_factor: what a spike counts; a number or a tensor.
        learn_graded_spikes_factor: make ``graded_spikes_factor`` a parameter.
        step_mode: ``"s"``: inputs are single steps; ``"m"``: inputs are sequences ``[T, ...]``.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.
        store_state_seqs: keep the states of every step of a call in ``state_seqs``.

    Shapes:
        input ``[*step]`` (``"s"``) or ``[T, *step]`` (``"m"``), spikes alike; states ``[*step]``.

    Returns:
        ``"s"``: ``(spk, *states)``; the spikes alone with ``init_hidden=True``, unless ``output=True``.
        ``"m"``: the spikes of all steps; with ``output=True`` also the states of all steps.

    Raises:
        ValueError: an argument outside its range, with the value and the rule.
        TypeError: a call with states although ``init_hidden=True``.

    Attributes:
        instances: every neuron there is, of this class or of snnTorch's, as ``reset_hidden`` needs it.
        num_drives: how many inputs :meth:`drives` makes of one.
    """

    integers_as_floats: ClassVar[bool] = True
    instances: ClassVar[list[Any]] = []
    reset_dict: ClassVar[Mapping[str, int]] = {name: i for i, name in enumerate(RESET_MECHANISMS)}
    num_drives: ClassVar[int] = 1

    threshold: Tensor
    graded_spikes_factor: Tensor
    reset_mechanism_val: Tensor

    def __init__(
        self,
        threshold: Number = 1.0,
        spike_grad: SpikeFunction | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Quantizer = False,
        output: bool = False,
        graded_spikes_factor: Number = 1.0,
        learn_graded_spikes_factor: bool = False,
        *,
        step_mode: str = "s",
        backend: str = "auto",
        store_state_seqs: bool = False,
        detach_every: int | None = None,
        time_reduction: str | None = None,
        rate: bool = False,
    ) -> None:
        options: SequenceOptions = {"detach_every": detach_every, "time_reduction": time_reduction, "rate": rate}
        spike = surrogate.ATan(2.0, strict=True) if spike_grad is None else factories.understood(spike_grad)
        core = getattr(type(self), "core", None)  # without one there is an error to come
        names = tuple(inspect.signature(core).parameters)[1 + self.num_drives :] if core else ()
        counts: dict[str, Any] = {"num_inputs": self.num_drives, "num_states": len(names)}
        if isinstance(spike, factories.Stochastic) and not surrogate_disable:
            self.core = MethodType(SpikingNeuron._drawn_core, self)
            counts["num_inputs"] += 1
        super().__init__(step_mode=step_mode, backend=backend, store_state_seqs=store_state_seqs, **counts, **options)
        self.state_names = names
        flags = {
            "surrogate_disable": surrogate_disable,
            "init_hidden": init_hidden,
            "output": output,
            "inhibition": inhibition,
        }
        check_flag(self, **flags, store_state_seqs=store_state_seqs)
        check_callable(self, "flexsn.surrogate.ATan(strict=True)", spike_grad=spike)
        if state_quant and not callable(state_quant):
            raise wrong(self, "state_quant must be a pointwise function or False", state_quant=state_quant)
        self.spike_grad = partial(surrogate.heaviside, strict=True) if surrogate_disable else spike
        self.surrogate_disable = surrogate_disable
        self.init_hidden = init_hidden
        self.inhibition = inhibition
        self.state_quant = quant.understood(state_quant)
        self.output = output
        self._hold(learn_threshold, threshold=threshold)
        self._hold(learn_graded_spikes_factor, graded_spikes_factor=graded_spikes_factor)
        self.register_buffer("reset_mechanism_val", torch.tensor(0))
        self.reset_mechanism = reset_mechanism
        for known in type(self).__mro__:  # snnTorch's own list, where it is installed, comes last
            if "instances" in vars(known):
                vars(known)["instances"].append(self)

    def _number(self, name: str, value: Number) -> Tensor:
        tensor = float_tensor(self, name, value)
        if not tensor.is_meta and bool(tensor.isnan().any()):
            raise wrong(self, f"{name} must not be NaN", **{name: value})
        return tensor

    def _hold(self, learn: bool, **values: Number) -> None:
        for name, value in values.items():
            check_flag(self, **{f"learn_{name}": learn})
            tensor = SpikingNeuron._number(self, name, value)  # LeakyParallel has this method alone
            if learn or isinstance(value, nn.Parameter):
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    @property
    def reset_mechanism(self) -> str:
        """``"subtract"``, ``"zero"`` or ``"none"``; settable."""
        return self._reset_mechanism

    @reset_mechanism.setter
    def reset_mechanism(self, reset_mechanism: str) -> None:
        if reset_mechanism not in RESET_MECHANISMS:
            choices = f"{', '.join(map(repr, RESET_MECHANISMS[:-1]))} or {RESET_MECHANISMS[-1]!r}"
            raise wrong(self, f"reset_mechanism must be {choices}", reset_mechanism=reset_mechanism)
        self._reset_mechanism = reset_mechanism
        self.reset_mechanism_val.fill_(RESET_MECHANISMS.index(reset_mechanism))

    # ---- the parts of a step ------------------------------------------------------------------------------

    def mem_reset(self, mem: Tensor) -> Tensor:
        """The reset signal: the spike of the membrane the step starts from, without gradient."""
        return self.spike_grad(mem - self.threshold).detach()

    def fire(self, mem: Tensor) -> Tensor:
        """The spike of the new membrane, times ``graded_spikes_factor``; of one neuron only under ``inhibition``."""
        if self.inhibition:
            return self.fire_inhibition(len(mem), mem)
        spk: Tensor = self.spike_grad(self.quantized(mem) - self.threshold) * self.graded_spikes_factor
        return spk

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> Tensor:
        """The spikes of the largest membranes along dimension 1."""
        shift = mem - self.threshold
        largest = torch.zeros_like(shift).scatter(1, shift.argmax(1, keepdim=True), 1.0)
        spk: Tensor = self.spike_grad(shift) * largest
        return spk

    def charged(self, x: Tensor, **states: Tensor) -> Any:
        """The states after the input, before the reset: what ``_base_state_function`` makes of them."""
        return StepView(self, states)._base_state_function(x)

    def quantized(self, state: Tensor) -> Tensor:
        """``state_quant`` of a state, if there is one."""
        return self.state_quant(state) if callable(self.state_quant) else state

    def _drawn_core(self, *arguments: Tensor) -> Any:
        """The core where the slopes of the spikes are drawn: they come as the last input."""
        step, u = StepView(self, {}), arguments[self.num_drives]
        step.__dict__["spike_grad"] = cast(Any, self.spike_grad).given(u)
        return type(self).core(step, *arguments[: self.num_drives], *arguments[self.num_drives + 1 :])

    def reset_at_once(self, mem: Tensor, reset: Tensor, spk: Tensor) -> Tensor:
        """``reset_delay=False``: reset in the very step of the spike, where ``reset`` has not done so yet."""
        due = spk / self.graded_spikes_factor - reset
        if self.reset_mechanism == "subtract":
            return mem - due * self.threshold
        return mem - due * mem if self.reset_mechanism == "zero" else mem

    # ---- the call -----------------------------------------------------------------------------------------

    def drives(self, input_: Tensor) -> tuple[Tensor, ...]:
        """What the core is given of an input: here the input, in a layer what its weights make of it."""
        return (input_,)

    def forward(  # type: ignore[override]
        self, input_: Tensor, *states: Tensor | None, **masks: Unpack[MaskArguments]
    ) -> Returned:
        """Run one step (``"s"``) or all (``"m"``), from the given states or else from the last ones.

        States of another shape than the step's start at 0.
        """
        given = [state is not None for state in states]
        if any(given) and self.init_hidden:
            raise TypeError(
                f"{type(self).__name__}(init_hidden=True) keeps its own states; call it with the input alone"
            )
        drives = self.drives(input_)
        if any(given):
            kept = self.states or FlexSN.init_states(self.num_states, self.step_mode, *drives)
            self.states = [k if s is None else s for s, k in zip(states, kept, strict=True)]
        if self.states is not None:
            shape = step_shape(self, drives[0])
            if any(state.shape != shape for state in self.states):
                zeros = FlexSN.init_states(self.num_states, self.step_mode, *drives)
                self.states = [k if k.shape == shape else z for k, z in zip(self.states, zeros, strict=True)]
        if self.num_inputs > self.num_drives:
            drives = (*drives, torch.rand_like(drives[0]))
        if self.step_mode == "m":
            self.store_state_seqs |= self.output
            spk_seq: Tensor = super().forward(*drives, **masks)  # type: ignore[assignment]
            return self._with_states(spk_seq, self.state_seqs) if self.output else spk_seq
        spk: Tensor = super().forward(*drives, **masks)  # type: ignore[assignment]
        return spk if self.init_hidden and not self.output else self._with_states(spk, self.states)

    def _with_states(self, spk: Tensor, states: tuple[Tensor, ...] | None) -> Returned:
        """The spikes, and the states that are not the spikes."""
        named = zip(self.state_names, states or (), strict=states is not None)
        return (spk, *(state for name, state in named if name != "spk"))

    _advance = forward

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        is_state = "_flexsn" in self.__dict__ and name in self.state_names
        return self.threshold.new_zeros(0) if is_state and value is None else value

    @classmethod
    def init(cls) -> None:
        """Forget which neurons there are."""
        SpikingNeuron.instances = []

    @classmethod
    def reset_hidden(cls) -> None:
        """``reset_mem()`` of every neuron of this class."""
        for neuron in SpikingNeuron.instances:
            if isinstance(neuron, cls):
                neuron.reset_mem()

    @classmethod
    def detach_hidden(cls) -> None:
        """``detach()`` of every neuron of this class."""
        for neuron in SpikingNeuron.instances:
            if isinstance(neuron, cls):
                neuron.detach()

    def reset_mem(self) -> Returned:
        """Forget the states; returns a placeholder for each, to start a loop with."""
        self.reset()
        empty = tuple(self.threshold.new_zeros(0) for _ in range(self.num_states))
        return empty[0] if len(empty) == 1 else empty

    def extra_repr(self) -> str:
        seen: dict[str, Any] = {**self._parameters, **self._buffers}
        del seen["reset_mechanism_val"]
        seen |= {name: getattr(self, name) for name in ("reset_mechanism", "step_mode", "backend")}
        return ", ".join(f"{name}={shown(value)}" for name, value in seen.items())
