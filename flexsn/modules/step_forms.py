"""StepForms: one step or all, called by name and not by ``step_mode``; a subclass may write either its own way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from flexsn.modules.kernel import FlexSNKernel
from flexsn.modules.stateful import Stateful

__all__ = ["StepForms"]


class StepForms(Stateful):
    """What a call does in either step mode, as a method.

    A subclass that defines one of the two has it called by ``step_mode``, and reaches the compiled one by
    ``super()``.

    Attributes:
        _advance: the whole call in the present step mode, whatever a subclass makes of ``forward``.
        _own_step: whether a user's class has its own ``single_step_forward``, and no core that runs it.
    """

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()
    _advance: ClassVar[Callable[..., Any]]
    _own_step: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "forward" in own or "_advance" in own:
            return
        # a core that runs the hooks runs this one too, compiled
        own_step = "single_step_forward" in own and not getattr(getattr(cls, "core", None), "runs_hooks", False)
        if own_step or "multi_step_forward" in own:
            cls._own_step |= own_step
            cls.forward = StepForms._by_step_mode

    def _by_step_mode(self, *inputs: Any, **options: Any) -> Any:
        if self._flexsn.step_mode == "m":
            return self.multi_step_forward(*inputs, **options)
        return (self.single_step_forward if self._own_step else self._advance)(*inputs, **options)

    def single_step_forward(self, *inputs: Any, **options: Any) -> Any:
        """One step, as a call with ``step_mode="s"``: inputs ``[*step]``. A subclass may override it."""
        return self._in_step_mode("s", inputs, options)

    def multi_step_forward(self, *inputs: Any, **options: Any) -> Any:
        """All steps, as a call with ``step_mode="m"``: inputs ``[T, *step]``. A subclass may override it.

        Where it overrides ``single_step_forward`` alone, these are its steps, one after the other.
        """
        if not self._own_step:
            return self._in_step_mode("m", inputs, options)
        time_dim = self._flexsn.options.time_dim
        each = zip(*(x.unbind(time_dim) for x in inputs), strict=True)
        steps = [self.single_step_forward(*x, **options) for x in each]
        if isinstance(steps[0], tuple):
            return tuple(torch.stack(seq, time_dim) for seq in zip(*steps, strict=True))
        return torch.stack(steps, time_dim)

    def _in_step_mode(self, step_mode: str, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> Any:
        own = self._flexsn
        before = own.step_mode
        if before == step_mode:
            return self._advance(*inputs, **options)
        own.change(step_mode=step_mode)
        try:
            return self._advance(*inputs, **options)
        finally:
            own.change(step_mode=before)

    @property
    def kernel(self) -> FlexSNKernel:
        """The core as a stateless function ``(*input_seqs, *states) -> (*output_seqs, *state_seqs)``."""
        return FlexSNKernel.of(self)

    @staticmethod
    def _recorded() -> bool:
        """Whether the core runs on examples now: what it does to objects would happen once, not at every step."""
        recorder = sys.modules.get("flexsn.tracing.recorder")
        return recorder is not None and any(
            isinstance(mode, recorder.Recorder) for mode in _get_current_dispatch_mode_stack()
        )
