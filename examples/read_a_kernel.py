"""Reading a kernel: what becomes of a neuron of three lines, down to the C++ that runs.

python examples/read_a_kernel.py
"""

from __future__ import annotations

from torch import Tensor

from flexsn import FlexSN, surrogate

spike = surrogate.ATan(alpha=2.0)


def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


if __name__ == "__main__":
    report = FlexSN(core).explain()
    print(report)  # one step forward and backward, what is saved, and the bytes each kernel moves
    print(
        "\nThe kernel that runs where no gradient is wanted; FLEXSN_PRINT_CODE=1 prints every kernel as it is built:\n"
    )
    print(report.kernels["inference"].source)
