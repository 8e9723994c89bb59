"""Steps and plans as readable Python, each operation under the user's own line that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from flexsn.errors import SourceLine
from flexsn.ir.graph import LeafKind, Node, leaf_name, topological
from flexsn.ir.passes import describe
from flexsn.ir.plan import BackwardPlan, BackwardStep, Carry, Factor, ForwardPlan, Holds, OuterSum, Slot
from flexsn.ir.program import Program
from flexsn.ir.step import Product, StepGraph, StepVjp, with_sources

__all__ = ["Names", "describe"]

Returned = Iterable[tuple[str, Node | None]]


class Names:
    """Names of the values of one form, and the rows that compute them.

    Args:
        leaves: names of some leaves; the others have their own.
    """

    def __init__(self, leaves: Mapping[Node, str] | None = None) -> None:
        self._names = dict(leaves or {})
        self._line: SourceLine | None = None

    def of(self, node: Node | None) -> str:
        """The name of a value, or its literal."""
        if node is None:
            return "None"
        if node.is_const:
            return repr(node.value).replace("inf", "float('inf')").replace("nan", "float('nan')")
        if node not in self._names:
            self._names[node] = node.label if node.is_leaf else f"t{len(self._names)}"
        return self._names[node]

    def name(self, node: Node, name: str) -> None:
        self._names[node] = name

    def rows(self, nodes: Iterable[Node]) -> list[str]:
        """A row per operation."""
        rows: list[str] = []
        for node in nodes:
            if node.is_leaf:
                continue
            if node.line is not None and node.line != self._line:
                rows.append(f"# {node.line.text}  ({node.line.function}:{node.line.lineno})")
                self._line = node.line
            name, dtype = self.of(node), _name(node.dtype)
            args = ", ".join(map(self.of, node.args)) + (f", {dtype}" if node.op == "cast" else "")
            rows.append(f"{name} = {node.op}({args})  # {dtype}")
        return rows

    def across(self, roots: Iterable[Node], products: Sequence[Product]) -> list[str]:
        """A row per operation and product of a step."""
        rows: list[str] = []
        done: set[Node] = set()
        for product in (*products, None):
            needed = [n for n in topological(roots if product is None else [product.source]) if n not in done]
            done.update(needed)
            rows += self.rows(needed)
            if product is not None:
                read = [leaf_name(LeafKind.OPERAND, i) for i in product.operands]
                rows.append(self.product(product, read))
        return rows

    def product(self, product: Product, operands: Iterable[str]) -> str:
        """The row of a product."""
        name = "matmul" if product.call is None else product.call.name
        read = ", ".join([self.of(product.source), *operands])
        return f"{self.of(product.leaf)} = {name}({read})  # {_name(product.leaf.dtype)}"

    def steps(self, program: Program) -> list[str]:
        """What is computed at every step."""
        if not program.stages:
            return self.rows(program.body)
        rows: list[str] = []
        for stage in program.stages:
            rows += self.rows(stage.nodes)
            rows += [self.product(p, [f"{Holds.MATRIX.value}{p.operands[0]}"]) for p in stage.products]
        return rows

    def returned(self, values: Returned) -> str:
        """The row that gives values back by name."""
        return f"return dict({', '.join(f'{label}={self.of(node)}' for label, node in values)})"

    def program(self, program: Program) -> list[str]:
        """What is computed once, then at every step."""
        body = self.steps(program)
        if not program.hoisted:
            return body
        return ["# once per lane, before the loop over time", *self.rows(program.hoisted), "# every step", *body]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def indented(rows: Iterable[str]) -> list[str]:
    return [f"    {row}" for row in rows]


def _function(name: str, arguments: Iterable[str], rows: Sequence[str]) -> str:
    return "\n".join([f"def {name}({', '.join(arguments)}):", *indented(rows or ["pass"])])


# ---- steps --------------------------------------------------------------------------------------------------


@describe.register
def _step_graph(step: StepGraph) -> str:
    names = Names()
    returns = [*((f"output{i}", n) for i, n in enumerate(step.outputs))]
    returns += [(f"new_state{j}", n) for j, n in enumerate(step.new_states)]
    rows = [*names.across((n for _, n in returns), step.products), names.returned(returns)]
    return _function("step", _leaves(step.products, step.inputs, step.states, (n for _, n in returns)), rows)


@describe.register
def _step_vjp(vjp: StepVjp) -> str:
    names = Names()
    returns: list[tuple[str, Node | None]] = [(f"grad_input{i}", n) for i, n in enumerate(vjp.grad_inputs)]
    for j, summands in enumerate(vjp.grad_states):
        returns += [(f"grad_state{j}" + (f"_part{i}" if i else ""), n) for i, n in enumerate(summands)]
    returns += [(f"sum{i}", r.node) for i, r in enumerate(vjp.reductions)]
    for i, outer in enumerate(vjp.outers):
        returns += [(f"outer{i}_left", outer.left), (f"outer{i}_right", outer.right)]
    rows = [*names.across(vjp.results, vjp.products), names.returned(returns)]
    return _function("vjp", _leaves(vjp.products, vjp.results), rows)


@describe.register
def _backward_step(step: BackwardStep) -> str:
    names = Names()
    returns: list[tuple[str, Node | None]] = [(slot.name, node) for slot, node in step.stores]
    returns += [(f"grad{i}", node) for i, node in enumerate(step.grad_states)]
    returns += [(f"sum{i}", node) for i, node in enumerate(step.accumulate)]
    rows = [*names.program(step.program), names.returned(returns)]
    return _function("backward_step", _leaves((), step.results), rows)


def _leaves(products: Sequence[Product], *roots: Iterable[Node]) -> list[str]:
    """The labels of the leaves some roots depend on, literals and products apart; matrices last."""
    order = topological(with_sources([n for group in roots for n in group], products))
    labels = [n.label for n in order if n.is_leaf and not n.is_const and n.op is not LeafKind.PRODUCT]
    return list(dict.fromkeys([*labels, *(leaf_name(LeafKind.OPERAND, i) for p in products for i in p.operands)]))


# ---- plans --------------------------------------------------------------------------------------------------


@describe.register
def _forward_plan(plan: ForwardPlan) -> str:
    names = Names()
    rows = _once(names, plan.lane_loads, plan.program.hoisted)
    rows += [f"{names.of(c.leaf)} = {c.initial.name}" for c in plan.carries if c.initial]
    step: list[str] = []
    if plan.checkpoints:
        k = plan.interval
        step.append(f"if t and t % {k} == 0:")
        step += indented(f"{slot.name}[t // {k} - 1] = {names.of(leaf)}" for slot, leaf in plan.checkpoints)
    step += [f"{names.of(leaf)} = {slot.name}[t]" for slot, leaf in plan.loads]
    step += names.steps(plan.program)
    step += [f"{slot.name}[t] = {names.of(node)}" for slot, node in plan.stores]
    step += _carry_on(names, plan.carries, [c.next for c in plan.carries])
    rows += ["for t in range(T):", *indented(step or ["pass"])]
    rows += [f"{c.final.name} = {names.of(c.leaf)}" for c in plan.carries if c.final]
    return _function("forward", [*(s.name for s in plan.slots), "T"], rows)


@describe.register
def _backward_plan(plan: BackwardPlan) -> str:
    names, k = Names(), plan.interval
    rows = _once(names, plan.lane_loads, plan.hoisted)
    rows += [f"{names.of(c.leaf)} = {c.initial.name if c.initial else 0}" for c in plan.carries]
    rows += [f"sum_{slot.name} = 0" for slot in plan.accumulators]
    chunk = [f"start, end = chunk * {k}, min(T, chunk * {k} + {k})", *_recompute(names, plan)]
    chunk += ["for t in reversed(range(start, end)):", *indented(_walk_back(names, plan) or ["pass"])]
    rows += [f"for chunk in reversed(range(ceil(T / {k}))):", *indented(chunk)]
    rows += names.rows(topological(node for _, node in plan.finals))
    rows += [f"{slot.name} = {names.of(node)}" for slot, node in plan.finals]
    rows += [f"{slot.name} = sum_{slot.name}" for slot in plan.accumulators]
    rows += map(_outer_sum, plan.outers)
    return _function("backward", [*(s.name for s in plan.slots), "T"], rows)


def _outer_sum(outer: OuterSum) -> str:
    """Over all steps and samples."""
    left, right = map(_factor, (outer.left, outer.right))
    return f"outer{outer.number} = sum(({left}[:, :, None] * {right}[:, None, :]).sum(0) for t in range(T))"


def _factor(factor: Factor) -> str:
    if factor.state is None:
        return f"{factor.slot.name}[t]"
    return f"({factor.slot.name}[t - 1] if t else {Holds.STATE.value}{factor.state})"


def _once(names: Names, loads: Iterable[tuple[Slot, Node]], hoisted: Iterable[Node]) -> list[str]:
    return [*(f"{names.of(leaf)} = {slot.name}" for slot, leaf in loads), *names.rows(hoisted)]


def _carry_on(names: Names, carries: Sequence[Carry], following: Iterable[Node | None]) -> list[str]:
    """All carried values at once; an absent gradient is zero."""
    leaves = ", ".join(names.of(c.leaf) for c in carries)
    values = ", ".join("0" if node is None else names.of(node) for node in following)
    return [f"{leaves} = {values}"] if carries else []


def _recompute(names: Names, plan: BackwardPlan) -> list[str]:
    """The states of a chunk, and what of its steps waits for the walk back."""
    waiting = plan.states if plan.saved is None else plan.saved.values
    if not (plan.states or waiting):
        return []
    rows = [
        f"{names.of(s)} = {checkpoint.name}[chunk - 1] if chunk else {initial.name}"
        for s, checkpoint, initial in zip(plan.states, plan.checkpoints, plan.initial, strict=True)
    ]
    recompute, advance = (plan.saved.recompute, plan.saved.advance) if plan.saved else ((), plan.advance.body)
    step = _read(names, plan.chunk_loads, [*recompute, *advance], [*waiting, *plan.next_states])
    step += names.rows(recompute)
    step += [f"saved[t] = {', '.join(map(names.of, waiting)) or '()'}"]
    step += names.rows(advance)
    if plan.states:
        step += [f"{', '.join(map(names.of, plan.states))} = {', '.join(map(names.of, plan.next_states))}"]
    return [*rows, "for t in range(start, end):", *indented(step)]


def _walk_back(names: Names, plan: BackwardPlan) -> list[str]:
    """One step back: a branch each, or all of them as one graph."""
    waiting = plan.states if plan.saved is None else plan.saved.values
    rows = [f"{', '.join(map(names.of, waiting))} = saved[t]"] if waiting else []
    if plan.saved is not None:
        rows += _read(names, plan.step.loads, plan.saved.walk_back, plan.step.results)
        return [*rows, *_gradients(names, plan, plan.step, names.rows(plan.saved.walk_back))]
    rows += [f"{names.of(leaf)} = {slot.name}[t]" for slot, leaf in plan.step.loads]
    conditions = [branch.when for branch in plan.branches if branch.when is not None]
    rows += names.rows(topological(conditions))
    for n, branch in enumerate(plan.branches):
        opening = f"if {names.of(branch.when)}:" if branch.when is not None else "else:" if n else "if True:"
        rows += [f"el{opening}" if n and branch.when is not None else opening]
        rows += indented(_gradients(names, plan, branch, names.steps(branch.program)) or ["pass"])
    return rows


def _read(names: Names, loads: Iterable[tuple[Slot, Node]], nodes: Iterable[Node], values: Iterable[Node]) -> list[str]:
    """A row per load that the nodes read, or that is one of the values itself."""
    read = {*values, *(arg for node in nodes for arg in node.args)}
    return [f"{names.of(leaf)} = {slot.name}[t]" for slot, leaf in loads if leaf in read]


def _gradients(names: Names, plan: BackwardPlan, step: BackwardStep, body: Sequence[str]) -> list[str]:
    rows = [*body]
    rows += [f"{slot.name}[t] = {'0' if node is None else names.of(node)}" for slot, node in step.stores]
    rows += [
        f"sum_{slot.name} += {names.of(node)}"
        for slot, node in zip(plan.accumulators, step.accumulate, strict=True)
        if node is not None
    ]
    return rows + _carry_on(names, plan.carries, step.grad_states)
