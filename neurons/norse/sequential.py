"""Norse's containers: a network of modules with and without state, and a module lifted over time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flexsn.neurons.arguments import check_flag, wrong
from flexsn.neurons.norse.base import NorseNeuron

__all__ = ["Lift", "RecurrentSequential", "RecurrentSequentialState", "SequentialState", "lift"]


def _has_state(module: nn.Module) -> bool:
    return "state" in inspect.signature(module.forward).parameters or isinstance(module, nn.RNNBase)


class SequentialState(nn.Sequential):
    """Modules one after the other; those that take a state get theirs, and a list of the new states comes back.

    Args:
        args: the modules.
        return_hidden: return the outputs of all modules in place of the last one's.

    Example:
        >>> from flexsn.neurons import norse
        >>> net = SequentialState(nn.Linear(3, 2), norse.LIF())
        >>> spikes, state = net(torch.rand(5, 1, 3))
        >>> spikes.shape, state[0], type(state[1]).__name__
        (torch.Size([5, 1, 2]), None, 'LIFFeedForwardState')
    """

    def __init__(self, *args: nn.Module, return_hidden: bool = False) -> None:
        check_flag(self, return_hidden=return_hidden)
        super().__init__(*args)
        self.return_hidden = return_hidden
        self.stateful_layers = [_has_state(module) for module in args]
        self.forward_state_hooks: list[Any] = []

    def register_forward_state_hooks(self, forward_hook: Callable[..., Any]) -> None:
        """``register_forward_hook`` on every module with a state.

        Raises:
            ValueError: there are hooks already.
        """
        if self.forward_state_hooks:
            raise ValueError("forward state hooks are there already; call remove_forward_state_hooks() first")
        stateful = [module for module, has in zip(self, self.stateful_layers, strict=True) if has]
        self.forward_state_hooks = [module.register_forward_hook(forward_hook) for module in stateful]

    def remove_forward_state_hooks(self) -> None:
        """Take them off again."""
        for handle in self.forward_state_hooks:
            handle.remove()
        self.forward_state_hooks = []

    def forward(self, input_tensor: Tensor, state: list[Any] | None = None) -> tuple[Any, list[Any]]:
        """``(output, states)``, from the given states or the initial ones."""
        states: list[Any] = [None] * len(self) if state is None else list(state)
        hidden, x = [], input_tensor
        for index, (module, has_state) in enumerate(zip(self, self.stateful_layers, strict=True)):
            if has_state:
                x, states[index] = module(x, states[index])
            else:
                x = module(x)
            hidden.append(x)
        return hidden if self.return_hidden else x, states


class RecurrentSequentialState(NamedTuple):
    """What is fed back, and the states of the modules."""

    cache: Any = None
    state: Any = None


class RecurrentSequential(nn.Module):
    """A :class:`SequentialState` whose output is added to its next input.

    Args:
        modules: as for :class:`SequentialState`; the output must have the shape of the input.
        output_modules: which modules' outputs come back and are fed back; the last one's by default.
    """

    def __init__(self, *modules: nn.Module, output_modules: list[int] | int = -1) -> None:
        super().__init__()
        if not isinstance(output_modules, (int, list, tuple)):
            raise wrong(self, "output_modules must be a number or a list of numbers", output_modules=output_modules)
        self.module = SequentialState(*modules, return_hidden=True)
        self.output_modules = output_modules

    def forward(self, x: Tensor, state: RecurrentSequentialState | None = None) -> tuple[Any, RecurrentSequentialState]:
        """``(output, state)`` of one step."""
        if state is None:
            state = RecurrentSequentialState()
        else:
            x = torch.stack((x, state.cache)).sum(0)
        hidden, states = self.module(x, state.state)
        chosen = self.output_modules
        outputs = hidden[chosen] if isinstance(chosen, int) else [hidden[i] for i in chosen]
        return outputs, RecurrentSequentialState(outputs, states)


class Lift(nn.Module):
    """A module of single steps, run over the first axis; a cell of this preset in one scan.

    Args:
        module: with or without a state.

    Example:
        >>> from flexsn.neurons import norse
        >>> spikes, state = Lift(norse.LIFCell())(torch.rand(5, 3))
        >>> spikes.shape
        torch.Size([5, 3])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise wrong(self, "module must be a torch.nn.Module", module=module)
        self.lifted_module = module
        self.is_stateful = _has_state(module)

    def forward(self, x: Tensor | tuple[Tensor, Any]) -> Any:
        """The outputs of all steps, with the last state if there is one; ``x`` may be ``(x, state)``."""
        x, state = x if isinstance(x, tuple) else (x, None)
        if isinstance(self.lifted_module, NorseNeuron):
            return self.lifted_module.multi_step_forward(x, state)
        outputs = []
        for step in x.unbind():
            if self.is_stateful:
                y, state = self.lifted_module(step, state)
            else:
                y = self.lifted_module(step)
            outputs.append(y)
        return (torch.stack(outputs), state) if self.is_stateful else torch.stack(outputs)


def lift(activation: Callable[..., Any], p: Any = None) -> Callable[..., tuple[Tensor, Any]]:
    """A function of one step, run over the first axis: ``lifted(x_seq, state=None, ...) -> (y_seq, state)``."""

    def lifted(x_seq: Tensor, state: Any = None, **options: Any) -> tuple[Tensor, Any]:
        options = options if p is None else {"p": p, **options}
        outputs = []
        for x in x_seq.unbind():
            y, state = activation(x, **options) if state is None else activation(x, state=state, **options)
            outputs.append(y)
        return torch.stack(outputs), state

    return lifted
