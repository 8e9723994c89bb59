"""What the kernels of a step compute, as expressions."""

from __future__ import annotations

from small_step import told

from flexsn.ir.graph import Node
from flexsn.ir.spec import verify
from flexsn.planning.stages import Key, StageKernel, StepPlan


def named(key: Key) -> str:
    return told(key) if isinstance(key, Node) else " ".join(told(p) if isinstance(p, Node) else str(p) for p in key)


def computed(kernel: StageKernel) -> dict[str, str]:
    """What a kernel writes where."""
    if kernel.plan is None:
        assert kernel.keys == ()
        return {}
    plan = kernel.plan
    verify(plan)
    assert plan.stores, "no kernel has nothing to do"
    keys = dict(zip(plan.slots, map(named, kernel.keys), strict=True))
    names = {leaf: keys[slot] for slot, leaf in plan.loads}
    return {keys[slot]: told(node, names) for slot, node in plan.stores}


def stages(plan: StepPlan) -> list[tuple[dict[str, str], list[str]]]:
    """What the kernel of each stage writes where, then what is multiplied."""
    return [(computed(kernel), [told(p.leaf) for p in kernel.products]) for kernel in plan.stages]


def same(plan: StepPlan) -> dict[str, str]:
    return {named(a): named(b) for a, b in plan.same.items()}
