"""The report of ``flexsn.modules.explain`` as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from flexsn.ir.format import Names
from flexsn.ir.graph import LeafKind, Node, reached_from, topological
from flexsn.ir.plan import BackwardPlan, ForwardPlan, Holds, Role, Saved, Slot
from flexsn.kernels.triton.samples import ROWS
from flexsn.kernels.triton.tiling import SampleTiling
from flexsn.report.report import KernelReport, Report

__all__ = ["report_text"]


_PER_STEP = {
    Holds.INPUT: "input",
    Holds.OUTPUT: "output",
    Holds.COTANGENT: "gradient of output",
    Holds.GRAD_INPUT: "gradient of input",
    Holds.SAVED: "saved value",
    Holds.FACTOR: "factor",
}


_FUSED = (
    "Fused: one kernel runs all steps, the {} product(s) of a step, which read across lanes, included;\n"
    '{}. Their sums run in ascending order of the index. In step mode "s", torch multiplies.'
)
_ALTERNATING = (
    "Alternating: every step runs {} product(s) by torch, which read across lanes,\n"
    "and a kernel for what lies between them; {}."
)


_FACTORS = {
    Holds.INPUT: "input {}",
    Holds.OUTPUT: "output {} of the step before",
    Holds.SAVED: "saved{}",
    Holds.GRAD_INPUT: "the gradient of input {}",
    Holds.FACTOR: "a sequence of its own (factor{})",
}


def report_text(report: Report) -> str:
    """The whole report."""
    dtype = str(report.dtype).removeprefix("torch.")
    parts = [f"{report.name} on {report.target}, {dtype}"]
    if report.core:
        parts.append(_section("The core", report.core))
    if report.unwatched:
        parts.append(_section("Recorded again at every call, since what it reads may change unseen", report.unwatched))
    if report.way is not None:
        how = _FUSED if report.way.fused else _ALTERNATING
        parts.append(_section("How it runs", how.format(len(report.graph.products), report.way.why)))
    parts.append(_section("One step forward", "\n".join(_forward_step(report))))
    backward = report.kernels.get("backward")
    if backward is not None and isinstance(backward.plan, BackwardPlan):
        parts.append(_section("One step backward", "\n".join(_backward_step(report, backward.plan))))
        parts.append(_section("Saved and recomputed", "\n".join(_saved(report, backward.plan))))
    elif report.no_backward:
        parts.append(_section("No backward kernel", report.no_backward))
    parts.append(_section("Memory traffic, bytes per lane and step", "\n".join(map(_traffic, report.kernels.values()))))
    compiled = [k for k in report.kernels.values() if k.offline is not None]
    if compiled:
        parts.append(_section("Machine code", "\n".join(map(_machine, compiled))))
    parts += [_section(f"Source of the {k.name} kernel", k.source.rstrip()) for k in report.kernels.values()]
    return "\n\n".join(parts) + "\n"


def _section(title: str, body: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{body}"


# ---- the step --------------------------------------------------------------------------------------------------


def _leaf_names(report: Report) -> dict[Node, str]:
    graph = report.graph
    return dict(zip((*graph.inputs, *graph.states), report.arguments, strict=True))


def _split(report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of inputs and of states."""
    count = len(report.graph.inputs)
    return report.arguments[:count], report.arguments[count:]


def _forward_step(report: Report) -> list[str]:
    names = Names(_leaf_names(report))
    _, states = _split(report)
    returns = [(f"y{i}", node) for i, node in enumerate(report.graph.outputs)]
    returns += list(zip(states, report.graph.new_states, strict=True))
    if report.graph.products:
        roots = [node for _, node in returns]
        return [*names.across(roots, report.graph.products), names.returned(returns)]
    plan = report.kernels["inference"].plan
    assert isinstance(plan, ForwardPlan)
    return [*names.program(plan.program), names.returned(returns)]


def _backward_names(report: Report, plan: BackwardPlan) -> Names:
    _, states = _split(report)
    leaves = _leaf_names(report)
    for node in topological(plan.step.results):
        if node.op is LeafKind.COTANGENT:
            leaves[node] = f"grad_y{node.index}"
        elif node.op is LeafKind.STATE_COTANGENT:
            leaves[node] = _gradient_name(states, node)
    for n, branch in enumerate(plan.branches):
        if branch.when is not None and branch.when.op == "eq":
            leaves[branch.when] = "is_last" if n == 0 else f"is_{n}_before_last"
    return Names(leaves)


def _backward_step(report: Report, plan: BackwardPlan) -> list[str]:
    names, step = _backward_names(report, plan), plan.step
    inputs, states = _split(report)
    returns: list[tuple[str, Node | None]] = [
        (f"grad_{inputs[slot.index]}" if slot.holds is Holds.GRAD_INPUT else f"factor{slot.index}", node)
        for slot, node in step.stores
    ]
    carried = zip(plan.carries, step.grad_states, strict=True)
    returns += [(_gradient_name(states, carry.leaf), node) for carry, node in carried]
    returns += [
        (f"add_to_sum{slot.index}", node) for slot, node in zip(plan.accumulators, step.accumulate, strict=True)
    ]
    return [*names.program(step.program), names.returned(returns)]


def _gradient_name(states: Sequence[str], leaf: Node) -> str:
    """Of a carried gradient; where a state's is carried in parts, they are numbered."""
    return f"grad_{states[leaf.index]}" + (f"_{leaf.part + 1}" if leaf.part else "")


def _saved(report: Report, plan: BackwardPlan) -> list[str]:
    _, states = _split(report)
    if report.way is not None:
        return _wrapped(_saved_of_steps(report, plan))
    read = {s.index for s in plan.states}
    rows = []
    if read:
        listed = ", ".join(states[j] for j in sorted(read))
        rows.append(
            f"{listed}: stored once in {plan.interval} steps, since gradients depend on it; what lies between is "
            "recomputed from there with the very same operations."
        )
    for j, name in enumerate(states):
        if j not in read:
            rows.append(f"{name}: not stored, no gradient depends on its value.")
    if plan.saved is not None:
        rows.append(_waiting(_backward_names(report, plan), plan, plan.saved))
    rows.append("Nothing else is kept: inputs are read again, outputs are not needed.")
    return _wrapped([*rows, *_sums(plan)])


def _sums(plan: BackwardPlan) -> list[str]:
    if not plan.accumulators:
        return []
    return [f"{len(plan.accumulators)} sum(s) over time for the parameters, over lanes after the loop."]


def _saved_of_steps(report: Report, plan: BackwardPlan) -> list[str]:
    """What the forward pass of a step with products leaves."""
    forward = report.kernels["forward"].plan
    assert isinstance(forward, ForwardPlan)
    names = Names(_leaf_names(report))
    names.across((*report.graph.outputs, *report.graph.new_states), report.graph.products)  # as the step is shown
    saved = [
        f"{names.of(node)} ({LeafKind.SAVED.label}{slot.index})"
        for slot, node in forward.stores
        if slot.holds is Holds.SAVED
    ]
    rows = [
        f"{', '.join(saved) or 'nothing'}: stored at every step, the least from which the rest of it follows again "
        "without a product."
    ]
    for outer in plan.outers:
        left, right = (_FACTORS[f.slot.holds].format(f.slot.index) for f in (outer.left, outer.right))
        rows.append(f"the gradient of a matrix: one product after the loop, of {left} and {right}.")
    return [*rows, *_sums(plan)]


def _wrapped(rows: Sequence[str]) -> list[str]:
    return [line for row in rows for line in textwrap.wrap(row, 100, initial_indent="- ", subsequent_indent="  ")]


def _waiting(names: Names, plan: BackwardPlan, saved: Saved) -> str:
    names.program(plan.step.program)  # as the step is shown
    back = (LeafKind.COTANGENT, LeafKind.STATE_COTANGENT, LeafKind.STEP_INDEX)
    gradients = reached_from(topological(plan.step.results), lambda n: n.op in back)
    again = [n for n in saved.walk_back if id(n) not in gradients]
    listed = ", ".join(map(names.of, saved.values)) or "nothing"
    return (
        f"From the recomputation to the walk back, {listed} of each step waits in registers: the smallest set from "
        f"which the rest ({len(again)} operations) follows again."
    )


# ---- the kernels -----------------------------------------------------------------------------------------------


def _traffic(kernel: KernelReport) -> str:
    least = sum(s.dtype.itemsize for s in kernel.plan.slots if s.role.per_step)
    total = kernel.bytes_per_lane_step
    rest = ""
    if total > least:
        rest = f" + states {total - least:g} (once in {kernel.checkpoint} steps)"
    steps = [s for s in kernel.plan.slots if s.role.per_step]
    return f"{kernel.name:10} {total:>6g}  = {' + '.join(map(_slot, steps))}{rest}; the floor is {least:g}"


def _slot(slot: Slot) -> str:
    verb = "read" if slot.role is Role.LOAD else "write"
    return f"{verb} {_PER_STEP[slot.holds]} {slot.index} ({slot.dtype.itemsize})"


def _machine(kernel: KernelReport) -> str:
    offline = kernel.offline
    assert offline is not None
    tiling = offline.tiling
    if isinstance(tiling, SampleTiling):
        dealt = [f"    {ROWS} samples of {tiling.size} lanes per block, {tiling.warps} warps"]
    else:
        dealt = [
            f"    {tiling.elements} lanes per thread, {tiling.warps} warps per block",
            f"    the model: {tiling.words} words live per lane, hence {tiling.registers} registers, {tiling.threads} "
            f"threads per multiprocessor ({tiling.occupancy:.0%}), {tiling.in_flight / 1024:.0f} KiB in flight",
        ]
    fused = "no fused multiply-add" if not offline.fused else f"{offline.fused} fused multiply-adds (library functions)"
    return "\n".join(
        [
            f"{kernel.name}: {offline.registers} registers, {offline.spill_bytes} bytes spilled, {fused}, "
            f"compiled in {offline.seconds:.2f} s",
            f"    per step and thread: loads {_widths(offline.loads)}; stores {_widths(offline.stores)}",
            *dealt,
        ]
    )


def _widths(counts: dict[int, float]) -> str:
    return ", ".join(f"{count:g} of {width} bits" for width, count in counts.items()) or "none"
