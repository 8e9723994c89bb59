"""What a code object names: the globals, attributes and arguments its instructions mention."""

from __future__ import annotations

import dis
import functools
import types
from dataclasses import dataclass
from typing import Any

__all__ = ["Reads", "argument_names", "reads_of"]

_REFLECTION = {"getattr", "hasattr", "setattr", "vars", "dir", "attrgetter", "asdict", "astuple", "__dict__"}
_REFLECTION |= {"parameters", "buffers", "children", "modules"}
_REFLECTION |= {"named_parameters", "named_buffers", "named_children", "named_modules"}
_REFLECTION |= {"_parameters", "_buffers", "_modules", "get_parameter", "get_buffer", "get_submodule"}


@dataclass(frozen=True)
class Reads:
    """What one code object names, its nested functions included."""

    globals: frozenset[str]
    attributes: frozenset[str]
    perhaps: frozenset[str]  # names that may be absent now: written by the code, or asked for as strings
    reflects: bool
    imports: frozenset[tuple[str, int]]  # modules imported by the code, each with its level: 0 for an absolute name


@functools.lru_cache(maxsize=4096)
def reads_of(code: types.CodeType) -> Reads:
    names: set[str] = set()
    attributes: set[str] = set()
    written: set[str] = set()
    strings: set[str] = set()
    imports: set[tuple[str, int]] = set()
    instructions = list(dis.get_instructions(code))
    for place, instruction in enumerate(instructions):
        opcode = instruction.opname
        if opcode in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "STORE_GLOBAL"):
            names.add(instruction.argval)
        elif opcode == "IMPORT_NAME":
            imports.add((instruction.argval, instructions[place - 2].argval))
        elif instruction.opcode in dis.hasname and any(of in opcode for of in ("ATTR", "METHOD", "IMPORT_FROM")):
            attributes.add(instruction.argval)
        if opcode in ("STORE_GLOBAL", "STORE_ATTR"):
            written.add(instruction.argval)
        if isinstance(instruction.argval, str) and opcode == "LOAD_CONST" and instruction.argval.isidentifier():
            strings.add(instruction.argval)
    reflects = bool(_REFLECTION & (names | attributes))
    nested = [reads_of(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    reflected = strings if reflects else set()
    return Reads(
        frozenset(names).union(*(n.globals for n in nested)),
        frozenset(attributes | reflected).union(*(n.attributes for n in nested)),
        frozenset(written | reflected).union(*(n.perhaps for n in nested)),
        reflects or any(n.reflects for n in nested),
        frozenset(imports).union(*(n.imports for n in nested)),
    )


def argument_names(function: Any) -> tuple[str, ...]:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        return ()
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount]
    return names[1:] if isinstance(function, types.MethodType) else names
