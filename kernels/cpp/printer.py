"""C++ printer: a scan plan as one ``extern "C"`` function over blocks of lanes."""

from __future__ import annotations

from collections.abc import Sequence

from flexsn.ir.graph import Node, topological
from flexsn.ir.plan import LANE_GROUP, BackwardPlan, BackwardStep, ForwardPlan, Plan, Role, programs
from flexsn.kernels.cpp.block import BlockPrinter
from flexsn.kernels.cpp.values import MEMORY, VALUE

__all__ = ["ENTRY", "print_cpp"]

ENTRY = "flexsn_scan"
_STACK_BYTES = 192 << 10  # of a kernel at most: threads may have 512 KiB, of which Python takes its part
_BUFFER_BYTES, _ARRAY_BYTES = 12 << 10, 4 << 10  # about: fx::Tensor, and an array over the lanes of a block


def print_cpp(plan: Plan) -> str:
    """The source of a kernel, without the text of ``scan.h``."""
    printer = _Printer(plan)
    source = printer.print()
    if printer.multiplies or len(printer.buffers) * _BUFFER_BYTES + printer.num_arrays * _ARRAY_BYTES > _STACK_BYTES:
        source = _Printer(plan, printer).print()
    return source


class _Printer(BlockPrinter):
    """Prints one kernel.

    Args:
        plan: what it does.
        measured: a printer that has printed it on the stack, whose arrays and buffers now go into a heap block.
    """

    def __init__(self, plan: Plan, measured: _Printer | None = None) -> None:
        super().__init__(plan, on_heap=measured is not None)
        self.measured = measured
        self.multiplies = any(p.products for p in programs(plan))

    def print(self) -> str:
        w, plan = self.w, self.plan
        w(f'#include "{"products.h" if self.multiplies else "scan.h"}"', "")
        with w.indent(f'extern "C" double {ENTRY}(const fx::i64* arguments) {{', "}"):
            w("const fx::Call call(arguments);", "fx::Team team(call);")
            w("#pragma omp parallel num_threads(call.threads) if (call.threads > 1)")
            with w.indent("{", "}"):
                if self.measured is not None:
                    sizes = [f"fx::Pieces::bytes(call, {self.measured.num_arrays})", *self.measured.buffers]
                    w(f"const fx::Scratch heap({' + '.join(sizes)});", "fx::Pieces pieces(heap, call);")
                for index, slot in enumerate(plan.slots):
                    kind = MEMORY[slot.dtype]
                    if slot.role is Role.GROUP_STORE:
                        w(f"{kind}* {slot.name} = call.data<{kind}>({index});")
                    elif slot.role is Role.MATRIX:
                        w(f"const fx::Matrix<{kind}> {slot.name}(call, {index});")
                    else:
                        self._buffer(kind, slot.name, index)
                if isinstance(plan, BackwardPlan):
                    self._scratch(plan)
                with w.indent("for (fx::i64 b; team.take(b);) {", "}"):
                    w("const int lanes = call.lanes(b), n = fx::padded(lanes);")
                    if self.measured is not None:
                        w("fx::Pieces block = pieces;")
                    for slot in plan.slots:
                        if slot.role not in (Role.GROUP_STORE, Role.MATRIX):
                            w(f"{slot.name}.bind(b * call.block, lanes);")
                    for slot, leaf in plan.lane_loads:
                        self._array(leaf, leaf.label)
                        self._copy_in(slot, self.arrays[id(leaf)], leaf.dtype)
                    self._make_rooms()
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
            with self._step(plan.program, plan.loads, plan.results):
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
        with self._step(step.program, step.loads, step.results):
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
