"""Whatever is no value of an argument is refused with a ValueError, by every class and for every argument."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from flexsn import FlexSN, neurons, surrogate
from flexsn.neurons import norse, rnnbuilder, snntorch, spikingjelly

NEEDED: dict[str, dict[str, Any]] = {
    "LIAF": {"act": torch.relu, "threshold_related": True},
    "LIAFNode": {"act": torch.relu, "threshold_related": True},
    "PSN": {"T": 3},
    "MaskedPSN": {"k": 2, "T": 3},
    "SlidingPSN": {"k": 2},
    "Refractory": {"core": neurons.IF(), "steps": 2},
    "SimpleLIFNode": {"tau": 2.0, "decay_input": True},
    "MultiLevelSpikeCount": {"max_spike_count": 3},
    "Leaky": {"beta": 0.9},
    "Synaptic": {"alpha": 0.9, "beta": 0.8},
    "Alpha": {"alpha": 0.9, "beta": 0.8},
    "Lapicque": {"beta": 0.9},
    "StateLeaky": {"beta": 0.9, "channels": 2},
    "LinearLeaky": {"beta": 0.9, "in_features": 2, "out_features": 2},
    "LeakyParallel": {"input_size": 2, "hidden_size": 2},
    "Izhikevich of norse": {"spiking_method": norse.tonic_spiking},
    "IzhikevichCell of norse": {"p": norse.tonic_spiking},
    "RLeaky": {"beta": 0.9, "linear_features": 2},
    "RSynaptic": {"alpha": 0.9, "beta": 0.8, "linear_features": 2},
    "SLSTM": {"input_size": 2, "hidden_size": 2},
    "SConv2dLSTM": {"in_channels": 1, "out_channels": 2, "kernel_size": 3},
    "GatedLIFNode": {"T": 3},
    "LILinearCell of norse": {"input_size": 2, "hidden_size": 2},
    "Lift of norse": {"module": norse.LIFCell()},
    "ConstantCurrentLIFEncoder of norse": {"seq_length": 2},
    "SpikeLatencyLIFEncoder of norse": {"seq_length": 2},
    "PoissonEncoder of norse": {"seq_length": 2},
    "SignedPoissonEncoder of norse": {"seq_length": 2},
    "PopulationEncoder of norse": {"out_features": 2},
}
KINDS = ("LIF", "LIFRefrac", "LIFEx", "LIFAdEx", "LIFAdExRefrac", "LIFMC", "LIFMCRefrac", "LSNN", "Izhikevich")
for kind in KINDS:
    sizes = {"input_size": 2, "hidden_size": 2}
    behavior = {"spiking_method": norse.tonic_spiking} if kind == "Izhikevich" else {}
    NEEDED |= {f"{kind}Recurrent{cell} of norse": {**sizes, **behavior} for cell in ("", "Cell")}
NO_NEURONS = {"Coefficient", "Neuron", "Surrogate", "Custom", "core", "counts"}  # nor arguments of one
NO_NEURONS |= {"device", "dtype"}  # torch's own to check


def arguments() -> list[Any]:
    found = []
    for module in (neurons, spikingjelly, rnnbuilder, snntorch, norse, surrogate):
        origin = module.__name__.split(".")[-1]
        for name in module.__all__:
            made = getattr(module, name)
            if not inspect.isclass(made) or issubclass(made, tuple) or name in NO_NEURONS:
                continue
            if issubclass(made, FlexSN) and not hasattr(made, "core"):  # a base to write one's own from
                continue
            needed = NEEDED.get(f"{name} of {origin}", {} if module is norse else NEEDED.get(name, {}))
            for argument in inspect.signature(made).parameters.values():
                if argument.kind not in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL):
                    case = made, needed, argument.name
                    found.append(pytest.param(*case, id=f"{origin}.{name}({argument.name})"))
    return found


@pytest.mark.parametrize(("made", "needed", "argument"), [p for p in arguments() if p.values[2] not in NO_NEURONS])
def test_nonsense_is_refused(made: Any, needed: dict[str, Any], argument: str) -> None:
    made(**needed)
    for nonsense in ("nonsense", float("nan"), object()):
        with pytest.raises(ValueError):
            made(**{**needed, argument: nonsense})


def test_an_argument_there_is_not() -> None:
    for made in (neurons.IF, neurons.LIF, neurons.TernaryIF, spikingjelly.IFNode, neurons.NonSpikingIF):
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'taw'"):
            made(taw=2.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: neurons.CLIF(v_reset=0.0), "CLIF.__init__() got an unexpected keyword argument 'v_reset'"),
        (lambda: neurons.IF(detach=True), "IF.__init__() got an unexpected keyword argument 'detach'"),
        (lambda: neurons.LIF(counts=None), "LIF.__init__() got an unexpected keyword argument 'counts'"),
        (lambda: neurons.AdEx(w_rest=0.0), "AdEx.__init__() got an unexpected keyword argument 'w_rest'"),
        (lambda: neurons.LIF(2.0, True, 1.0, v_threshold=1.0), "LIF.__init__() got multiple values for argument 'v_"),
        (lambda: neurons.CLIF(2.0, 1.0, None, "s", "auto", False, ()), "CLIF.__init__() too many positional arguments"),
        (
            lambda: spikingjelly.SimpleLIFNode(2.0),
            "SimpleLIFNode.__init__() missing a required argument: 'decay_",
        ),
        (lambda: snntorch.Leaky(0.9, learn_alpha=True), "Leaky.__init__() got an unexpected keyword argument 'learn_a"),
    ],
)
def test_arguments_that_do_not_fit_the_signature(build: Any, message: str) -> None:
    with pytest.raises(TypeError) as error:
        build()
    assert str(error.value).startswith(message)
