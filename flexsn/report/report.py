"""What became of a core, as data; the text for people lies with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from flexsn.ir.plan import Plan
from flexsn.ir.step import StepGraph
from flexsn.kernels.triton.offline import OfflineKernel
from flexsn.kernels.triton.tiling import SampleTiling, Tiling
from flexsn.planning import Way

__all__ = ["KernelReport", "Report"]


@dataclass(frozen=True)
class KernelReport:
    """One kernel.

    Attributes:
        name: ``"inference"``, ``"forward"``, ``"backward"``, or of a stage.
        plan: what it does.
        source: the generated text.
        offline: what a compiler for the target made of it; ``None`` for C++.
    """

    name: str
    plan: Plan = field(repr=False)
    source: str = field(repr=False)
    offline: OfflineKernel | None = field(repr=False)

    @property
    def bytes_per_lane_step(self) -> float:
        """Memory traffic of one step of one lane."""
        return self.plan.bytes_per_lane_step

    @property
    def checkpoint(self) -> int | None:
        """``K``: a state is stored once in so many steps; ``None`` for inference."""
        return self.plan.interval

    @property
    def ptx(self) -> str:
        """PTX or AMDGCN text; empty for C++."""
        return self.offline.assembly if self.offline else ""

    @property
    def registers(self) -> int | None:
        """Per thread; ``None`` for C++."""
        return self.offline.registers if self.offline else None

    @property
    def spill_bytes(self) -> int | None:
        """Of local memory per thread; ``None`` for C++."""
        return self.offline.spill_bytes if self.offline else None

    @property
    def tiling(self) -> Tiling | SampleTiling | None:
        """How lanes are dealt out to threads; ``None`` for C++."""
        return self.offline.tiling if self.offline else None


@dataclass(frozen=True)
class Report:
    """What became of a core; ``print`` it.

    Attributes:
        name: of the core.
        core: its source lines, if they can be had.
        target: ``"cpp"`` or an offline target.
        dtype: of the inputs.
        arguments: names of inputs and states.
        graph: the traced step.
        kernels: by name: ``"inference"``, ``"forward"``, ``"backward"``; of a step with products that runs in the
            alternating way, those of its stages: ``"forward stage 0"``, ..., ``"backward stage 0"``, ....
        no_backward: why there is no backward kernel, if there is none.
        unwatched: why what the core reads may change unseen, so that it is recorded again at every call; ``None``
            where all of it is watched.
        way: how the products of a step that has any are computed, and why so.
        inexact: what of the step does not have the loop's bits, but is near: ``()`` where all of it has.
        step_shape: the smallest step that the parameters fit; 1 where any size will do.
        passes: every form on the way from the core to the kernels, as ``(name, readable Python)``.
        text: for people.
    """

    name: str
    core: str
    target: str
    dtype: torch.dtype
    arguments: tuple[str, ...]
    graph: StepGraph
    kernels: dict[str, KernelReport]
    no_backward: str | None = None
    unwatched: str | None = None
    way: Way | None = None
    inexact: tuple[str, ...] = ()
    step_shape: tuple[int, ...] = ()
    passes: tuple[tuple[str, str], ...] = ()
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Report of {self.name} for {self.target}: {', '.join(self.kernels)}>"
