"""From a step graph and its vjps to plans."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

from flexsn.ir.graph import Node
from flexsn.ir.passes import passed
from flexsn.ir.plan import Holds
from flexsn.ir.step import StepGraph
from flexsn.planning.backward import plan_backward
from flexsn.planning.boundary import Cut, branches_from_end, unify_last_steps
from flexsn.planning.forward import plan_forward, step_bytes
from flexsn.planning.fused import Way, reading_saved, values_of_steps, way_of
from flexsn.planning.lengths import with_lengths
from flexsn.planning.liveness import leads_nowhere, prune_gradients, states_to_checkpoint
from flexsn.planning.reductions import with_reductions
from flexsn.planning.rematerialize import choose_saved
from flexsn.planning.request import Gradients, ScanPlans, ScanRequest, Target, Vjp
from flexsn.planning.resets import with_resets
from flexsn.planning.rules import SequenceRules

__all__ = [
    "Gradients",
    "ScanPlans",
    "ScanRequest",
    "SequenceRules",
    "Target",
    "Way",
    "plan_scan",
    "step_by_rules",
    "way_of",
]

_PLANS: WeakKeyDictionary[StepGraph, dict[tuple[ScanRequest, str], ScanPlans]] = WeakKeyDictionary()
"""Plans last as long as the step they are of."""


def plan_scan(step: StepGraph, vjp: Vjp, request: ScanRequest, target: Target) -> ScanPlans:
    """The one door to planning: what the kernels of one kind of call do.

    Args:
        step: one step forward.
        vjp: one step backward, for any pattern of gradients.
        request: the kind of call.
        target: the backend.
    """
    known = _PLANS.setdefault(step, {})
    key = (request, target.name)
    if key not in known:
        known[key] = (
            _forward(step, vjp, request, target)
            if request.gradients is None
            else _both(step, vjp, request, request.gradients, target)
        )
    return known[key]


def _forward(step: StepGraph, vjp: Vjp, request: ScanRequest, target: Target) -> ScanPlans:
    step, vjp = step_by_rules(step, vjp, request.rules)
    live: tuple[int, ...] = ()
    saved: tuple[Node, ...] = ()
    read_again: tuple[int, ...] = ()
    interval = None
    if request.training:
        if step.products:
            saved, read_again = values_of_steps(step, vjp, request)
        else:
            live = states_to_checkpoint(step, vjp)
        interval = request.interval or target.choose_interval(step_bytes(step, request, live))
    forward = replace(plan_forward(step, request, live, interval, saved), read_again=read_again)
    passed("forward plan" if request.training else "inference plan", forward)
    return ScanPlans(forward, None)


def _both(step: StepGraph, vjp: Vjp, request: ScanRequest, gradients: Gradients, target: Target) -> ScanPlans:
    forward = plan_scan(step, vjp, replace(request, gradients=None), target).forward
    assert forward.interval is not None
    num_states = len(step.states)
    core, core_vjp = step, vjp
    step, vjp = step_by_rules(step, vjp, request.rules)
    if step.products:
        vjp = reading_saved(step, vjp, [n for slot, n in forward.stores if slot.holds is Holds.SAVED])
    every = request.rules and request.rules.detach_every
    whens, vjps = zip(*branches_from_end(step, vjp, gradients, Cut(every, num_states) if every else None), strict=True)
    if leads_nowhere(vjps, num_states):
        return ScanPlans(forward, None)
    wanted = prune_gradients(vjps, gradients)
    if request.rules and request.rules.lengths:
        # what the states of a sample past its end would be is read by no gradient, so nothing is chosen there
        step = step_by_rules(core, core_vjp, replace(request.rules, lengths=False))[0]
    branches = plan_backward(step, list(zip(whens, wanted, strict=True)), request, gradients, forward.interval)
    backward = branches if step.products else unify_last_steps(step.builder, branches)
    passed("unified backward step", backward.step)
    if target.saves_in_registers and not step.products:
        backward = choose_saved(backward)
    passed("backward plan", backward)
    return ScanPlans(forward, backward)


def step_by_rules(step: StepGraph, vjp: Vjp, rules: SequenceRules | None) -> tuple[StepGraph, Vjp]:
    """The step that a scan by these rules takes."""
    if rules is None:
        return step, vjp
    if rules.resets:
        step, vjp = with_resets(step, vjp, rules.learned)
    if rules.time_reduction or rules.rate:
        step, vjp = with_reductions(step, vjp, rules)
    if rules.lengths:
        step, vjp = with_lengths(step, vjp, rules.wanted_states)
    passed("step by rules", step)
    return step, vjp
