"""Deep copies of cores: ``copy.deepcopy`` shares functions, so a copied neuron would train the original's closure."""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

from torch import Tensor, nn

__all__ = ["copy_core"]


def copy_core(core: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a core that has its own closure cells, defaults and partial arguments.

    Globals stay shared: they belong to the module they are written in.

    Args:
        core: a function, bound method, partial, module or any other callable.
        memo: of the ``copy.deepcopy`` under way.
    """
    if id(core) in memo:
        return memo[id(core)]
    if isinstance(core, types.FunctionType):
        return _copy_function(core, memo)
    if isinstance(core, types.MethodType):
        return types.MethodType(core.__func__, copy_core(core.__self__, memo))
    if isinstance(core, functools.partial):
        arguments = [copy_core(value, memo) for value in core.args]
        keywords = {key: copy_core(value, memo) for key, value in core.keywords.items()}
        clone = memo[id(core)] = functools.partial(copy_core(core.func, memo), *arguments, **keywords)
        return clone
    if type(core) in (list, tuple, dict):
        return _copy_container(core, memo)
    if isinstance(core, (types.ModuleType, types.BuiltinFunctionType)):
        return core
    _copy_functions_in(core, memo)
    return copy.deepcopy(core, memo)


def _copy_function(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    if not function.__closure__ and not any(isinstance(value, (Tensor, nn.Module)) for value in defaults):
        return function  # which keeps it picklable by name
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    clone = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, cells if function.__closure__ else None
    )
    memo[id(function)] = clone  # before its cells are filled: a function may refer to itself
    for name, cell, new in zip(function.__code__.co_freevars, function.__closure__ or (), cells, strict=True):
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        new.cell_contents = content if name == "__class__" else copy_core(content, memo)
    clone.__defaults__ = copy_core(function.__defaults__, memo)
    clone.__kwdefaults__ = copy_core(function.__kwdefaults__, memo)
    clone.__qualname__, clone.__module__, clone.__doc__ = function.__qualname__, function.__module__, function.__doc__
    clone.__annotations__ = function.__annotations__
    clone.__dict__.update(function.__dict__)
    return clone


def _copy_container(values: Any, memo: dict[int, Any]) -> Any:
    if isinstance(values, tuple):
        return tuple(copy_core(value, memo) for value in values)
    clone: Any = memo.setdefault(id(values), type(values)())
    if isinstance(values, list):
        clone.extend(copy_core(value, memo) for value in values)
    else:
        clone.update({key: copy_core(value, memo) for key, value in values.items()})
    return clone


def _copy_functions_in(holder: Any, memo: dict[int, Any]) -> None:
    """Enter copies of the functions an object holds into ``memo``, where ``copy.deepcopy`` looks first."""
    for held in holder.modules() if isinstance(holder, nn.Module) else (holder,):
        for value in list(getattr(held, "__dict__", {}).values()):
            if isinstance(value, (types.FunctionType, functools.partial)):
                copy_core(value, memo)
