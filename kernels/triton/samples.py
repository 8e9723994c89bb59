"""Blocks of whole samples: what a kernel needs that multiplies by matrices.

A block is 16 samples, each as wide as the next power of two, and owns all their lanes. What is multiplied is put aside
in memory, transposed, so that all samples' values of one lane are read at once; with each goes a row of the matrix,
which comes from a cache that all blocks share and is read once for 16 samples. So a sum runs in ascending order, one
rounded product at a time, as in C++: the bits are the same on every backend. ``tl.dot`` would round the matrix, or sum
in tiles, and takes more registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from flexsn.ir.plan import Holds, Plan, Slot, programs
from flexsn.ir.step import Product
from flexsn.kernels.triton.memory import Memory
from flexsn.kernels.triton.values import Values

__all__ = ["ROWS", "SHAPE", "Samples", "multiply", "scratch_of"]

ROWS = 16
"""Samples of a block."""
SHAPE = f"[{ROWS}, WIDTH]"


def scratch_of(plan: Plan) -> dict[torch.dtype, str]:
    """Where a block puts aside what it multiplies, by dtype."""
    dtypes = {product.leaf.dtype for program in programs(plan) for product in program.products}
    return {dtype: f"aside{n}" for n, dtype in enumerate(sorted(dtypes, key=str))}


class Samples(Memory):
    """See :class:`~flexsn.kernels.triton.memory.Memory`: lanes as samples and columns.

    A block knows where its first lane is, so the lanes of dense tensors need no address of 64 bits each.
    """

    def number_lanes(self) -> None:
        w = self.w
        w(
            f"WIDTH: tl.constexpr = BLOCK // {ROWS}",
            "column = tl.arange(0, WIDTH)[None, :]",
            f"sample = tl.arange(0, {ROWS})[:, None]",
            f"first = tl.program_id(0).to(tl.int64) * {ROWS} * H",
            "within = sample * H + column",
            "lane = first + within",
            "mask = (column < H) & (lane < N)",
        )
        w(*(f"{name}_p = {name} + first" for name in self.scratch))

    def offset(self, slot: Slot) -> str:
        return " + first" if self.access[slot].lanes == "dense" else super().offset(slot)

    def at(self, slot: Slot, t: str) -> str:
        base = super().at(slot, t)
        return f"{base} + within" if self.access[slot].lanes == "dense" else base


def multiply(products: Sequence[Product], values: Values, scratch: Mapping[torch.dtype, str]) -> None:
    """Print the products of a stage."""
    w, source = values.w, None
    for product in products:
        dtype = product.leaf.dtype
        aside, matrix = f"{scratch[dtype]}_p", f"{Holds.MATRIX.value}{product.operands[0]}"
        if product.source is not source:  # all threads have read what was there, and will see what is now
            source = product.source
            w("tl.debug_barrier()")
            w(f"tl.store({aside} + column * {ROWS} + sample, {values.block(source)}, mask=column < H)")
            w("tl.debug_barrier()")
        name = values.names[id(product.leaf)] = values.fresh("product")
        w(f"{name} = {values.zeros(dtype)}")
        with w.indent("for j in tl.range(0, H, loop_unroll_factor=2):"):  # with 4, the widest need too many registers
            w(f"row = tl.load({matrix} + j * H + column, mask=column < H, other=0)")
            w(f"{name} += tl.load({aside} + j * {ROWS} + sample) * row")
