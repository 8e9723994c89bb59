"""The report of ``flexsn.modules.explain`` as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flexsn.ir.format import format_nodes
from flexsn.ir.graph import Node
from flexsn.ir.plan import BackwardPlan, ForwardPlan, Role, Slot
from flexsn.planning.boundary import merged_step
from flexsn.planning.rematerialize import kept_values, remaining

if TYPE_CHECKING:
    from flexsn.modules.explain import KernelReport, Report

__all__ = ["report_text"]


def report_text(report: Report) -> str:
    """The whole report."""
    dtype = str(report.dtype).removeprefix("torch.")
    parts = [f"{report.name} on {report.target}, {dtype}"]
    if report.core:
        parts.append(_section("The core", report.core))
    names = _leaf_names(report)
    parts.append(_section("One step forward", "\n".join(_forward_step(report, dict(names)))))
    backward = report.kernels.get("backward")
    if backward is not None and isinstance(backward.plan, BackwardPlan):
        parts.append(_section("One step backward", "\n".join(_backward_step(report, backward.plan, dict(names)))))
        parts.append(_section("Saved and recomputed", "\n".join(_saved(report, backward.plan, dict(names)))))
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


def _leaf_names(report: Report) -> dict[int, str]:
    graph = report.graph
    return {id(n): name for n, name in zip((*graph.inputs, *graph.states), report.arguments, strict=True)}


def _split(report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of inputs and of states."""
    count = len(report.graph.inputs)
    return report.arguments[:count], report.arguments[count:]


def _forward_step(report: Report, names: dict[int, str]) -> list[str]:
    plan = report.kernels["inference"].plan
    assert isinstance(plan, ForwardPlan)
    _, states = _split(report)
    returns = [(f"y{i}", node) for i, node in enumerate(report.graph.outputs)]
    returns += [(name, node) for name, node in zip(states, report.graph.new_states, strict=True)]
    return _hoisted(names, plan.program.hoisted) + format_nodes(names, plan.program.body, returns)


def _hoisted(names: dict[int, str], nodes: Sequence[Node]) -> list[str]:
    if not nodes:
        return []
    return ["# once per lane, before the loop over time", *format_nodes(names, nodes, [])[:-1], "# every step"]


def _backward_step(report: Report, plan: BackwardPlan, names: dict[int, str]) -> list[str]:
    step = merged_step(plan)
    inputs, states = _split(report)
    for node in _every_leaf(step.program.body):
        if node.op == "cotangent":
            names[id(node)] = f"grad_y{node.index}"
        elif node.op == "state_cotangent":
            names[id(node)] = _gradient_name(states, node)
        elif node.op == "age":
            names[id(node)] = "is_last" if node.index == 0 else f"is_{node.index}_before_last"
    returns: list[tuple[str, Node | None]] = [(f"grad_{inputs[slot.index]}", node) for slot, node in step.stores]
    carried = zip(plan.carries, step.grad_states, strict=True)
    returns += [(_gradient_name(states, carry.leaf), node) for carry, node in carried]
    returns += [
        (f"add_to_sum{slot.index}", node) for slot, node in zip(plan.accumulators, step.accumulate, strict=True)
    ]
    return _hoisted(names, step.program.hoisted) + format_nodes(names, step.program.body, returns)


def _gradient_name(states: Sequence[str], leaf: Node) -> str:
    """Of a carried gradient; where a state's is carried in parts, they are numbered."""
    part, state = divmod(leaf.index, len(states))
    return f"grad_{states[state]}" + (f"_{part + 1}" if part else "")


def _every_leaf(nodes: Iterable[Node]) -> list[Node]:
    return list({id(a): a for n in nodes for a in n.args if a.is_leaf or a.op == "age"}.values())


def _saved(report: Report, plan: BackwardPlan, names: dict[int, str]) -> list[str]:
    _, states = _split(report)
    read = {s.index for s in plan.states}
    rows = []
    if read:
        listed = ", ".join(states[j] for j in sorted(read))
        rows.append(
            f"{listed}: stored once in {plan.checkpoint} steps, since gradients depend on it; what lies between is "
            "recomputed from there with the very same operations."
        )
    for j, name in enumerate(states):
        if j not in read:
            rows.append(f"{name}: not stored, no gradient depends on its value.")
    if report.target != "cpp":
        rows.append(_waiting(plan, names))
    rows.append("Nothing else is kept: inputs are read again, outputs are not needed.")
    if plan.accumulators:
        rows.append(f"{len(plan.accumulators)} sum(s) over time for the parameters, over lanes after the loop.")
    return [line for row in rows for line in textwrap.wrap(row, 100, initial_indent="- ", subsequent_indent="  ")]


def _waiting(plan: BackwardPlan, names: dict[int, str]) -> str:
    step = merged_step(plan)
    results = (*(n for _, n in step.stores), *step.accumulate, *step.grad_states)
    roots = [n for n in results if n is not None]
    kept = kept_values(roots)
    format_nodes(names, step.program.body, [])
    again = [n for n in remaining(roots, [*kept, *step.program.hoisted]) if not _is_gradient(n)]
    listed = ", ".join(names.get(id(n), f"{n.op}{n.index}") for n in kept) or "nothing"
    return (
        f"From the recomputation to the walk back, {listed} of each step waits in registers: the smallest set from "
        f"which the rest ({len(again)} operations) follows again."
    )


def _is_gradient(node: Node) -> bool:
    pending = [node]
    while pending:
        n = pending.pop()
        if n.op in ("cotangent", "state_cotangent", "age"):
            return True
        pending.extend(n.args)
    return False


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
    kind = {"cotangent": "gradient of output", "grad_input": "gradient of input"}.get(slot.kind, slot.kind)
    verb = "read" if slot.role is Role.LOAD else "write"
    return f"{verb} {kind} {slot.index} ({slot.dtype.itemsize})"


def _machine(kernel: KernelReport) -> str:
    offline = kernel.offline
    assert offline is not None
    tiling = offline.tiling
    fused = "no fused multiply-add" if not offline.fused else f"{offline.fused} fused multiply-adds (library functions)"
    return "\n".join(
        [
            f"{kernel.name}: {offline.registers} registers, {offline.spill_bytes} bytes spilled, {fused}, "
            f"compiled in {offline.seconds:.2f} s",
            f"    per step and thread: loads {_widths(offline.loads)}; stores {_widths(offline.stores)}",
            f"    {tiling.elements} lanes per thread, {tiling.warps} warps per block",
            f"    the model: {tiling.words} words live per lane, hence {tiling.registers} registers, {tiling.threads} "
            f"threads per multiprocessor ({tiling.occupancy:.0%}), {tiling.in_flight / 1024:.0f} KiB in flight",
        ]
    )


def _widths(counts: dict[int, float]) -> str:
    return ", ".join(f"{count:g} of {width} bits" for width, count in counts.items()) or "none"
