"""C++ printer: a scan plan as one ``extern "C"`` function over blocks of lanes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import torch

from flexsn.ir.graph import LeafKind, Node, topological
from flexsn.ir.plan import LANE_GROUP, BackwardPlan, BackwardStep, ForwardPlan, Plan, Role, Slot, programs
from flexsn.kernels.cpp.spelling import SPELLINGS
from flexsn.kernels.cpp.values import MEMORY, VALUE, cast, literal, load, store
from flexsn.kernels.writer import Writer

__all__ = ["ENTRY", "print_cpp"]

ENTRY = "flexsn_scan"
_STACK_BYTES = 192 << 10  # of a kernel at most: threads may have 512 KiB, of which Python takes its part
_BUFFER_BYTES, _ARRAY_BYTES = 12 << 10, 4 << 10  # about: fx::Tensor, and an array over the lanes of a block

_COORDINATES = {LeafKind.STEP_INDEX: "t", LeafKind.NUM_STEPS: "call.T"}


def print_cpp(plan: Plan) -> str:
    """The source of a kernel, without the text of ``scan.h``."""
    printer = _Printer(plan)
    source = printer.print()
    if len(printer.buffers) * _BUFFER_BYTES + printer.num_arrays * _ARRAY_BYTES > _STACK_BYTES:
        source = _Printer(plan, printer).print()
    return source


class _Printer:
    """Prints one kernel.

    Args:
        plan: what it does.
        measured: a printer that has printed it on the stack, whose arrays and buffers now go into a heap block.
    """

    def __init__(self, plan: Plan, measured: _Printer | None = None) -> None:
        self.plan = plan
        self.measured = measured
        self.buffers: list[str] = []
        self.num_arrays = 0
        self.w = Writer("  ")
        self.names: dict[int, str] = {}
        self.arrays: dict[int, str] = {}  # values that live in an array over the lanes of a block

    def print(self) -> str:
        w, plan = self.w, self.plan
        w('#include "scan.h"', "")
        with w.indent(f'extern "C" double {ENTRY}(const fx::i64* arguments) {{', "}"):
            w("const fx::Call call(arguments);", "fx::Team team(call);")
            w("#pragma omp parallel num_threads(call.threads) if (call.threads > 1)")
            with w.indent("{", "}"):
                if self.measured is not None:
                    sizes = [f"{self.measured.num_arrays} * 8 * fx::LANES", *self.measured.buffers]
                    w(f"const fx::Scratch heap({' + '.join(sizes)});", "fx::Pieces pieces{heap.memory};")
                for index, slot in enumerate(plan.slots):
                    kind = MEMORY[slot.dtype]
                    if slot.role is Role.GROUP_STORE:
                        w(f"{kind}* {slot.name} = call.data<{kind}>({index});")
                    else:
                        self._buffer(kind, slot.name, index)
                if isinstance(plan, BackwardPlan):
                    self._scratch(plan)
                with w.indent("for (fx::i64 b; team.take(b);) {", "}"):
                    w("const int lanes = call.lanes(b), n = fx::padded(lanes);")
                    if self.measured is not None:
                        w("fx::Pieces block = pieces;")
                    for slot in plan.slots:
                        if slot.role is not Role.GROUP_STORE:
                            w(f"{slot.name}.bind(b * call.block, lanes);")
                    for slot, leaf in plan.lane_loads:
                        self._array(leaf, leaf.label)
                        self._copy_in(slot, self.arrays[id(leaf)], leaf.dtype)
                    if isinstance(plan, ForwardPlan):
                        self._forward(plan)
                    else:
                        self._backward(plan)
            w("return team.lost();")
        return w.text()

    # ---- forward --------------------------------------------------------------------------------------------

    def _forward(self, plan: ForwardPlan) -> None:
        w = self.w
        self._hoist(plan.program.hoisted)
        for carry in plan.carries:
            assert carry.initial is not None
            self._array(carry.leaf, carry.leaf.label)
            self._copy_in(carry.initial, self.arrays[id(carry.leaf)], carry.leaf.dtype)
        with w.indent("for (fx::i64 t = 0; t < call.T; ++t) {", "}"):
            if plan.interval:
                with w.indent(f"if (t && t % {plan.interval} == 0) {{", "}"):
                    for slot, leaf in plan.checkpoints:
                        self._copy_out(slot, self.arrays[id(leaf)], leaf.dtype, f"t / {plan.interval} - 1")
            self._pointers((s for s, _ in plan.loads), "load", "t")
            self._pointers((s for s, _ in plan.stores), "store", "t")
            with self._lane_loop():
                self._read(plan.loads)
                self._compute(plan.program.body)
                for slot, node in plan.stores:
                    self._assign(slot, node)
                self._carry_on([(c.leaf, c.next) for c in plan.carries])
            for slot, _ in plan.stores:
                w(f"{slot.name}.flush(t);")
        for carry in plan.carries:
            if carry.final is not None:
                self._copy_out(carry.final, self.arrays[id(carry.leaf)], carry.leaf.dtype, "0")

    # ---- backward -------------------------------------------------------------------------------------------

    def _scratch(self, plan: BackwardPlan) -> None:
        w = self.w
        sizes = [f"sizeof({VALUE[s.dtype]})" for s in plan.states]
        if not sizes:
            return
        w(f"const fx::Scratch saved({plan.interval}LL * fx::LANES * ({' + '.join(sizes)}));")
        for i, state in enumerate(plan.states):
            offset = f"{plan.interval}LL * fx::LANES * ({' + '.join(sizes[:i]) or '0'})"
            kind = VALUE[state.dtype]
            w(f"{kind}* saved{state.index} = reinterpret_cast<{kind}*>(saved.memory + {offset});")

    def _backward(self, plan: BackwardPlan) -> None:
        w = self.w
        self._hoist(plan.hoisted)
        for carry in plan.carries:
            name = carry.leaf.label
            self._array(carry.leaf, name)
            if carry.initial is not None:
                self._copy_in(carry.initial, self.arrays[id(carry.leaf)], carry.leaf.dtype)
            else:
                w(f"for (int l = 0; l < n; ++l) {name}[l] = 0;")
        for slot in plan.accumulators:
            self._lanes(VALUE[slot.dtype], f"sum_{slot.name}")
            w(f"for (int l = 0; l < n; ++l) sum_{slot.name}[l] = 0;")
        k = plan.interval
        with w.indent(f"for (fx::i64 chunk = (call.T - 1) / {k}; chunk >= 0; --chunk) {{", "}"):
            w(f"const fx::i64 start = chunk * {k}, end = start + {k} < call.T ? start + {k} : call.T;")
            if plan.states:
                self._recompute(plan)
            with w.indent("for (fx::i64 t = end - 1; t >= start; --t) {", "}"):
                for state in plan.states:
                    kind = VALUE[state.dtype]
                    w(f"const {kind}* state{state.index} = saved{state.index} + (t - start) * fx::LANES;")
                    self.arrays[id(state)] = f"state{state.index}"
                for i, branch in enumerate(plan.branches):
                    opening = "{" if branch.when is None else f"if {self._uniform(branch.when)} {{"
                    with w.indent(f"else {opening}" if i else opening, "}"):
                        self._walk_back(plan, branch)
        self._finish(plan)
        for slot in plan.accumulators:
            if slot.role is Role.GROUP_STORE:
                to = f"{slot.name} + b * call.block / {LANE_GROUP}"
                w(f"fx::sum_groups<{LANE_GROUP}>(sum_{slot.name}, lanes, {to});")
            else:
                self._copy_out(slot, f"sum_{slot.name}", slot.dtype, "0")

    def _finish(self, plan: BackwardPlan) -> None:
        """Store what comes of the carried gradients."""
        if not plan.finals:
            return
        with self.w.indent("{", "}"):
            self._pointers((s for s, _ in plan.finals), "store", "0")
            with self._lane_loop():
                self._compute(topological(node for _, node in plan.finals))
                for slot, node in plan.finals:
                    self._assign(slot, node)
            for slot, _ in plan.finals:
                self.w(f"{slot.name}.flush(0);")

    def _recompute(self, plan: BackwardPlan) -> None:
        w = self.w
        for state, initial, checkpoint in zip(plan.states, plan.initial, plan.checkpoints, strict=True):
            with w.indent("{", "}"):
                kind = MEMORY[initial.dtype]
                w(f"const {kind}* from = chunk ? {checkpoint.name}.load(chunk - 1) : {initial.name}.load(0);")
                w(f"for (int l = 0; l < n; ++l) saved{state.index}[l] = from[l];")
        for slot in plan.walk_back_loads:  # comes in from memory meanwhile
            w(f"{slot.name}.prefetch(end - 1, n);")
        with w.indent("for (fx::i64 t = start; t + 1 < end; ++t) {", "}"):
            for state in plan.states:
                kind = VALUE[state.dtype]
                w(f"const {kind}* state{state.index} = saved{state.index} + (t - start) * fx::LANES;")
                w(f"{kind}* next{state.index} = saved{state.index} + (t - start + 1) * fx::LANES;")
                self.arrays[id(state)] = f"state{state.index}"
            for slot in plan.walk_back_loads:
                w(f"{slot.name}.prefetch(t, n);")
            self._pointers((s for s, _ in plan.advance_loads), "load", "t")
            with self._lane_loop():
                self._read(plan.advance_loads)
                self._compute(plan.advance.body)
                for state, node in zip(plan.states, plan.next_states, strict=True):
                    w(f"next{state.index}[l] = {self._use(node)};")

    def _walk_back(self, plan: BackwardPlan, step: BackwardStep) -> None:
        w = self.w
        self._pointers((s for s, _ in step.loads), "load", "t")
        self._pointers((s for s, _ in step.stores), "store", "t")
        with self._lane_loop():
            self._read(step.loads)
            self._compute(step.program.body)
            for slot, node in step.stores:
                self._assign(slot, node)
            for slot, node in zip(plan.accumulators, step.accumulate, strict=True):
                if node is not None:
                    w(f"sum_{slot.name}[l] += {self._use(node)};")
            self._carry_on([(c.leaf, n) for c, n in zip(plan.carries, step.grad_states, strict=True)])
        for slot, _ in step.stores:
            w(f"{slot.name}.flush(t);")

    def _carry_on(self, carried: Sequence[tuple[Node, Node | None]]) -> None:
        """Give carried values their next ones, all at once: states may change places."""
        leaves = {id(leaf) for leaf, _ in carried}
        following = {id(leaf): "0" if node is None else self._use(node) for leaf, node in carried if node is not leaf}
        for leaf, node in carried:
            if node is not leaf and id(node) in leaves:
                name = f"next_{self.arrays[id(leaf)]}"
                self.w(f"const {VALUE[leaf.dtype]} {name} = {following[id(leaf)]};")
                following[id(leaf)] = name
        for leaf, _ in carried:
            if id(leaf) in following:
                self.w(f"{self.arrays[id(leaf)]}[l] = {following[id(leaf)]};")

    # ---- pieces ---------------------------------------------------------------------------------------------

    def _lane_loop(self) -> AbstractContextManager[None]:
        self.names = {}
        self.w("#pragma omp simd")
        return self.w.indent("for (int l = 0; l < n; ++l) {", "}")

    def _hoist(self, nodes: Sequence[Node]) -> None:
        """Compute what does not change with time; keep in arrays what the loop over time reads."""
        read = {a for p in programs(self.plan) for n in p.body for a in n.args}.union(self._returned())
        held = [n for n in nodes if n in read]
        if not held:
            return
        for i, node in enumerate(held):
            self._lanes(VALUE[node.dtype], f"fixed{i}")
        with self._lane_loop():
            self._compute(nodes)
            for i, node in enumerate(held):
                self.w(f"fixed{i}[l] = {self._use(node)};")
        for i, node in enumerate(held):
            self.arrays[id(node)] = f"fixed{i}"

    def _returned(self) -> list[Node]:
        if isinstance(self.plan, ForwardPlan):
            return list(self.plan.results)
        return [*self.plan.next_states, *(n for branch in self.plan.branches for n in branch.results)]

    def _array(self, leaf: Node, name: str) -> None:
        self._lanes(VALUE[leaf.dtype], name)
        self.arrays[id(leaf)] = name

    def _lanes(self, kind: str, name: str) -> None:
        """An array over the lanes of a block."""
        self.num_arrays += 1
        if self.measured is None:
            self.w(f"alignas(64) {kind} {name}[fx::LANES];")
        else:
            self.w(f"{kind}* __restrict {name} = block.array<{kind}>();")

    def _buffer(self, kind: str, name: str, index: int) -> None:
        """A tensor, seen through one block of lanes."""
        self.buffers.append(f"sizeof(fx::Tensor<{kind}>)")
        if self.measured is None:
            self.w(f"fx::Tensor<{kind}> {name}(call, {index});")
        else:
            self.w(f"fx::Tensor<{kind}>& {name} = pieces.tensor<{kind}>(call, {index});")

    def _copy_in(self, slot: Slot, array: str, dtype: torch.dtype) -> None:
        with self.w.indent("{", "}"):
            self.w(f"const {MEMORY[slot.dtype]}* from = {slot.name}.load(0);")
            self.w(f"for (int l = 0; l < n; ++l) {array}[l] = {load('from[l]', slot.dtype, dtype)};")

    def _copy_out(self, slot: Slot, array: str, dtype: torch.dtype, t: str) -> None:
        with self.w.indent("{", "}"):
            self.w(f"{MEMORY[slot.dtype]}* to = {slot.name}.store({t});")
            self.w(f"for (int l = 0; l < n; ++l) to[l] = {store(f'{array}[l]', dtype, slot.dtype)};")
            self.w(f"{slot.name}.flush({t});")

    def _pointers(self, slots: Iterable[Slot], method: str, t: str) -> None:
        for slot in slots:
            const = "const " if method == "load" else ""
            self.w(f"{const}{MEMORY[slot.dtype]}* {slot.name}_t = {slot.name}.{method}({t});")

    def _read(self, loads: Iterable[tuple[Slot, Node]]) -> None:
        for slot, leaf in loads:
            value = load(f"{slot.name}_t[l]", slot.dtype, leaf.dtype)
            self.w(f"const {VALUE[leaf.dtype]} {slot.name}_l = {value};")
            self.names[id(leaf)] = f"{slot.name}_l"

    def _compute(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if id(node) in self.arrays or node.is_leaf:
                continue
            name = self.names[id(node)] = f"t{len(self.names)}"
            self.w(f"const {VALUE[node.dtype]} {name} = {self._expression(node)};")

    def _expression(self, node: Node) -> str:
        args = [self._use(a) for a in node.args]
        if node.op == "cast":
            return cast(args[0], node.args[0].dtype, node.dtype)
        text = SPELLINGS[str(node.op)].format(*args)
        small = not node.dtype.is_floating_point and node.dtype.itemsize < 4 and node.dtype != torch.bool
        return f"static_cast<{VALUE[node.dtype]}>({text})" if small else text

    def _uniform(self, node: Node) -> str:
        """A value that is the same for all lanes, as one expression."""
        if node.is_leaf:
            return self._use(node)
        return f"({SPELLINGS[str(node.op)].format(*map(self._uniform, node.args))})"

    def _use(self, node: Node) -> str:
        if node.is_const:
            return literal(node)
        if node.op in _COORDINATES:
            return _COORDINATES[node.op]
        if id(node) in self.arrays:
            return f"{self.arrays[id(node)]}[l]"
        return self.names[id(node)]

    def _assign(self, slot: Slot, node: Node | None) -> None:
        value = store("0" if node is None else self._use(node), slot.dtype if node is None else node.dtype, slot.dtype)
        self.w(f"{slot.name}_t[l] = {value};")
