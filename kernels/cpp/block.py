"""What is printed for a block of lanes: its arrays, buffers and loops, and the stages of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.plan import ForwardPlan, Holds, Plan, Slot, programs
from flexsn.ir.program import Program, Stage
from flexsn.kernels.cpp.spelling import SPELLINGS
from flexsn.kernels.cpp.values import MEMORY, VALUE, cast, literal, load, store
from flexsn.kernels.writer import Writer

__all__ = ["BlockPrinter"]

_COORDINATES = {LeafKind.STEP_INDEX: "t", LeafKind.NUM_STEPS: "call.T"}


class BlockPrinter:
    """Prints what a kernel does with one block of lanes.

    Args:
        plan: what it does.
        on_heap: whether arrays and buffers lie in a heap block, instead of on the stack.

    Attributes:
        w: what is printed.
        buffers: sizes of the buffers.
        num_arrays: how many arrays over the lanes there are.
    """

    def __init__(self, plan: Plan, on_heap: bool) -> None:
        self.plan = plan
        self.on_heap = on_heap
        self.w = Writer("  ")
        self.buffers: list[str] = []
        self.num_arrays = 0
        self.names: dict[int, str] = {}
        self.arrays: dict[int, str] = {}  # values that live in an array over the lanes of a block
        self.rooms: dict[int, str] = {}  # arrays of what waits between the stages of a step

    def _lane_loop(self) -> AbstractContextManager[None]:
        self.names = {}
        self.w("#pragma omp simd")
        return self.w.indent("for (int l = 0; l < n; ++l) {", "}")

    def _hoist(self, nodes: Sequence[Node]) -> None:
        """Compute what does not change with time; keep in arrays what the loop over time reads."""
        read = {a for p in programs(self.plan) for n in p.body for a in n.args}.union(self._returned())
        read |= {product.source for p in programs(self.plan) for product in p.products}
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
        if not self.on_heap:
            self.w(f"alignas(64) {kind} {name}[fx::LANES];")
        else:
            self.w(f"{kind}* __restrict {name} = block.array<{kind}>();")

    def _buffer(self, kind: str, name: str, index: int) -> None:
        """A tensor, seen through one block of lanes."""
        self.buffers.append(f"sizeof(fx::Tensor<{kind}>)")
        if not self.on_heap:
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

    # ---- products -------------------------------------------------------------------------------------------

    def _make_rooms(self) -> None:
        """Arrays for products, and for what waits between the stages of a step."""
        for stage in (stage for program in programs(self.plan) for stage in program.stages):
            for node in stage.held:
                if id(node) not in self.rooms:
                    self.rooms[id(node)] = f"held{len(self.rooms)}"
                    self._lanes(VALUE[node.dtype], self.rooms[id(node)])
            for product in stage.products:
                if id(product.leaf) not in self.arrays:
                    self._array(product.leaf, product.leaf.label)
                    self.w(f"for (int l = lanes; l < n; ++l) {product.leaf.label}[l] = 0;")

    @contextmanager
    def _step(self, program: Program, loads: Sequence[tuple[Slot, Node]], results: Sequence[Node]) -> Iterator[None]:
        """The loops over lanes of one step, its products between them; inside the last one, for what comes of it."""
        *early, last = program.stages or (Stage(program.body),)
        for stage in early:
            if stage.held:
                read = {*stage.held, *(arg for node in stage.nodes for arg in node.args)}
                with self._lane_loop():
                    self._read(load for load in loads if load[1] in read)
                    self._compute(stage.nodes)
                    for node in stage.held:
                        self.w(f"{self.rooms[id(node)]}[l] = {self._use(node)};")
                self.arrays |= {id(node): self.rooms[id(node)] for node in stage.held}
            for product in stage.products:
                matrix = f"{Holds.MATRIX.value}{product.operands[0]}"
                source, leaf = self.arrays[id(product.source)], self.arrays[id(product.leaf)]
                self.w(f"fx::contract({source}, {matrix}, {leaf}, lanes);")
        read = {*results, *(arg for node in last.nodes for arg in node.args)}
        with self._lane_loop():
            self._read(load for load in loads if load[1] in read and id(load[1]) not in self.arrays)
            self._compute(last.nodes)
            yield
        for node in (node for stage in early for node in stage.held):
            del self.arrays[id(node)]
