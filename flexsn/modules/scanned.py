"""Scanned: a module that has a core and what runs it, and is copied, pickled and replicated without the kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from flexsn.captures.binding import ParameterBinding, register_parameters
from flexsn.captures.copying import copy_core
from flexsn.execution.dispatch import ScanDispatcher
from flexsn.modules.options import Options

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Scanned"]


class Scanned(Options):
    """Holds a core, its dispatcher and the loans of its parameters."""

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()
    core: Callable[..., Any]

    @property
    def _dispatcher(self) -> ScanDispatcher:
        dispatcher: ScanDispatcher | None = self.__dict__.get("_dispatcher_cache")
        if dispatcher is None:
            dispatcher = self.__dict__["_dispatcher_cache"] = ScanDispatcher(self.core, self.num_states)
        return dispatcher

    def _loans(self) -> ParameterBinding | None:
        names: dict[str, str] = self.__dict__["_loan_names"]
        if not names:
            return None
        loans: ParameterBinding | None = self.__dict__.get("_loans_cache")
        captures = self._dispatcher.captures()
        if loans is None or loans.captures is not captures:
            register_parameters(self, captures, names)
            loans = self.__dict__["_loans_cache"] = ParameterBinding(captures, names, loans)
        return loans

    def _replicate_for_data_parallel(self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        for name in ("_dispatcher_cache", "_loans_cache"):  # which read the original's tensors
            replica.__dict__.pop(name, None)
        return replica

    def __getstate__(self) -> dict[str, Any]:
        return self._own_state()

    def _own_state(self) -> dict[str, Any]:
        """What copies and pickles hold: no kernels, and states without their graph."""
        state = self.__dict__.copy()
        for name in ("_dispatcher_cache", "_loans_cache"):
            state.pop(name, None)
        for name in ("_states", "state_seqs"):
            if state[name] is not None:
                state[name] = tuple(value.detach() for value in state[name])
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        state = self._own_state()  # a parametrized module forbids __getstate__
        core = state.pop("core", None)
        if core is not None:
            clone.__dict__["core"] = copy_core(core, memo)
        clone.__dict__.update({name: copy.deepcopy(value, memo) for name, value in state.items()})
        return clone
