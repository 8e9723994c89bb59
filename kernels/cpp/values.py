"""C++ text of the values of a step: types in memory and in registers, casts, literals."""

from __future__ import annotations

import math

import torch

from flexsn.ir.graph import Node

__all__ = ["MEMORY", "VALUE", "cast", "literal", "load", "store"]

MEMORY = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "fx::f16",
    torch.bfloat16: "fx::bf16",
    torch.bool: "fx::u8",
    torch.uint8: "fx::u8",
    torch.int8: "signed char",
    torch.int16: "short",
    torch.int32: "int",
    torch.int64: "fx::i64",
}
# a bool in a lane loop keeps GCC from vectorising it; 16-bit floats are held rounded, in fp32
VALUE = MEMORY | {torch.bool: "int", torch.float16: "float", torch.bfloat16: "float"}
_SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16)
_TO_HALF = {torch.float16: "fx::to_f16", torch.bfloat16: "fx::to_bf16"}


def cast(text: str, source: torch.dtype, target: torch.dtype) -> str:
    """A value as one of another dtype."""
    if source == target:
        return text
    if target == torch.bool:
        return f"({text} != 0)"
    if target in _TO_HALF:
        return f"fx::to_float({_TO_HALF[target]}(static_cast<float>({text})))"
    if target in _SMALL_INTEGERS and source.is_floating_point:  # as torch does; of -1.0 as a byte C++ says nothing
        text = f"static_cast<int>({text})"
    return f"static_cast<{VALUE[target]}>({text})"


def load(text: str, source: torch.dtype, target: torch.dtype) -> str:
    """What lies in memory as a value."""
    return cast(f"fx::to_float({text})" if source in _TO_HALF else text, source, target)


def store(text: str, source: torch.dtype, target: torch.dtype) -> str:
    """A value as it lies in memory."""
    if target in _TO_HALF:
        return f"{_TO_HALF[target]}(static_cast<float>({text}))"
    return cast(text, source, target)


def literal(node: Node) -> str:
    value, dtype = node.value, node.dtype
    assert value is not None
    if dtype == torch.int64 and value == -(2**63):
        return "(-9223372036854775807LL - 1)"
    if not dtype.is_floating_point:
        return f"static_cast<{VALUE[dtype]}>({int(value)}{'LL' if dtype == torch.int64 else ''})"
    suffix = "" if dtype == torch.float64 else "f"
    if math.isnan(value):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(value):
        return f"({'-' if value < 0 else ''}__builtin_inf{suffix}())"
    return f"({value!r}{suffix})"
