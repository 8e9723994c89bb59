"""The presets' recurrent layers: compiled, they are the torch loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn.neurons import norse
from flexsn.neurons import snntorch as snn
from flexsn.neurons import spikingjelly as neuron
from flexsn.neurons.spikingjelly import layer

LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "RLeaky": (lambda: snn.RLeaky(0.5, linear_features=4), (4,)),
    "RSynaptic": (lambda: snn.RSynaptic(0.5, 0.75, conv2d_channels=2, kernel_size=3), (2, 3, 4)),
    "SLSTM": (lambda: snn.SLSTM(6, 4, threshold=0.125, reset_mechanism="zero"), (6,)),
    "SConv2dLSTM": (lambda: snn.SConv2dLSTM(1, 2, 3, avg_pool=2, threshold=0.03125), (1, 4, 4)),
    "LIFRecurrent": (lambda: norse.LIFRecurrent(6, 4, norse.LIFParameters(128.0, 64.0), dt=2.0**-9), (6,)),
    "LSNNRecurrent": (lambda: norse.LSNNRecurrentCell(6, 4, autapses=True), (6,)),
    "GatedLIFNode": (lambda: neuron.GatedLIFNode(6, 2), (2, 3, 3)),
}


def one_by_one(net: Any, x: Tensor) -> Tensor:
    """The spikes of single steps; a state that is returned is handed in again."""
    state, spikes = (), []
    for step in x:
        returned = net.single_step_forward(step, *state)
        spikes.append(returned[0] if isinstance(returned, tuple) else returned)
        state = (returned[1],) if isinstance(net, norse.LIFRecurrent | norse.LSNNRecurrent) else ()
    return torch.stack(spikes)


def results(net: Any, x: Tensor, steps: bool = False) -> tuple[Any, ...]:
    x = x.clone().requires_grad_()
    returned = one_by_one(net, x) if steps else net.multi_step_forward(x)
    y = returned[0] if isinstance(returned, tuple) else returned
    (y * torch.arange(y.numel()).view_as(y)).sum().backward()
    grads = [p.grad for p in net.parameters()]
    net.zero_grad()
    return y.detach(), x.grad, grads


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_it_is_the_loop(name: str) -> None:
    torch.manual_seed(0)
    made, shape = LAYERS[name]
    net, x = made(), torch.randint(0, 48, (6, 3, *shape)) / 16
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_((weight * 16).round() / 16)  # so that sums are exact
    got = results(net, x)
    net.reset()
    net.backend = "torch"
    want = results(net, x)
    net.reset()
    net.backend = "cpp"
    every = [got] if name == "GatedLIFNode" else [got, results(net, x, steps=True)]  # its gates are of a whole sequence
    for each in every:
        assert 0 < want[0].mean() < 1 and torch.equal(each[0], want[0])
        torch.testing.assert_close(each[1:], want[1:], rtol=2e-5, atol=1e-4)


class FeedsItsMembraneBack(snn.RLeaky):
    def _base_state_function(self, input_: Tensor) -> Tensor:
        fed: Tensor = self.beta * self.mem + input_ + self.recurrent(self.mem)
        return fed


def test_a_subclass_multiplies_what_it_likes() -> None:
    torch.manual_seed(0)
    net, x = FeedsItsMembraneBack(0.5, linear_features=4), torch.randint(0, 48, (4, 3, 4)) / 16
    with torch.no_grad():
        net.recurrent.weight.copy_((net.recurrent.weight * 16).round() / 16)
        net.recurrent.bias.zero_()  # type: ignore[union-attr, operator]
        spikes = one_by_one(net, x)
        net.reset()
        net.backend = "torch"
        assert torch.equal(net.multi_step_forward(x), spikes) and spikes.any()


def test_a_single_step_is_a_node_of_a_graph() -> None:
    cell, x = norse.LIFRecurrentCell(6, 4), torch.rand(3, 6)
    for got, want in zip(torch.compile(cell, fullgraph=True, backend="eager")(x)[1], cell(x)[1], strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("in_front", [False, True])
def test_a_container_is_its_steps(in_front: bool) -> None:
    torch.manual_seed(0)
    lif = neuron.LIFNode(v_reset=None)
    inner, size = (nn.Sequential(nn.Linear(4, 2), lif), 2) if in_front else (lif, 4)
    net, x = layer.LinearRecurrentContainer(inner, 4, size), torch.randint(0, 48, (5, 3, 4)) / 16
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_((weight.abs() * 16).round() / 16)
    one_by_one = torch.stack([net.single_step_forward(step) for step in x[:4]])
    v, y = lif.v, net.y
    net.reset()
    lif.reset()
    hook = lif.register_forward_hook(lambda *_: None)  # who wants to see each call has the steps run one by one
    assert torch.equal(net.multi_step_forward(x[:4]), one_by_one) and 0 < one_by_one.mean() < 1
    assert torch.equal(lif.v, v) and torch.equal(net.y, y)
    hook.remove()
    goes_on = net.single_step_forward(x[4])
    net.reset()
    lif.reset()
    assert torch.equal(net.multi_step_forward(x)[4], goes_on)
    with pytest.raises(ValueError, match=r"reset_net"):
        net.single_step_forward(x[0, :2])


def test_a_long_memory_says_what_it_does_not_do() -> None:
    with pytest.raises(ValueError, match="pooled after the scan"):
        snn.SConv2dLSTM(1, 2, 3, max_pool=2, time_reduction="sum")
    with pytest.raises(TypeError, match="override core"):
        type("Own", (snn.SLSTM,), {"_base_state_function": lambda self, input_: input_})


def test_online_learning_forgets_where_the_membrane_came_from() -> None:
    x = torch.tensor([[0.5], [0.75], [0.25]])
    grads = []
    for steps in (x.unbind(), (x,)):
        node, given = neuron.OTTTLIFNode(step_mode="s" if len(steps) > 1 else "m"), x.clone().requires_grad_()
        for i in range(len(steps)):
            out = node(given[i] if len(steps) > 1 else given)
            assert len(out) == 2 and not out[1].requires_grad
            out[0].sum().backward()
        grads.append(given.grad)
    assert torch.equal(*grads) and grads[0].all()
