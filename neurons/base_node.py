"""Neurons written as methods that assign ``self.v``: BaseNode, SimpleBaseNode, AdaptBaseNode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any, ClassVar, cast

from torch import Tensor
from torch.compiler import is_compiling

from flexsn import FlexSN, UnsupportedOpError, scan
from flexsn.neurons.adaptive import AdaptiveNeuron
from flexsn.neurons.arguments import Number, with_arguments_of, wrong
from flexsn.neurons.base import SpikingNeuron
from flexsn.neurons.readout import NonSpikingIF

__all__ = ["AdaptBaseNode", "BaseNode", "FedBack", "NonSpikingBaseNode", "SimpleBaseNode", "StepView"]

_HOOKS = ("neuronal_charge", "neuronal_adaptation", "neuronal_fire", "neuronal_reset")


class StepView:
    """``self`` inside the methods of one step.

    Holds the states of that step; everything else is read and written through to the neuron. What a kernel is
    made of writes nothing but states. ``__class__`` is the neuron's, which is what makes ``isinstance(self, ...)``
    and ``super()`` work inside them.
    """

    def __init__(self, neuron: FlexSN, states: Mapping[str, Tensor]) -> None:
        # free in a kernel: `self.v += x` changes no one else's
        self.__dict__.update({name: state.clone() for name, state in states.items()}, _neuron=neuron)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.__dict__["_neuron"])

    def __getattr__(self, name: str) -> Any:
        neuron = self.__dict__["_neuron"]
        attribute = getattr(type(neuron), name, None)
        if isinstance(attribute, property) and attribute.fget is not None:
            return attribute.fget(self)
        value = getattr(neuron, name)
        if isinstance(value, MethodType) and value.__self__ is neuron:
            return MethodType(value.__func__, self)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        neuron = self.__dict__["_neuron"]
        if name in self.__dict__:
            self.__dict__[name] = value
        elif neuron._recorded():
            raise UnsupportedOpError(
                f"a step sets self.{name}, which is not a state",
                why="a kernel is made from one run of the step: what it does to Python objects would happen once",
                hint=f"in __init__, self.register_memory({name!r}, 0.0) makes it a state",
            )
        else:
            setattr(neuron, name, value)


class FedBack(FlexSN):
    """A neuron that feeds a product of its states back, which in a call of one step torch computes ahead of the kernel.

    A matrix that is read for one step alone is multiplied fastest so, and what is left of the step is pointwise.

    Attributes:
        product: the method that multiplies in a step; ``None`` where none does. A core that calls it once, with states
            alone, says so by ``core.multiplies_once``.
    """

    product: ClassVar[str | None] = "recurrence"

    def _multiplied(self, *states: Tensor) -> tuple[Tensor, ...]:
        """What ``product`` makes of the states, all of them given."""
        raise NotImplementedError

    def _behind_product(self, *arguments: Tensor) -> Any:
        """The step, of inputs, products and states."""
        products, step = len(arguments) - self.num_inputs - self.num_states, StepView(self, {})
        states = self.num_inputs + products
        back = arguments[self.num_inputs : states]
        step.__dict__[cast(str, self.product)] = lambda *_: back if products > 1 else back[0]
        return type(self).core(step, *arguments[: self.num_inputs], *arguments[states:])

    def _scan(self, inputs: Any, states: Any, options: Any, masks: Any = None) -> Any:
        plain = options.single_step and masks is None and options.backend != "torch" and not is_compiling()
        if self.product is None or not (plain and getattr(self.core, "multiplies_once", False)):
            return super()._scan(inputs, states, options, masks)
        given = (*inputs, *(back.unsqueeze(0) for back in self._multiplied(*states)))
        if options.wanted_states:
            y, finals, state_seqs = scan(self._behind_product, given, states, options.backend, return_state_seqs=True)
            return (y,), finals, state_seqs
        y, finals = scan(self._behind_product, given, states, options.backend)
        return (y,), finals, ()


def _in_a_step(node: object) -> bool:
    return type(node) is StepView


class BaseNode(SpikingNeuron):
    """A neuron by its charge alone: a subclass writes ``neuronal_charge(self, x)``, which assigns ``self.v``.

    One step runs ``neuronal_charge(x)``, ``s = neuronal_fire()``, ``neuronal_reset(s)``; each may be
    overridden, and so may :meth:`single_step_forward`, which is the three. They may read any attribute and assign any
    state. Further states are made by :meth:`register_memory`. The step is traced and compiled like every core; one
    that sets other attributes too runs as the torch loop. Source: the class of this name in SpikingJelly.

    Args:
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``); states ``[*step]``.

    States:
        ``v``; before the first step ``v_reset`` (0 if ``None``), which is also what the attribute then reads.

    Example:
        >>> import torch
        >>> class SquareIFNode(BaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + x ** 2
        >>> node = SquareIFNode()
        >>> for x in (0.75, 0.8125, 0.6875):
        ...     print(node(torch.tensor([x])).item(), node.v.item())
        0.0 0.5625
        1.0 0.0
        0.0 0.47265625
    """

    v: Any  # the state, as a step sees and assigns it

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self, *common: Any, learnable: Sequence[str] = (), shape: Sequence[int] = (), **coefficients: Any
    ) -> None:
        counts = {"num_inputs": 1, "num_states": len(self.starts)}
        super().__init__(learnable=learnable, shape=shape, counts=counts, **coefficients)
        self.state_names = tuple(self.starts)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hooks = [name for name in _HOOKS if name in vars(cls)]
        if hooks and not getattr(cls.core, "runs_hooks", False):
            raise TypeError(f"{cls.__name__} defines {hooks[0]}, which its base class does not call")

    def register_memory(self, name: str, value: Number) -> None:
        """Make ``self.<name>`` a further state that starts at ``value``; call it in ``__init__``."""
        if hasattr(self, name):
            raise wrong(self, f"{name} is an attribute already, it cannot become a state", name=name)
        if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
            raise wrong(self, f"the state {name} must start at a number or a tensor", value=value)
        self.state_names = (*self.state_names, name)
        self.set_reset_value(name, value)

    def set_reset_value(self, name: str, value: Number) -> None:
        """Let the state ``name`` start at ``value`` from the next ``reset()`` on."""
        if name not in self.state_names:
            raise wrong(self, f"there is no state {name}, only {', '.join(self.state_names)}", name=name)
        self.__dict__["starts"] = {**self.starts, name: value}

    def get_reset_value(self, name: str) -> Number:
        """Where the state ``name`` starts."""
        if name not in self.state_names:
            raise KeyError(f"{name} is not a registered memory")
        return self.start_of(name)

    def neuronal_charge(self, x: Tensor) -> None:
        """Assign the charged membrane to ``self.v``."""
        self.v = self.charge(x, self.v)

    def neuronal_fire(self) -> Tensor:
        """The spike of the charged ``self.v``."""
        return self.fire(self.v)

    def neuronal_reset(self, spike: Tensor) -> None:
        """Assign the membrane after the spike to ``self.v``."""
        self.v = self.discharge(self.v, spike)

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError(f"{self.__class__.__name__} must define neuronal_charge(self, x)")

    def single_step_forward(self, *inputs: Any, **options: Any) -> Any:
        """One step, whatever the step mode. What a subclass makes of it is compiled, in either mode."""
        cls = self.__class__
        overridden = cls.single_step_forward is not BaseNode.single_step_forward
        if not _in_a_step(self) and not (overridden and getattr(cls.core, "runs_hooks", False)):
            return super().single_step_forward(*inputs, **options)
        self.v_float_to_tensor(inputs[0])
        return self._hooks(*inputs)

    def v_float_to_tensor(self, x: Tensor) -> None:
        """Bring states that are still numbers into the shape of the step ``x``; done before every step."""
        if not _in_a_step(self) and self.states is None:
            self.states = self._started(tuple(self.init_states(self.num_states, "s", x)))

    def _hooks(self, x: Tensor) -> Any:
        self.neuronal_charge(x)
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike

    def core(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        step: Any = StepView(self, dict(zip(self.state_names, states, strict=True)))
        returned = step.single_step_forward(x)
        outputs = returned if isinstance(returned, (tuple, list)) else (returned,)
        return (*outputs, *(step.__dict__[name] for name in self.state_names))

    core.runs_hooks = True  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        is_state = "_flexsn" in self.__dict__ and name in self.state_names
        return self.start_of(name) if is_state and value is None else value


class SimpleBaseNode(BaseNode):
    """As :class:`BaseNode`, with a membrane that starts at 0 whatever ``v_reset`` is.

    Example:
        >>> import torch
        >>> class Leaky(SimpleBaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v * 0.5 + x
        >>> Leaky(step_mode="m")(torch.tensor([0.75, 0.75, 0.25])).tolist()
        [0.0, 1.0, 0.0]
    """

    starts: ClassVar[Mapping[str, float | str]] = {"v": 0.0}


class AdaptBaseNode(AdaptiveNeuron, BaseNode):
    """As :class:`BaseNode`, with an adaptation current ``w`` that ``neuronal_charge`` may read.

    One step: ``neuronal_charge(x)``, ``neuronal_adaptation()``, ``s = neuronal_fire()``,
    ``neuronal_reset(s)``.
    By default ``w ← w + (a (v − v_rest) − w)/tau_w`` after the charge, and ``w ← w + b s`` after a spike.

    Args:
        v_rest, w_rest, tau_w, a, b: as for :class:`~flexsn.neurons.adaptive.AdaptiveNeuron`; after
            ``v_threshold`` and ``v_reset``, as in SpikingJelly.

    States:
        ``v`` from ``v_reset``, ``w`` from ``w_rest``.

    Example:
        >>> import torch
        >>> class AdaptiveIF(AdaptBaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + x - self.w
        >>> node = AdaptiveIF(tau_w=4.0, b=0.5, step_mode="m")
        >>> node(torch.ones(5)).tolist()
        [1.0, 0.0, 1.0, 0.0, 0.0]
    """

    w: Any  # the state, as a step sees and assigns it

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        v_rest: Number = 0.0,
        w_rest: Number = 0.0,
        tau_w: Number = 2.0,
        a: Number = 0.0,
        b: Number = 0.0,
        *common: Any,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
        **coefficients: Any,
    ) -> None:
        coefficients = {"v_rest": v_rest, "w_rest": w_rest, "tau_w": tau_w, "a": a, "b": b, **coefficients}
        super().__init__(v_threshold, v_reset, learnable=learnable, shape=shape, **coefficients)

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.charge(x, self.v, self.w)

    def neuronal_adaptation(self) -> None:
        """Assign the adaptation current before the spike to ``self.w``."""
        self.w = self.adapt(self.v, self.w)

    def neuronal_reset(self, spike: Tensor) -> None:
        self.v = self.discharge(self.v, spike)
        self.w = self.w + self.b * spike

    def charge(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        return BaseNode.charge(self, x, v)

    def _hooks(self, x: Tensor) -> Any:
        self.neuronal_charge(x)
        self.neuronal_adaptation()
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike

    core = BaseNode.core  # type: ignore[assignment]


class NonSpikingBaseNode(NonSpikingIF):
    """A membrane without spikes by its charge alone: a subclass writes ``neuronal_charge(self, x)``, as for BaseNode.

    Args:
        decode, step_mode, backend, store_v_seq: as for :class:`~flexsn.neurons.NonSpikingIF`, with its shapes.

    Example:
        >>> import torch
        >>> class Halving(NonSpikingBaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v / 2 + x
        >>> Halving()(torch.ones(3)).tolist()
        [1.0, 1.5, 1.75]
    """

    v: Any  # the state, as a step sees and assigns it

    def neuronal_charge(self, x: Tensor) -> None:
        """Assign the membrane after the input to ``self.v``."""
        raise NotImplementedError(f"{self.__class__.__name__} must define neuronal_charge(self, x)")

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        step: Any = StepView(self, {"v": v})
        step.neuronal_charge(x)
        return step.v, step.v
