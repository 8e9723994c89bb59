"""Random cores, called at random, give on a backend what they give in the loop."""

from __future__ import annotations

import os

import torch
from calls import Call, Outcome, calls, run
from cores import Core, cores
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor

INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
BACKEND = "triton" if INTERPRETING else "cpp"
MORE = int(os.environ.get("FLEXSN_MORE_EXAMPLES", "1"))
DTYPES = (torch.float32, torch.float64, torch.float16) + (() if INTERPRETING else (torch.bfloat16,))


def examples(count: int) -> settings:
    """The same examples at every run; ``FLEXSN_MORE_EXAMPLES=20`` looks at twenty times as many, new ones."""
    return settings(
        max_examples=count * MORE,
        derandomize=MORE == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )


def _same(got: Tensor, want: Tensor) -> bool:
    """Equal bits; NaN is NaN, and the two zeros are one."""
    return bool(((got == want) | ((got != got) & (want != want))).all())


def ties(core: Core) -> bool:
    """Whether one value is the state of several steps or several states of a step.

    The loop adds up what all of these receive at once; a scan hands on the sum that each step gives.
    """
    first = core.num_inputs
    unchanged = any(i in range(first, first + len(core.states)) for i in core.new_states)
    return unchanged or len(set(core.new_states)) < len(core.new_states)


def check(got: Outcome, want: Outcome, exact: bool, exact_gradients: bool) -> None:
    """Hold one outcome to the other."""
    for name, value in want.values.items():
        assert got.values[name].dtype == value.dtype, name
        if exact:
            assert _same(got.values[name], value), f"{name}: {got.values[name]} is not {value}"
        else:
            assert torch.allclose(got.values[name].double(), value.double(), 1e-4, 1e-4, equal_nan=True), name
    for name, gradient in want.gradients.items():
        other = got.gradients[name]
        if gradient is None or other is None:
            missing = gradient if other is None else other
            assert missing is None or not missing.any(), f"gradient of {name}: {other} is not {gradient}"
        elif exact_gradients and not name.startswith("parameter"):
            assert _same(other, gradient), f"gradient of {name}: {other} is not {gradient}"
        else:
            _assert_close(name, other, gradient)


def _assert_close(name: str, got: Tensor, want: Tensor) -> None:
    finite = want.isfinite()
    size = want[finite].abs().max().item() if finite.any() else 0.0
    eps = 1e-3 if want.dtype != torch.float64 else 1e-9
    assert torch.allclose(got[finite], want[finite], eps, eps * (1 + size)), f"gradient of {name}: {got} is not {want}"


@given(core=cores(), call=calls(DTYPES))
@examples(60)
def test_exact_core(core: Core, call: Call) -> None:
    want = run(core, call, "torch")
    check(run(core, call, BACKEND), want, exact=True, exact_gradients=not ties(core))


# a matrix of one neuron leaves the last dimension free, and runs as the loop
@given(core=cores(products=True), call=calls((torch.float64,)).filter(lambda call: call.step[-1] > 1))
@examples(8)
def test_core_with_products(core: Core, call: Call) -> None:
    want = run(core, call, "torch")
    check(run(core, call, BACKEND), want, exact=False, exact_gradients=False)
