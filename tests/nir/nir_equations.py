"""NIR by hand: every node one step after the other, from its equation, in fp64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Edge = tuple[str, str]


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values)).double()


class ByHand:
    """A graph, run by asking each output at each step for its value, and so on back to the inputs.

    Args:
        graph: of NIR.
        dt, method, reset: as for ``from_nir``.
        net: what ``from_nir`` made of it, to know which edges carry the value of the step before, and shapes.
    """

    def __init__(self, graph: Any, dt: float, method: str, reset: str, net: Any) -> None:
        self.dt, self.method, self.reset = dt, method, reset
        self.late, self.shapes = set(net.feedback), net.shapes
        self.nodes: dict[str, Any] = {}
        self.edges: list[Edge] = []
        self._unfold(graph, "")
        self.inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
        self.outputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]

    def _unfold(self, graph: Any, within: str) -> None:
        inner = {name for name, node in graph.nodes.items() if isinstance(node, nir.NIRGraph)}
        for name, node in graph.nodes.items():
            if name in inner:
                self._unfold(node, f"{within}{name}.")
            else:
                self.nodes[within + name] = node

        def door(name: str, kind: type) -> str:
            if name not in inner:
                return within + name
            (found,) = (n for n, node in graph.nodes[name].nodes.items() if isinstance(node, kind))
            return f"{within}{name}.{found}"

        self.edges += [(door(a, nir.Output), door(b, nir.Input)) for a, b in graph.edges]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """``[T, B, ...]`` in, as many out as there are outputs."""
        self.batch = inputs[0].shape[1]
        self.given = dict(zip(self.inputs, inputs, strict=True))
        self.values: dict[tuple[str, int], Tensor] = {}
        self.states: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        return [torch.stack([self.value(name, t) for t in range(len(inputs[0]))]) for name in self.outputs]

    # ---- values ---------------------------------------------------------------------------------------------

    def value(self, name: str, t: int) -> Tensor:
        """What leaves a node at a step."""
        if (name, t) not in self.values:
            self.values[name, t] = self.given[name][t] if name in self.given else self._compute(name, t)
        return self.values[name, t]

    def entering(self, name: str, t: int) -> Tensor:
        """What enters a node at a step: the sum over its edges. Late values are 0 before the first step."""
        summands = []
        for source, target in self.edges:
            ago = int((source, target) in self.late)
            if target == name and t >= ago:
                summands.append(self.value(source, t - ago))
        nothing = torch.zeros((self.batch, *self.shapes[name][0]), dtype=torch.float64)
        return sum(summands, nothing)

    def _compute(self, name: str, t: int) -> Tensor:
        node: Any = self.nodes[name]
        if isinstance(node, nir.Delay):
            return self._delayed(name, node, t)
        x = self.entering(name, t)
        if isinstance(node, (nir.Input, nir.Output)):
            return x
        if isinstance(node, (nir.Affine, nir.Linear)):
            y = (tensor(node.weight) @ x.unsqueeze(-1)).squeeze(-1)
            return y + tensor(node.bias) if isinstance(node, nir.Affine) else y
        if isinstance(node, nir.Scale):
            return x * tensor(node.scale)
        if isinstance(node, nir.Threshold):
            return (x > tensor(node.threshold)).double()
        if isinstance(node, nir.Flatten):
            unbatched = x.shape[1:]
            start, end = (int(dim) % len(unbatched) for dim in (node.start_dim, node.end_dim))
            return x.reshape(len(x), *unbatched[:start], -1, *unbatched[end + 1 :])
        if isinstance(node, (nir.Conv1d, nir.Conv2d)):
            return self._convolved(node, x)
        if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
            return self._pooled(node, x)
        return self._neuron(name, node, x, t)

    def _delayed(self, name: str, node: Any, t: int) -> Tensor:
        steps = np.round(np.asarray(node.delay) / self.dt).astype(int)
        y = torch.zeros((self.batch, *self.shapes[name][0]), dtype=torch.float64)
        for ago in set(steps.flatten().tolist()):
            if t >= ago:
                y = y + self.entering(name, t - ago) * tensor(steps == ago)
        return y

    def _convolved(self, node: Any, x: Tensor) -> Tensor:
        dims = np.asarray(node.weight).ndim - 2
        numbers = {
            key: value if isinstance(value, str) else tuple(np.broadcast_to(value, dims).tolist())
            for key, value in {"stride": node.stride, "padding": node.padding, "dilation": node.dilation}.items()
        }
        convolve: Any = F.conv1d if dims == 1 else F.conv2d
        return convolve(x, tensor(node.weight), tensor(node.bias), groups=int(node.groups), **numbers)  # type: ignore[no-any-return]

    def _pooled(self, node: Any, x: Tensor) -> Tensor:
        (high, wide), (down, right) = (np.broadcast_to(v, 2).tolist() for v in (node.kernel_size, node.stride))
        above, left = np.broadcast_to(node.padding, 2).tolist()
        windows = F.pad(x, (left, left, above, above)).unfold(-2, high, down).unfold(-2, wide, right)
        return windows.mean((-2, -1)) if isinstance(node, nir.AvgPool2d) else windows.sum((-2, -1))

    # ---- neurons --------------------------------------------------------------------------------------------

    def _neuron(self, name: str, node: Any, x: Tensor, t: int) -> Tensor:
        zero = torch.zeros_like(x)
        if t:
            self.value(name, t - 1)  # and the states after it
        v, i = self.states.get((name, t - 1), (zero, zero))
        h, i = (self._euler if self.method == "euler" else self._exact)(node, x, v, i)
        if not hasattr(node, "v_threshold"):
            self.states[name, t] = h, i
            return h
        threshold = tensor(node.v_threshold)
        spike = h > threshold
        after = h - threshold if self.reset == "subtract" else tensor(node.v_reset).expand_as(h)
        self.states[name, t] = torch.where(spike, after, h), i
        return spike.double()

    def _euler(self, node: Any, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        r = tensor(node.r)
        if isinstance(node, (nir.I, nir.IF)):
            return v + self.dt * r * x, i
        leak = tensor(node.v_leak)
        if isinstance(node, (nir.LI, nir.LIF)):
            return v + self.dt * (leak - v + r * x) / tensor(node.tau), i
        i = i + self.dt * (-i + tensor(node.w_in) * x) / tensor(node.tau_syn)
        return v + self.dt * (leak - v + r * i) / tensor(node.tau_mem), i

    def _exact(self, node: Any, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        """``(v, i, 1)' = M (v, i, 1)``, so after a step it is ``exp(dt M) (v, i, 1)``."""
        matrix = torch.zeros(*x.shape, 3, 3, dtype=torch.float64)
        r = tensor(node.r)
        if isinstance(node, (nir.I, nir.IF)):
            matrix[..., 0, 2] = r * x
        elif isinstance(node, (nir.LI, nir.LIF)):
            matrix[..., 0, 0] = -1 / tensor(node.tau)
            matrix[..., 0, 2] = (tensor(node.v_leak) + r * x) / tensor(node.tau)
        else:
            matrix[..., 0, 0] = -1 / tensor(node.tau_mem)
            matrix[..., 0, 1] = r / tensor(node.tau_mem)
            matrix[..., 0, 2] = tensor(node.v_leak) / tensor(node.tau_mem)
            matrix[..., 1, 1] = -1 / tensor(node.tau_syn)
            matrix[..., 1, 2] = tensor(node.w_in) * x / tensor(node.tau_syn)
        state = torch.stack([v, i, torch.ones_like(v)], -1).unsqueeze(-1)
        after = (torch.linalg.matrix_exp(self.dt * matrix) @ state).squeeze(-1)
        return after[..., 0], after[..., 1]


def heterogeneous(kind: str, *shape: int, seed: int = 0) -> Any:
    """A neuron of NIR whose lanes all differ."""
    draw = np.random.default_rng(seed)
    ranges = {"tau": (2, 6), "r": (0.5, 2), "v_leak": (-0.2, 0.2), "v_threshold": (0.4, 1), "v_reset": (-0.2, 0.1)}
    ranges |= {"tau_syn": (2, 6), "tau_mem": (2, 6), "w_in": (0.5, 2)}
    fields: Sequence[str] = [f for f in getattr(nir, kind).__dataclass_fields__ if f in ranges]
    return getattr(nir, kind)(**{field: draw.uniform(*ranges[field], shape) for field in fields})
