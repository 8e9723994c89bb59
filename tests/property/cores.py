"""Random cores: small programs over the op table, with states, parameters, spikes and everything a user may do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from flexsn import surrogate

# ---- spikes of every style -----------------------------------------------------------------------------------------


class _Triangle(torch.autograd.Function):
    """Values kept on ``ctx``, a mask by in-place multiplication."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        slope = (1 - ctx.x.abs()).clamp(min=0)
        return slope.mul_(grad)


class _Window(torch.autograd.Function):
    """New style, with ``setup_context``."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() < 0.5, grad, torch.zeros_like(grad))


def _straight_through(x: Tensor) -> Tensor:
    soft = (x + 1).clamp(0, 2) * 0.5
    return soft + ((x >= 0).to(x.dtype) - soft).detach()


_SURROGATES = [surrogate.ATan(2.0), surrogate.PiecewiseQuadratic(1.0), surrogate.SoftSign(2.0)]
SPIKES: dict[str, Callable[[Tensor], Tensor]] = {
    **{type(s).__name__: s for s in _SURROGATES},
    "triangle": _Triangle.apply,
    "window": _Window.apply,
    "straight_through": _straight_through,
}

# ---- instructions ---------------------------------------------------------------------------------------------------

FLOAT1: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": lambda a: -a,
    "abs": torch.abs,
    "relu": torch.relu,
    "square": lambda a: a**2,
    "leak": lambda a: a * 0.75,
    "decay": lambda a: a / 3.0,
    "shift": lambda a: a - 0.5,
    "from_one": lambda a: 1.0 - a,
    "clamp": lambda a: a.clamp(-2.0, 2.0),
    "clamp_min": lambda a: a.clamp(min=-1.0),
    "detach": torch.Tensor.detach,
    "floor": torch.floor,
    "round": torch.round,
    "sign": torch.sign,
    "hardtanh": torch.nn.functional.hardtanh,
    "in_place": lambda a: a.clone().mul_(0.5).add_(0.25),
    "zeros": torch.zeros_like,
}
FLOAT2: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "soft_div": lambda a, b: a / (b.abs() + 1.0),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mix": lambda a, b: a + (b - a) * 0.25,
}
CLOSE1: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda a: (-a.abs()).exp(),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
COMPARE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lt": torch.lt, "ge": torch.ge, "eq": torch.eq}
LOGIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "and": torch.logical_and,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}

PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": torch.nn.functional.linear,
    "matmul": lambda a, w: a @ w,
    "transposed": lambda a, w: (w.t() @ a.t()).t() if a.dim() == 2 else a @ w.t(),
    "einsum": lambda a, w: torch.einsum("...j,ij->...i", a, w),
    "biased": lambda a, w: torch.nn.functional.linear(a, w, w[0]),
    "without_diagonal": lambda a, w: a @ w.masked_fill(torch.eye(len(w), dtype=torch.bool), 0.0),
}

FLOAT, BOOL, INT, MATRIX = "float", "bool", "int", "matrix"


@dataclass(frozen=True)
class Step:
    """One instruction: ``op`` on earlier values, giving a value of ``kind``."""

    op: str
    args: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Parameter:
    """A captured tensor: its shape by name, what the core does with it first, and whether it is a buffer."""

    shape: str
    prologue: str
    buffer: bool


@dataclass
class Core:
    """A core that runs a list of instructions.

    Values are numbered: inputs, states, parameters, then one per instruction.
    """

    num_inputs: int
    states: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    new_states: tuple[int, ...]
    tensors: list[Tensor] = field(default_factory=list, repr=False)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        values = dict(enumerate(arguments))
        first = len(arguments)
        for i, (parameter, tensor) in enumerate(zip(self.parameters, self.tensors, strict=True), first):
            values[i] = PROLOGUES[parameter.prologue](tensor)
        first += len(self.parameters)
        returned = (*self.outputs, *self.new_states)
        multiplies = any(step.op in PRODUCTS for step in self.steps)
        needed = self._needed(returned, first) if multiplies else set(range(first, first + len(self.steps)))
        for i in sorted(needed):
            step = self.steps[i - first]
            values[i] = _run(step.op, [values[j] for j in step.args], arguments[0].dtype)
        if multiplies:  # a smaller example gets the shape of the matrix by it
            of_step = self._of_step(first)
            return tuple(values[i] if of_step[i] else values[i].expand_as(arguments[0]) for i in returned)
        shape = arguments[0].shape
        return tuple(values[i] if values[i].shape == shape else values[i].expand(shape) for i in returned)

    def _needed(self, returned: Sequence[int], first: int) -> set[int]:
        """The instructions that what is returned depends on: a product of nothing may leave no shape to trace at."""
        needed: set[int] = set()
        for i in (waiting := list(returned)):  # grows
            if i >= first and i not in needed:
                needed.add(i)
                waiting += self.steps[i - first].args
        return needed

    def _of_step(self, first: int) -> list[bool]:
        """Which values are computed of inputs or states."""
        found = [i < first - len(self.parameters) for i in range(first)]
        for step in self.steps:
            found.append(any(found[i] for i in step.args))
        return found


def _run(op: str, args: list[Tensor], dtype: torch.dtype) -> Tensor:
    if op in SPIKES:
        return SPIKES[op](args[0])
    for table in (FLOAT1, FLOAT2, CLOSE1, COMPARE, LOGIC, PRODUCTS):
        if op in table:
            return table[op](*args)
    if op == "where":
        return torch.where(args[0], args[1], args[2])
    if op == "not":
        return ~args[0]
    if op == "to_float":
        return args[0].to(dtype)
    if op == "count_down":
        return torch.where(args[0], 3, (args[1] - 1).clamp(min=0))
    if op == "positive":
        return args[0] > 0
    raise AssertionError(op)


PROLOGUES: dict[str, Callable[[Tensor], Tensor]] = {
    "as_is": lambda p: p,
    "sigmoid": torch.sigmoid,
    "halved": lambda p: p * 0.5,
    "softmax": lambda p: torch.softmax(p.flatten(), 0).view(p.shape) if p.dim() else torch.sigmoid(p),
}

SHAPES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "scalar": lambda step: (),
    "channel": lambda step: (step[1], *(1,) * (len(step) - 2)),
    "batch": lambda step: (step[0], *(1,) * (len(step) - 1)),
    "last": lambda step: (step[-1],),
    "full": lambda step: step,
    "square": lambda step: (step[-1], step[-1]),
}


@st.composite
def cores(draw: Callable[[Any], Any], exact: bool = True, products: bool = False) -> Core:
    """Random cores; ``exact`` leaves out what is only close to torch, ``products`` puts in what reads across lanes."""
    num_inputs = draw(st.integers(1, 3))
    states = tuple(draw(st.lists(st.sampled_from([FLOAT, FLOAT, FLOAT, INT, BOOL]), max_size=3)))
    prologues = list(PROLOGUES)[
        :: 2 if exact else 1
    ]  # a sigmoid is computed by torch itself, so it is exact either way
    parameters = tuple(
        draw(
            st.lists(
                st.builds(Parameter, st.sampled_from(list(SHAPES)[:-1]), st.sampled_from(prologues), st.booleans()),
                max_size=2,
            )
        )
    )
    kinds = [FLOAT] * num_inputs + list(states) + [FLOAT] * len(parameters)
    if products:
        matrices = st.builds(Parameter, st.just("square"), st.sampled_from(["as_is", "halved"]), st.booleans())
        parameters += tuple(draw(st.lists(matrices, min_size=1, max_size=2)))
        kinds += [MATRIX] * (len(parameters) + num_inputs + len(states) - len(kinds))
    steps: list[Step] = []

    of_step = [True] * (num_inputs + len(states)) + [False] * len(parameters)

    def pick(kind: str, among: Sequence[bool] | None = None) -> int:
        possible = [i for i in reversed(range(len(kinds))) if kinds[i] == kind and (among is None or among[i])]
        return draw(st.sampled_from(possible))

    tables = [FLOAT1, FLOAT2, SPIKES] if exact else [FLOAT1, FLOAT2, SPIKES, CLOSE1]
    for _ in range(draw(st.integers(1, 9))):
        ops = [(op, FLOAT) for table in tables for op in table] + [(op, BOOL) for op in COMPARE]
        if BOOL in kinds:
            ops += [(op, BOOL) for op in LOGIC] + [("not", BOOL), ("where", FLOAT), ("to_float", FLOAT)]
            ops += [("count_down", INT)] if INT in kinds else []
        if INT in kinds:
            ops += [("positive", BOOL), ("to_float", FLOAT)]
        if products:  # the first one, and each as likely as all others of one table
            ops = [(op, FLOAT) for op in PRODUCTS] + (ops if steps else [])
        op, kind = draw(st.sampled_from(ops))
        args = tuple(pick(k, of_step if op in PRODUCTS and k == FLOAT else None) for k in _arguments(op, kinds))
        steps.append(Step(op, args, kind))
        kinds.append(kind)
        of_step.append(any(of_step[i] for i in args))
    returned = [i for i, kind in enumerate(kinds) if kind != MATRIX and (of_step[i] or not products)]
    outputs = tuple(draw(st.lists(st.sampled_from(returned), min_size=1, max_size=3)))
    return Core(num_inputs, states, parameters, tuple(steps), outputs, tuple(pick(kind) for kind in states))


def _arguments(op: str, kinds: list[str]) -> tuple[str, ...]:
    """The kinds of value an instruction reads."""
    if op in COMPARE or op in FLOAT2:
        return (FLOAT, FLOAT)
    if op in LOGIC:
        return (BOOL, BOOL)
    if op in PRODUCTS:
        return (FLOAT, MATRIX)
    special = {
        "where": (BOOL, FLOAT, FLOAT),
        "not": (BOOL,),
        "to_float": (INT if INT in kinds else BOOL,),
        "count_down": (BOOL, INT),
        "positive": (INT,),
    }
    return special.get(op, (FLOAT,))
