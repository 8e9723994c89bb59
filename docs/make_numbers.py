"""Writes docs/numbers.md, what is promised of numbers, from the table of operations.

python docs/make_numbers.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from flexsn.ir.ops import OPS
from flexsn.ir.promises import EXACT_FUNCTIONS, FUNCTIONS, Promise

TARGET = Path(__file__).with_name("numbers.md")

HEAD = """# Numbers

Written by `docs/make_numbers.py` from the table of operations (`flexsn/ir/ops.py`, `flexsn/ir/promises.py`); a test
keeps it current, and `tests/kernels/test_ops.py` asserts every row, on values of all sizes, zeros, subnormals,
infinities and NaN.

What is right is what the plain loop gives on the same machine. Some of what eager torch calls on the CPU is a library
routine whose last bit depends on the processor (MKL) or on the vector width torch was started with (Sleef, `libm`),
so "the same bits" can only be promised of the operations in the first table.

## Operations

*Routine*: what eager torch uses on the CPU. "IEEE" is the processor's own instruction, the same everywhere. MKL: the
vector library, its most accurate mode (below 1 ulp). Sleef: within 1 ulp. `libm`: the C library. An ulp is a unit in
the last place of the result, or of what column *of* says, where terms cancel. The distance
from the exact value is tested in fp32, against fp64; it is no bound where torch itself is farther, nor is the distance
from torch there. Kernels that GCC makes on x86-64 use the C library's vector functions (libmvec), elsewhere its scalar
ones.

### The same bits as torch

| operation | routine | remark |
|---|---|---|
"""

NEAR = """
Functions made of these alone are exact too: {functions}; powers with exponent -2, -1, -1/2, 0, 1, 2 and 3; comparisons,
casts and copies. So in fp32, fp64, integers (which wrap around as in torch) and bool, each tried alone; in fp16 and
bf16 every operation computes in fp32 and rounds, as torch does, tried on a few. A float beyond `int32` or `int64` cast
to that is what the processor makes of it, in torch as well; as a float again in the same step it may be another.

### Within a few ulp

| operation | ulp from torch | ulp from exact | of | gradient | routine | remark |
|---|---|---|---|---|---|---|
"""

TAIL = """
"Bits" in column *gradient*: the derivative is arithmetic, and has autograd's bits for the same incoming gradient.
"Near": within 64 ulp of it, or of the incoming gradient where terms cancel.

## Cores

| a core of | outputs, states | gradients of inputs and initial states |
|---|---|---|
| exact operations | the loop's bits | autograd's bits |
| and square roots | the loop's bits, but for 1 ulp a root where torch's routine does not round correctly | likewise |
| and others | a few ulp a step; a spike may flip where the membrane comes that near to the threshold | likewise |

Gradients of parameters: a few ulp, since sums over lanes run in another order, though in the same one in each run. On
an AMD EPYC with AVX-512, 17 % of the square roots torch computes in fp32 and 1 % in fp64 are 1 ulp off; `rsqrt` and
`x ** -0.5` use the instruction and are not. Two corners of the order of sums, where gradients may differ in the last
bit, stand in [how-it-works.md](how-it-works.md): a core that returns a state unchanged, and one value that is several
states.

| backend | tested | holds |
|---|---|---|
| `cpp` | x86-64, AVX-512 and AVX2 | everything above |
| `triton`, interpreter | on the CPU, but for bf16 | the same; functions of the second table are torch's own there |
| `triton`, GPU | compiled and inspected, not yet run on one | the first table by construction: nothing is contracted |

16-bit inputs: states and arithmetic in fp32, inputs and outputs cast at load and store, so what holds for fp32 holds.

## Products

A sum over the rows of a matrix has as many orders as one likes, so torch's own product differs from machine to
machine. One kernel for all steps adds in ascending order of the index from +0 on, each product rounded first: the
bits of that plain sum, forward and backward, whether `cpp` skips the rows of what did not fire or not, with any
number of threads. So they are the loop's bits where all sums are exact (spikes, and weights that are multiples of
2^-6, say), and the loop's to the rounding of one product elsewhere. `cpp` may skip rows where the factor is zero: a
matrix with infinities or NaN in such a row then gives NaN in the loop alone. The gradient of a matrix is one product
after the scan (one for each stretch between stored states where torch multiplies; `cpp` skips what is mostly zero).
Convolutions, matrices with more rows than a kernel takes, and every product in step mode `"s"` are torch's, in its
order. TF32 is never turned on; convolutions on a GPU follow torch's own setting.

## Where eager torch has two answers

Torch computes most lanes in vectors and the last few (of each thread) one by one, by other routines. No function of the
values can agree with both:

- the gradient at NaN of `hardtanh`, `relu6`, `hardswish`, `hardshrink`, `softshrink`, `elu`, `selu`, `celu`: here it is
  that of the last lanes (and of GPUs), the incoming one; torch's vectors give 0 or NaN;
- `fmod`, `remainder`, `floor_divide` with a huge quotient, as by subnormals: exact here, NaN in torch's vectors;
- `sinh`, `cosh` near overflow, `gelu` past 1e38: finite here, infinite in torch's vectors;
- `add` and `sub` with `alpha` in fp16 and bf16: one rounding here, the last lanes round the product too;
- the sign of zero where `maximum`, `minimum`, `clamp` meet 0 and -0;
- `fmax`, `fmin` with a signalling NaN, which is taken for any NaN here.
"""


def exact_rows() -> str:
    """Operations with torch's bits, those without a remark together."""
    groups: dict[Promise, list[str]] = defaultdict(list)
    for op in OPS.values():
        if not op.promise.torch:
            groups[op.promise].append(f"`{op.name}`")
    return "".join(f"| {', '.join(names)} | {p.routine} | {p.note} |\n" for p, names in groups.items())


def near_rows() -> str:
    """The others, one a line; then functions made of several."""
    near = {op.name: op.promise for op in OPS.values() if op.promise.torch}
    return "".join(_near_row(name, promise) for name, promise in (near | FUNCTIONS).items())


def _near_row(name: str, promise: Promise) -> str:
    exact = "0.5 (correctly rounded)" if promise.exact == 0.5 else f"{promise.exact:g}"
    of = promise.of.replace("|", "\\|")
    gradient = "bits" if promise.same_gradient else "near"
    note = promise.note.replace("|", "\\|")
    return f"| `{name}` | {promise.torch} | {exact} | {of} | {gradient} | {promise.routine} | {note} |\n"


def document() -> str:
    """The whole document."""
    functions = ", ".join(f"`{name}`" for name in EXACT_FUNCTIONS)
    return HEAD + exact_rows() + NEAR.format(functions=functions) + near_rows() + TAIL


if __name__ == "__main__":
    TARGET.write_text(document())
