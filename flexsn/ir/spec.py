"""What every graph and plan keeps to; the tests check each that is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch

import torch

from flexsn.ir.graph import LeafKind, Node, topological
from flexsn.ir.ops import OPS, Rule
from flexsn.ir.plan import BackwardPlan, BackwardStep, Carry, ForwardPlan, Holds, Role, Slot
from flexsn.ir.program import Program
from flexsn.ir.step import Product, StepGraph, StepVjp, with_sources

__all__ = ["SpecError", "verify"]

_HALF = (torch.float16, torch.bfloat16)


class SpecError(Exception):
    """A graph or plan that flexsn made is not well formed: a bug of flexsn."""


def require(holds: bool, what: str, form: object) -> None:
    if not holds:
        raise SpecError(f"{what}: {form!r}")


@singledispatch
def verify(form: object) -> None:
    """Check a step, a vjp or a plan; other forms have no rules.

    Raises:
        SpecError: it is not well formed.
    """


def verify_node(node: Node) -> None:
    """A node obeys the rule of its operation."""
    if isinstance(node.op, LeafKind):
        require(not node.args, "a leaf has no arguments", node)
        require(node.is_const == (node.value is not None), "literals, and only these, have a value", node)
        require(not node.part or node.op is LeafKind.STATE_COTANGENT, "only gradients of states come in parts", node)
        require(not node.op.is_coordinate or node.dtype == torch.int64, "a coordinate has 64 bits", node)
        return
    require(node.op in OPS, "no such operation", node)
    op, dtypes = OPS[node.op], [a.dtype for a in node.args]
    require(len(dtypes) == op.arity, f"{op.name} takes {op.arity} argument(s)", node)
    same, result = len(set(dtypes)) == 1, node.dtype
    fits = {
        Rule.SAME: same and dtypes[0] == result,
        Rule.COMPARE: same and result == torch.bool,
        Rule.LOGICAL: same and dtypes[0] == result == torch.bool,
        Rule.TEST: result == torch.bool,
        Rule.SELECT: dtypes[0] == torch.bool and set(dtypes[1:]) == {result},
        Rule.CAST: dtypes[0] != result,
    }[op.rule]
    require(fits, f"{op.name} of {dtypes} is no {result}", node)
    require(op.rule in (Rule.CAST, Rule.SELECT) or result not in _HALF, "16-bit floats are not computed in", node)


def _graph(roots: Iterable[Node], backward: bool) -> None:
    for node in topological(roots):
        verify_node(node)
        is_gradient = isinstance(node.op, LeafKind) and node.op.is_gradient
        require(backward or not is_gradient, "a gradient on the way forward", node)


def _products(products: Sequence[Product], roots: Iterable[Node]) -> list[Node]:
    """Every product is there before what depends on it; returns the roots and the sources."""
    roots, known = list(roots), set[Node]()

    def there(values: list[Node]) -> None:
        missing = [n for n in topological(values) if n.op is LeafKind.PRODUCT and n not in known]
        require(not missing, "a product that is not there yet", missing)

    for product in products:
        there([product.source])
        require(product.leaf.dtype == product.source.dtype, "a product keeps the dtype", product)
        known.add(product.leaf)
    there(roots)
    return with_sources(roots, products)


@verify.register
def _step(step: StepGraph) -> None:
    _graph(_products(step.products, (*step.outputs, *step.new_states)), backward=False)
    for kind, leaves in ((LeafKind.INPUT, step.inputs), (LeafKind.STATE, step.states)):
        require([(n.op, n.index) for n in leaves] == [(kind, i) for i in range(len(leaves))], "arguments", leaves)
    require([n.dtype for n in step.states] == [n.dtype for n in step.new_states], "a state keeps its dtype", step)


@verify.register
def _vjp(vjp: StepVjp) -> None:
    _graph(_products(vjp.products, vjp.results), backward=True)


def _program(program: Program, known: Iterable[Node]) -> set[Node]:
    """Everything a program computes is computed after what it is computed from."""
    done = set(known)

    def compute(nodes: Iterable[Node]) -> None:
        for node in nodes:
            verify_node(node)
            for arg in node.args:
                require(_there(arg, done), f"{arg!r} is not there yet", node)
            done.add(node)

    compute(program.hoisted)
    compute(() if program.stages else program.body)
    for stage in program.stages:
        compute(stage.nodes)
        for product in stage.products:
            require(product.call is None, "only products with matrices are fused", product)
            require(_there(product.source, done), "a product of what is not there yet", product)
        done.update(product.leaf for product in stage.products)
    staged = [n for stage in program.stages for n in stage.nodes]
    require(not program.stages or staged == [*program.body], "the stages are the body", program)
    for node in program.hoisted:
        varying = [n for n in topological([node]) if isinstance(n.op, LeafKind) and n.op.varies]
        require(not varying, "hoisted, but it changes with time", node)
    return done


def _there(node: Node, done: set[Node]) -> bool:
    return node in done or (isinstance(node.op, LeafKind) and node.op.is_uniform)


def _slots(slots: Sequence[Slot], used: Iterable[Slot]) -> None:
    require(len({s.name for s in slots}) == len(slots), "two slots of one name", slots)
    require(set(used) == set(slots), "every slot is used, and no other", slots)


def _matrices(programs: Iterable[Program]) -> list[Slot]:
    read = {(p.operands[0], p.leaf.dtype) for program in programs for p in program.products}
    return [Slot(Role.MATRIX, dtype, Holds.MATRIX, number) for number, dtype in read]


def _carries(carries: Sequence[Carry]) -> list[Slot]:
    return [s for c in carries for s in (c.initial, c.final) if s is not None]


@verify.register
def _forward(plan: ForwardPlan) -> None:
    leaves = [n for _, n in (*plan.loads, *plan.lane_loads)] + [c.leaf for c in plan.carries]
    done = _program(plan.program, leaves)
    for node in plan.results:
        require(_there(node, done), "stored, but not computed", node)
    touched = [s for s, _ in (*plan.loads, *plan.lane_loads, *plan.stores, *plan.checkpoints)]
    _slots(plan.slots, [*touched, *_carries(plan.carries), *_matrices([plan.program])])
    require(plan.interval is None or plan.interval % plan.unroll == 0, "unroll divides the interval", plan.unroll)
    require(all(c.initial is not None for c in plan.carries), "a state starts somewhere", plan.carries)


@verify.register
def _backward(plan: BackwardPlan) -> None:
    once = [n for _, n in plan.lane_loads]
    _program(plan.advance, [*once, *plan.states, *(n for _, n in plan.advance_loads)])
    carried = [c.leaf for c in plan.carries]
    for step in (*plan.branches, plan.step):
        _backward_step(step, [*once, *plan.states, *carried], plan)
    require([b.when is None for b in plan.branches] == [False] * (len(plan.branches) - 1) + [True], "branches", plan)
    require(plan.step.when is None, "one step for all is for all", plan.step)
    read = [s for s, _ in (*plan.lane_loads, *plan.step.loads, *plan.advance_loads, *plan.finals)]
    read += [s for branch in plan.branches for s, _ in branch.loads] + _matrices(b.program for b in plan.branches)
    written = [*(s for s, _ in plan.step.stores), *plan.accumulators]
    _slots(plan.slots, [*read, *written, *plan.initial, *plan.checkpoints, *_carries(plan.carries)])
    for outer in plan.outers:
        for slot in (outer.left.slot, outer.right.slot):
            require(not slot.role.writes or slot in written, "a factor that is not written", outer)
    for node in topological(n for _, n in plan.finals):
        require(node in carried or not node.is_leaf, "a gradient that is not carried", node)
    if plan.saved is not None:
        saved = plan.saved
        there = _program(Program((), (*saved.recompute,)), [*_loaded(plan), *plan.states])
        require(set(saved.values) <= there, "saved, but not computed", saved.values)
        _program(Program((), saved.advance), there)
        _program(Program((), saved.walk_back), [*_loaded(plan), *saved.values, *carried])


def _loaded(plan: BackwardPlan) -> list[Node]:
    return [*plan.hoisted, *(n for _, n in (*plan.lane_loads, *plan.chunk_loads))]


def _backward_step(step: BackwardStep, known: list[Node], plan: BackwardPlan) -> None:
    done = _program(step.program, [*known, *(n for _, n in step.loads)])
    for node in step.results:
        require(_there(node, done), "a gradient that is not computed", node)
    for name, values, slots in (
        ("accumulator", step.accumulate, plan.accumulators),
        ("carry", step.grad_states, plan.carries),
    ):
        require(len(values) == len(slots), f"one value per {name}", step)
    require(all(s.role is Role.STORE for s, _ in step.stores), "gradients of inputs are stored", step.stores)
