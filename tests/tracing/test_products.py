"""What multiplies step values by a matrix is a product in the step, however it is written; what it returns is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexsn.errors import UnsupportedOpError
from flexsn.ir.format import describe
from flexsn.ir.spec import verify
from flexsn.tracing.tracer import Tracer

F32 = torch.float32
H = 5
W, B = nn.Parameter(torch.randn(H, H)), nn.Parameter(torch.randn(H))
LINEAR, CONV = nn.Linear(H, H), nn.Conv2d(H, H, 3, padding=1)
Map = Callable[[Tensor], Tensor]


def trace(connection: Map) -> Tracer:
    """A core that is fed its last output by way of a connection."""

    def core(x: Tensor, v: Tensor, z: Tensor) -> Any:
        h = 0.5 * v + x + connection(z)
        y = torch.tanh(h)
        return y, h - y, y

    return Tracer(core, (F32,), (F32, F32), torch.device("cpu"))


WRITTEN: dict[str, tuple[Map, Callable[[], Tensor]]] = {
    "nn.Linear": (LINEAR, lambda: LINEAR.weight.T),
    "F.linear": (lambda z: F.linear(z, W), lambda: W.T),
    "@": (lambda z: z @ W, lambda: W),
    "@ transposed": (lambda z: z @ W.T, lambda: W.T),
    "mm": (lambda z: z.mm(W), lambda: W),
    "addmm": (lambda z: torch.addmm(B, z, W), lambda: W),
    "matmul": (lambda z: torch.matmul(z, W), lambda: W),
    "einsum": (lambda z: torch.einsum("bi,ij->bj", z, W), lambda: W),
    "einsum ...": (lambda z: torch.einsum("...i,ji->...j", z, W), lambda: W.T),
    "masked": (lambda z: F.linear(z, W * (1 - torch.eye(H))), lambda: (W * (1 - torch.eye(H))).T),
}


@pytest.mark.parametrize("connection, matrix", WRITTEN.values(), ids=WRITTEN)
def test_a_product_is_found_however_it_is_written(connection: Map, matrix: Callable[[], Tensor]) -> None:
    tracer = trace(connection)
    verify(tracer.graph)
    (product,) = tracer.graph.products
    assert product.source is tracer.graph.states[1]
    assert tracer.param_shape == (H,)
    assert product.matrix is not None
    (found,) = tracer.host.program([tracer.operands[product.matrix]], tracer.captured_refs)(
        *[t.detach() for t in tracer.captured]
    )
    assert torch.equal(found, matrix().detach())


@pytest.mark.parametrize("connection, matrix", WRITTEN.values(), ids=WRITTEN)
def test_its_gradient_is_a_product_and_that_of_the_matrix_an_outer_one(
    connection: Map, matrix: Callable[[], Tensor]
) -> None:
    tracer = trace(connection)
    vjp = tracer.vjp((True,), (1, 1))
    verify(vjp)
    back = next(p for p in vjp.products if p not in tracer.graph.products)
    assert back.matrix is not None
    (found,) = tracer.host.program([tracer.operands[back.matrix]], tracer.captured_refs)(
        *[t.detach() for t in tracer.captured]
    )
    assert torch.equal(found, matrix().detach().T)
    assert vjp.grad_states[1] == (back.leaf,) and vjp.grad_inputs[0] is back.source
    (outer,) = vjp.outers
    assert {outer.left, outer.right} == {tracer.graph.states[1], back.source}
    assert outer.call is None


def test_a_bias_is_added_by_the_step_and_its_gradient_an_ordinary_sum() -> None:
    tracer = trace(LINEAR)
    (added,) = tracer.vjp((True,), (1, 1)).reductions
    assert added.shape == (H,)


def test_products_of_what_a_product_led_to_are_in_order() -> None:
    tracer = trace(lambda z: LINEAR(torch.tanh(z @ W)))
    first, second = tracer.graph.products
    assert second.source.args == (first.leaf,)
    assert "product1 = matmul(t2, operand1)  # float32" in describe(tracer.graph)
    vjp = tracer.vjp((True,), (1, 1))
    verify(vjp)
    assert [p.leaf.index for p in vjp.products] == [0, 1, 2, 3] and len(vjp.outers) == 2
    assert "outer1_left" in describe(vjp)


def test_the_same_product_is_one() -> None:
    tracer = trace(lambda z: z @ W + torch.tanh(z @ W))
    assert len(tracer.graph.products) == 1


def test_a_convolution_is_a_product_by_a_call_of_torch() -> None:
    tracer = trace(CONV)
    assert tracer.param_shape == (H, 1, 1)
    (product,) = tracer.graph.products
    assert product.call is not None and product.matrix is None
    z, weight = torch.randn(2, H, 4, 6), CONV.weight.detach()
    assert torch.equal(product.call([z, weight]), F.conv2d(z, weight, padding=1))
    vjp = tracer.vjp((True,), (1, 1))
    verify(vjp)
    back = next(p for p in vjp.products if p is not product)
    (outer,), (bias,) = vjp.outers, vjp.reductions
    assert back.call is not None and outer.call is not None
    z.requires_grad_()
    g, w = torch.randn_like(z), weight.clone().requires_grad_()
    expected = torch.autograd.grad(F.conv2d(z, w, padding=1), (z, w), g)
    torch.testing.assert_close(back.call([g, weight]), expected[0])
    torch.testing.assert_close(outer.call([g, z.detach(), weight]), expected[1])
    assert bias.base == (1, H, 1, 1) and bias.shape == (H,)


NO_PRODUCTS: dict[str, Map] = {
    "of two step values": lambda z: z @ (z.transpose(-1, -2) @ z),
    "by a matrix that is not square": lambda z: (z @ W[:, :2]).sum(-1, keepdim=True),
    "softmax": lambda z: torch.softmax(z @ W, -1),
    "a view that is added": lambda z: (z.unsqueeze(0) + 1).squeeze(0),
}


@pytest.mark.parametrize("connection", NO_PRODUCTS.values(), ids=NO_PRODUCTS)
def test_whatever_else_reads_across_lanes_is_refused(connection: Map) -> None:
    with pytest.raises(UnsupportedOpError, match=r"mixes lanes|cannot be part"):
        trace(connection)
