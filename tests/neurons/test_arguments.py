"""Arguments of the built-in neurons: their checks, their repr, and taking effect when changed."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import BACKENDS

from flexsn import neurons, surrogate
from flexsn.neurons import spikingjelly


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: neurons.LIF(tau=1.0), "LIF(tau=1.0): tau must be > 1"),
        (lambda: neurons.PLIF(init_tau=0.5), "PLIF(init_tau=0.5): init_tau must be > 1"),
        (lambda: neurons.LIF(tau="2"), "LIF(tau='2'): tau must be a number or a tensor, got str"),
        (lambda: neurons.LIF(tau=True), "LIF(tau=True): tau must be a number or a tensor, got bool"),
        (lambda: neurons.LIF(tau=float("nan")), "LIF(tau=nan): tau must be > 1"),
        (lambda: neurons.LIF(tau=torch.tensor([2.0, 0.5])), "tau must be > 1"),
        (lambda: neurons.LIF(tau=torch.tensor(2)), "tau must have a floating dtype, got torch.int64"),
        (lambda: neurons.LIF(decay_input=1), "LIF(decay_input=1): decay_input must be True or False"),
        (lambda: neurons.IF(detach_reset="no"), "IF(detach_reset='no'): detach_reset must be True or False"),
        (lambda: neurons.IF(1.0, 2.0), "IF(v_threshold=1.0, v_reset=2.0): v_threshold must be > v_reset"),
        (lambda: neurons.IF(v_reset="none"), "v_reset must be a number, a tensor or None, got str"),
        (lambda: neurons.IF(v_threshold=None), "v_threshold must be a number or a tensor, got NoneType"),
        (lambda: neurons.IF(surrogate_function=3), "IF(surrogate_function=3): surrogate_function must be callable"),
        (lambda: neurons.IF(step_mode="x"), "step_mode must be"),
        (lambda: neurons.IF(backend="cuda"), "backend must be one of"),
        (lambda: neurons.IF(store_v_seq=1), "IF(store_v_seq=1): store_v_seq must be True or False"),
        (lambda: neurons.QIF(a0=0.0), "QIF(a0=0.0): a0 must be > 0"),
        (lambda: neurons.QIF(v_rest=-1.0), "QIF(v_rest=-1.0, v_reset=-0.1): v_rest must be >= v_reset"),
        (lambda: neurons.EIF(delta_T=0.0), "EIF(delta_T=0.0): delta_T must be > 0"),
        (lambda: neurons.EIF(v_rest=-1.0), "EIF(v_rest=-1.0, v_reset=-0.1): v_rest must be >= v_reset"),
        (lambda: neurons.Izhikevich(a0=-1.0), "Izhikevich(a0=-1.0): a0 must be > 0"),
        (lambda: neurons.AdEx(tau_w=0.0), "AdEx(tau_w=0.0): tau_w must be > 0"),
        (lambda: neurons.ALIF(tau=0.0), "ALIF(tau=0.0): tau must be > 0"),
        (lambda: neurons.AdLIF(discretisation="exact"), "discretisation must be 'symplectic' or 'euler'"),
        (lambda: neurons.CubaLIF(alpha=1.5), "CubaLIF(alpha=1.5): alpha must be >= 0 and <= 1"),
        (lambda: neurons.CubaLIF(alpha=1.0, learnable="alpha"), "alpha must be > 0 and < 1"),
        (lambda: neurons.AlphaLIF(0.5, 0.5), "AlphaLIF(alpha=0.5, beta=0.5): alpha must be > beta"),
        (lambda: neurons.ResonateFire(b=0.1), "ResonateFire(b=0.1): b must be < 0"),
        (lambda: neurons.TernaryIF(-1.0), "TernaryIF(v_threshold=-1.0): v_threshold must be > 0"),
        (lambda: neurons.TernaryLIF(v_reset=-1.5), "v_reset must lie between -v_threshold and v_threshold"),
        (lambda: neurons.ILIF(D=0), "SpikeCount(D=0): D must be an integer >= 1"),
        (lambda: neurons.LIAF(None, True), "LIAF(act=None): act must be callable"),
        (lambda: neurons.NonSpikingIF("max"), "NonSpikingIF(decode='max'): decode must be None or one of 'max-mem'"),
        (lambda: neurons.Refractory(neurons.IF(), -1), "Refractory(steps=-1): steps must be an integer >= 0"),
        (
            lambda: neurons.LIF(learnable=("k",)),
            "LIF(learnable=('k',)): learnable may name 'tau', 'v_threshold', 'v_reset'; not 'k'",
        ),
        (lambda: neurons.IF(v_reset=None, learnable="v_reset"), "IF(v_reset=None): None cannot be learned"),
        (lambda: neurons.IF(shape=(3,)), "IF(shape=(3,)): shape is that of what learnable names"),
    ],
)
def test_wrong_arguments(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        build()
    assert message in str(error.value)


COMMON = {
    "v_threshold": 1.5,
    "v_reset": -0.25,
    "surrogate_function": surrogate.ATan(),
    "detach_reset": True,
    "step_mode": "m",
    "backend": "torch",
    "store_v_seq": True,
}
CANONICAL = [getattr(neurons, name) for name in neurons.__all__]
CANONICAL = [c for c in CANONICAL if inspect.isclass(c) and issubclass(c, neurons.SpikingNeuron)]
PRESET = [getattr(spikingjelly, name) for name in spikingjelly.__all__]
PRESET = [c for c in PRESET if issubclass(c, neurons.SpikingNeuron)]


def _by_position(neuron_class: type) -> list[str]:
    parameters = inspect.signature(neuron_class).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("neuron_class", CANONICAL + PRESET, ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_what_comes_by_position_is_what_comes_by_name(neuron_class: type) -> None:
    own = {"act": torch.relu, "threshold_related": True, "scale_reset": True, "decay_input": False, "alpha": 0.95}
    own |= {"b": -0.25, "D": 3, "store_state_seqs": True}
    common = COMMON
    if neuron_class is spikingjelly.ILIFNode:  # it takes no other surrogate
        common = COMMON | {"surrogate_function": spikingjelly.MultiLevelSpikeCount(3)}
    defaults = inspect.signature(neuron_class).parameters
    names = _by_position(neuron_class)
    values = [{**own, **common}.get(n, 3.0 if "tau" in n else defaults[n].default) for n in names]
    assert repr(neuron_class(*values)) == repr(neuron_class(**dict(zip(names, values, strict=True))))
    mine = neuron_class(*values)
    given = {n: v for n, v in zip(names, values, strict=True) if n != "surrogate_function" and hasattr(mine, n)}
    assert {n: getattr(mine, n) for n in given} == pytest.approx(given)


@pytest.mark.parametrize("neuron_class", CANONICAL)
def test_common_arguments_come_last_in_their_order(neuron_class: type) -> None:
    names = _by_position(neuron_class)
    common = [name for name in COMMON if name in names]
    assert [name for name in names if name in common] == common
    last = [name for name in common if name not in ("v_threshold", "v_reset")]
    assert len(last) >= 3 and names[-len(last) :] == last


def test_wrong_values_set_later() -> None:
    lif = neurons.LIF(tau=2.0)
    with pytest.raises(ValueError, match="tau must be > 1"):
        lif.tau = 0.5
    assert lif.tau == 2.0
    with pytest.raises(ValueError, match="store_v_seq must be True or False"):
        lif.store_v_seq = 1  # type: ignore[assignment]


def test_decode_needs_a_sequence() -> None:
    with pytest.raises(ValueError, match="decode='mean-mem' needs step_mode 'm'"):
        neurons.NonSpikingIF("mean-mem", step_mode="s")(torch.zeros(3))
    with pytest.raises(ValueError, match="at least one step"):
        neurons.NonSpikingIF("max-mem")(torch.zeros(0, 3))


def test_repr() -> None:
    assert repr(neurons.LIF(tau=4, v_reset=None, surrogate_function=surrogate.ATan())) == (
        "LIF(\n  tau=4.0, v_threshold=1.0, v_reset=None, decay_input=True, detach_reset=False, step_mode='s', "
        "backend='auto'\n  (surrogate_function): ATan(alpha=2.0)\n)"
    )
    assert "tau=learnable (4, 1), v_threshold=learnable (4, 1)" in repr(
        neurons.LIF(learnable=("tau", "v_threshold"), shape=(4, 1))
    )
    assert "tau=learnable 2.5, " in repr(neurons.LIF(2.5, learnable="tau"))
    assert "tau=tensor (3,), " in repr(neurons.LIF(torch.full((3,), 2.0)))
    with torch.no_grad():
        assert "tau=learnable 4, " in repr(neurons.PLIF(init_tau=4.0))
    assert "k=learnable (3,), scale_reset=False" in repr(neurons.KLIF(shape=(3,)))
    assert "steps=3" in repr(neurons.Refractory(neurons.IF(), 3))
    assert "act=relu, threshold_related=True" in repr(neurons.LIAF(torch.relu, True))
    assert "tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=False" in repr(spikingjelly.SimpleLIFNode(2.0, False))
    assert "decode='last-mem'" in repr(neurons.NonSpikingLIF(decode="last-mem"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_changed_number_counts_from_the_next_call(backend: str) -> None:
    x = torch.rand(12, 5) * 2
    lif = neurons.LIF(tau=2.0, step_mode="m", backend=backend)
    for change in ({}, {"tau": 3.5}, {"v_threshold": 0.5}, {"v_reset": None}, {"v_reset": -0.5}, {"v_reset": 0.0}):
        for name, value in change.items():
            setattr(lif, name, value)
        lif.reset()
        fresh = neurons.LIF(lif.tau, True, lif.v_threshold, lif.v_reset, step_mode="m", backend="torch")
        assert torch.equal(lif(x), fresh(x)), change


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_threshold_per_sample(backend: str) -> None:
    x = torch.rand(12, 4, 5)
    threshold = torch.rand(4, 5) + 0.25
    lif = neurons.IF(step_mode="m", backend=backend)
    scalar = lif(x)
    lif.reset()
    lif.v_threshold = threshold
    per_sample = lif(x)
    for i in range(4):
        for j in range(5):
            one = neurons.IF(threshold[i, j].item(), step_mode="m", backend="torch")
            assert torch.equal(per_sample[:, i, j], one(x[:, i, j]))
    lif.reset()
    lif.v_threshold = 1.0
    assert torch.equal(lif(x), scalar)


def test_tensors_are_buffers_and_parameters_stay_parameters() -> None:
    tau = torch.tensor([[2.0], [3.0]])
    lif = neurons.LIF(tau, v_threshold=torch.nn.Parameter(torch.ones(2, 1)))
    assert list(lif.state_dict()) == ["v_threshold", "tau"] and lif.v_threshold.requires_grad
    assert list(neurons.LIF().state_dict()) == []
    lif(torch.rand(2, 3)).sum().backward()
    assert lif.v_threshold.grad is not None


def test_states_start_at_v_reset() -> None:
    neuron = neurons.Izhikevich(v_reset=-0.5, w_rest=0.25, step_mode="m", store_v_seq=True)
    neuron(torch.zeros(1, 2, dtype=torch.float64))
    assert neuron.v.dtype == torch.float64 and neuron.v_seq.shape == (1, 2)
    assert neuron.start_of("v") == -0.5 and neuron.start_of("w") == 0.25
    assert neurons.IF(v_reset=None).start_of("v") == 0.0


def test_a_surrogate_is_not_shared_between_neurons() -> None:
    assert neurons.IF().surrogate_function is not neurons.IF().surrogate_function


@pytest.mark.parametrize(
    "neuron",
    [
        neurons.LIF(3.0, learnable=("tau", "v_threshold"), shape=(4,), step_mode="m"),
        neurons.CLIF(step_mode="m"),
        neurons.Refractory(neurons.PLIF(), 2, step_mode="m"),
        neurons.ILIF(step_mode="m"),
    ],
    ids=lambda neuron: type(neuron).__name__,
)
def test_copies_are_independent_and_alike(neuron: Any) -> None:
    x = torch.rand(6, 2, 4) * 2
    y = neuron(x)
    for clone in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        clone.reset()
        assert torch.equal(clone(x), y)
        mine, others = list(neuron.parameters()), list(clone.parameters())
        assert all(a is not b and torch.equal(a, b) for a, b in zip(mine, others, strict=True))
