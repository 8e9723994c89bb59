"""Writes docs/peers.md: what became of every public name of the libraries whose presets there are.

python docs/make_peers.py        # where the four libraries are installed

A name of theirs that is neither in a preset nor accounted for below is an error.
"""

from __future__ import annotations

import importlib
import re
import types
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("peers.md")
VERDICTS = ("same", "better", "left out")

# a module of theirs, and the modules of ours that have its names
MODULES = {
    "spikingjelly.activation_based.neuron": ("flexsn.neurons.spikingjelly",),
    "spikingjelly.activation_based.surrogate": ("flexsn.neurons.spikingjelly.surrogate",),
    "spikingjelly.activation_based.functional": ("flexsn.functional",),
    "spikingjelly.activation_based.base": (),
    "spikingjelly.activation_based.layer": ("flexsn.neurons.spikingjelly.layer",),
    "snntorch": ("flexsn.neurons.snntorch",),
    "snntorch.surrogate": ("flexsn.neurons.snntorch.surrogate",),
    "snntorch.functional.quant": ("flexsn.neurons.snntorch.quant",),
    "snntorch.utils": ("flexsn.neurons.snntorch.utils",),
    "snntorch.backprop": ("flexsn.neurons.snntorch.backprop",),
    "norse.torch": ("flexsn.neurons.norse",),
    "rnnbuilder.snn": ("flexsn.neurons.rnnbuilder",),
}

# what is not merely the same: by name, how it is better
BETTER = {
    "AdaptBaseNode": "`step_mode`, `backend`; compiled, whatever the hooks do",
    "BaseNode": "compiled; an overridden `single_step_forward` too",
    "SimpleBaseNode": "compiled; an overridden `single_step_forward` too",
    "LinearRecurrentContainer": "one scan around a neuron of ours; a sequence has one product for its input",
    "ElementWiseRecurrentContainer": "one scan around a neuron of ours",
    "GatedLIFNode": "compiled; steps of any shape without `inplane`",
    "OTTTLIFNode": "whole sequences too",
    "SLTTLIFNode": "whole sequences too",
    "NonSpikingBaseNode": "one tensor in place of a list",
    "FlexSN": "every backend, parameters found in the core",
    "LIAFNode": "its activation in multi-step mode too, where SpikingJelly's returns spikes",
    "Alpha": "`learn_alpha=True` can be constructed",
    "Lapicque": "`learn_beta=True` survives more than one backward pass",
    "StateLeaky": "a scan in place of a convolution: T products a lane, not T²",
    "LinearLeaky": "as StateLeaky",
    "LeakyParallel": "a scan of the diagonal in place of a matrix product; `beta` per neuron counts",
    "SLSTM": "remembers; snnTorch's starts anew at every step unless `input_size == hidden_size`",
    "RSynaptic": "`reset_delay=False` runs; snnTorch's raises UnboundLocalError",
    "reset": "resets the neurons of this network, however deep; not those of others",
    "TBPTT": "runs with `K` as documented; snnTorch's raises UnboundLocalError",
    "RTRL": "as TBPTT",
    "SSO": "compiled; the slopes of all steps are drawn at once, in the forward pass",
    "state_quant": "compiled up to 64 uneven levels, and any number of even ones; snnTorch's own quantizers too",
    "LSO": "runs; snnTorch's raises TypeError",
    **dict.fromkeys(
        [
            f"{name}Recurrent{cell}"
            for name in ("LIF", "LSNN", "LIFEx", "LIFAdEx", "LIFRefrac", "LIFAdExRefrac")
            for cell in ("", "Cell")
        ],
        "one product for the input of all steps; a deep copy keeps the diagonal out of the gradient too",
    ),
    "Lift": "a cell is one scan",
    "ConstantCurrentLIFEncoder": "one scan",
    "constant_current_lif_encode": "one scan",
    "SequentialState": "leaves the list of states it is given as it was",
    "reset_net": "no log line for what is not a class of the library's",
    "detach_net": "no log line for what is not a class of the library's",
    "set_step_mode": "no log line for what is not a class of the library's",
}

# what is left out: a pattern of names, and why
LEFT_OUT = {
    "spikingjelly.activation_based.neuron": {
        r"DSR.*|MPBN.*|FewSpike.*|STBIF.*|Noisy.*|ILC.*|HG.*|OutlierAware.*|powerlaw.*": "of one paper each",
        r"ActivationAwareIFNode|HalfThresholdIFNode": "of the conversion from other networks, not of training",
    },
    "spikingjelly.activation_based.surrogate": {
        r".*_backward": "a part of the functions, not to be called",
        r"[Pp]oisson_?[Pp]ass": "draws at every step, which no kernel does: with it a neuron runs as the loop",
        r"check_manual_grad|plot_surrogate_function": "`flexsn.plot` and `gradcheck` with `spiking=False` do it",
    },
    "spikingjelly.activation_based.functional": {
        r".*_step|lif_charge|voltage_reset": "a step as a function: call the neuron's `core`, or `flexsn.scan`",
        r"bit_.*|packed_.*|sparse_linear|.*_linear": "layers on spikes: `flexsn.SpikeTensor` is a byte a spike",
        r"stdp.*|mstdp.*|delay|kaiming.*|temporal_efficient.*|neuron_implementation": "not of neurons",
        r"t_last.*|chunk_multi_step_forward": "`time_dim=`, and calls that go on from the last states, do it",
        r".*reset.*": "resetting keeps no cache here",
    },
    "spikingjelly.activation_based.layer": {
        r".*": "layers and containers that hold no state: the library's own take our neurons",
    },
    "spikingjelly.activation_based.base": {
        r".*": "tools and bases of the library: its own take our neurons",
    },
    "snntorch": {
        r"BatchNormTT.*|GradedSpikes": "layers, not neurons",
        r"LIF": "a base class without a step",
        r"AssociativeLeaky|DeltaLeaky": "not in snnTorch's documentation",
    },
    "snntorch.surrogate": {r"[A-Z].*": "what the factories are made of"},
    "snntorch.functional.quant": {r"StateQuant": "a part of the quantizer, not to be called"},
    "snntorch.utils": {r"data_subset|valid_split": "of data sets"},
    "norse.torch": {
        r"LIFBoxState": "of a recurrent layer that Norse has not got",
        r".*[aA]djoint.*": "the gradient of a scan is exact already",
        r"Coba.*|coba.*": "one step, for which Norse has no layer",
        r".*[cC]orrelation.*|STDP.*|stdp.*|Tsodyks.*|stp_step": "rules of plasticity, not neurons",
        r"ConvNet.*|VGG|vgg.*|MobileNetV2|mobilenet.*|LConv2d": "networks; Norse's run on these cells",
        r".*ReceptiveField.*|spatial_.*|gaussian_kernel|Regularization.*|regularize.*|.*accumulator|Spikes.*": (
            "not of neurons"
        ),
        r"logical_.*|plot_.*|hook_.*": "not of neurons",
        r".*_fn|heaviside": "`method=` names them; `flexsn.surrogate` has them",
        r"lif_(adex|ex)_current_encoder": "a step as a function: call the neuron's `core`",
        r"from_nir|to_nir": "Norse's take our neurons",
    },
}

HEAD = """# What became of the names of other libraries

Written by `docs/make_peers.py` from SpikingJelly 2.0, snnTorch 1.0, Norse 1.1 and rnnbuilder 0.1.1; `make test-peers`
fails when one of them has a name that is not here. *Same*: arguments, defaults, spikes, states and gradients. *Left
out*: a preset hands on the library's own, where that is installed, so a program with the import changed still runs.

An instance of a preset's class is one of the library's class of the same name, so that its tools find it.

## From a loop over steps to one scan

| library | a step a call | all steps at once | gain, 64 neurons | 16,384 |
|---|---|---|---|---|
| SpikingJelly | `[node(x) for x in x_seq]` | `functional.set_step_mode(net, "m")`, then `net(x_seq)` | 31 | 5.7 |
| snnTorch | `for x in x_seq: spk, mem = lif(x, mem)` | `snn.Leaky(0.9, step_mode="m")(x_seq)` | 19 | 5.2 |
| Norse | `for x in x_seq: z, s = cell(x, s)` | `norse.Lift(cell)(x_seq)`, or `norse.LIF()(x_seq)` | 26 | 8.3 |
| rnnbuilder | the builder's own loop | the same program: a layer of ours is one scan | | |

The gain is the time of the library's loop over that of the scan: 32 steps of a leaky neuron, forward and backward, one
thread of a CPU. Of recurrent layers, 16 steps of 16 samples took 0.22 (64 neurons) to 0.6 (512) of the library's time
in one scan. Called step by step (25 steps; 64 and 512 neurons), those of all three libraries took 0.5 to 0.97 in
inference and 0.6 to 1.08 forward and backward, where both are the products; `SConv2dLSTM` 1.1 and 1.2 to 1.5, since its
two halves are convolved apart.

## Their own tests, with the import changed

| library | pass here | pass there |
|---|---|---|
| SpikingJelly, 6 files | 155 of 173 | 167 |
| snnTorch | 113 of 113 | 113 |
| Norse, 16 files | 399 of 403 | 403 |

Of SpikingJelly's, ten count what every step reads and writes of a neuron's memory, which a scan keeps in registers; one
looks into the queue of a `SlidingPSN`, one expects an error where `functional_forward` of a `SimpleBaseNode` works.
Four of Norse's print a neuron, which says more here: `step_mode`, `backend`, and every parameter by its name.
"""


def public(module: str) -> dict[str, Any]:
    """The names a library's module offers, with what they are."""
    made = importlib.import_module(module)
    library = module.partition(".")[0]
    found = {name: getattr(made, name, None) for name in getattr(made, "__all__", vars(made))}
    return {
        name: value
        for name, value in sorted(found.items())
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and (getattr(value, "__module__", "") or "").partition(".")[0] in (library, "builtins", "torch")
        and not (getattr(value, "__module__", "") or "").startswith("torch")
    }


def verdict(module: str, name: str) -> str | None:
    """What became of one name; ``None`` if nobody said."""
    for ours in MODULES[module]:
        made: Any = importlib.import_module("flexsn.neurons.snntorch.hidden" if ours.endswith(".utils") else ours)
        if name in vars(made) or name in vars(made).get("behaviors", ()):
            return f"better: {BETTER[name]}" if name in BETTER else "same"
    for pattern, reason in LEFT_OUT.get(module, {}).items():
        if re.fullmatch(pattern, name):
            return f"left out: {reason}"
    return None


def rows() -> dict[str, dict[str, str | None]]:
    """The verdict of every name of every module."""
    return {module: {name: verdict(module, name) for name in public(module)} for module in MODULES}


def document() -> str:
    """The page."""
    parts = [HEAD]
    for module, names in rows().items():
        silent = [name for name, said in names.items() if said is None]
        if silent:
            raise SystemExit(f"{module}: nobody said what became of {', '.join(silent)}")
        by_verdict: dict[str, list[str]] = {}
        for name, said in names.items():
            by_verdict.setdefault(str(said), []).append(f"`{name}`")
        order = sorted(
            by_verdict, key=lambda said: (("same", "better", "left out").index(said.partition(":")[0]), said)
        )
        lines = [f"| {', '.join(by_verdict[said])} | {said} |" for said in order]
        parts.append("\n".join([f"\n## `{module}`\n", "| names | verdict |", "|---|---|", *lines]) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(document())
