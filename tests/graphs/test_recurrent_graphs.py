"""Recurrent layers in compiled and exported graphs: one node, the plain layer's bits, every product once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, Recurrent
from flexsn.execution.alternating.forward import AlternatingScan
from flexsn.execution.forward import BoundScan
from flexsn.kernels.cpp.backend import CppBackend
from tests.flexsn.contract_cores import lif, sequence
from tests.graphs.test_operators import check_operators


@pytest.fixture(params=["fused", "alternating"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    torch._dynamo.reset()
    if request.param == "alternating":
        monkeypatch.setattr(CppBackend, "largest_matrix", 0)
    return str(request.param)


def recurrent(**options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(FlexSN(lif, **options), nn.Linear(3, 3))


def gradients(layer: Recurrent, y: Tensor, x: Tensor) -> list[Tensor]:
    return [y, layer.y, *torch.autograd.grad(y.sum() + layer.v.sum(), (x, *layer.parameters()))]


@pytest.mark.parametrize("shape", [(4, 12, 3), (4, 2, 6, 3)])
def test_what_torch_asks_of_operators(shape: tuple[int, ...], way: str) -> None:
    call = check_operators(recurrent(checkpoint=2), sequence(*shape))
    assert call.products == (torch.float32,) and call.interval == 2 and call.fused is (way == "fused")


def test_one_graph_for_every_length_and_batch() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend  # at the top, every test process would wait for it

    layer, plain = recurrent(), recurrent()
    graphs = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(layer, fullgraph=True, backend=graphs, dynamic=True)
    for shape in ((4, 5, 3), (9, 2, 3), (6, 7, 3)):
        x = sequence(*shape).requires_grad_()
        layer.reset()
        plain.reset()
        for mine, theirs in zip(gradients(layer, fast(x), x), gradients(plain, plain(x), x), strict=True):
            assert torch.equal(mine, theirs)
    assert graphs.frame_count == 1


def test_the_forward_pass_runs_once(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    runs, scans = [], BoundScan if way == "fused" else AlternatingScan
    forward: Any = scans.forward
    monkeypatch.setattr(scans, "forward", lambda self, *given: runs.append(self) or forward(self, *given))
    layer, x = recurrent(), sequence(6, 2, 3).requires_grad_()
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    runs.clear()
    layer.reset()
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    assert len(runs) == 1 and x.grad is not None


@pytest.mark.parametrize("options", [{}, {"time_reduction": "mean", "detach_every": 2}])
def test_lengths_and_options_in_a_graph(options: dict[str, Any]) -> None:
    lengths, x = torch.tensor([5, 0, 3]), sequence(5, 3, 3).requires_grad_()
    layer, plain = recurrent(**options), recurrent(**options)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, lengths=lengths)
    for mine, theirs in zip(gradients(layer, y, x), gradients(plain, plain(x, lengths=lengths), x), strict=True):
        assert torch.equal(mine, theirs)


def test_an_exported_layer() -> None:
    layer, x = recurrent().eval(), sequence(5, 2, 3)
    net, steps = nn.Sequential(nn.Identity(), layer), torch.export.Dim("steps", min=2)
    with torch.no_grad():
        program = torch.export.export(net, (x,), dynamic_shapes=({0: steps},)).module()
        layer.reset()
        longer = torch.cat([x, x])
        assert torch.equal(program(longer), layer(longer))
