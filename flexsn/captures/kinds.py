"""Kinds: what a core can reach, each kind with its way of being watched. What is of no kind here can change unseen."""

from __future__ import annotations

import abc
import decimal
import enum
import fractions
import functools
import random
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.captures.containers import CONTAINERS
from flexsn.captures.origin import is_foreign, is_ours, lookup_order

__all__ = ["Kind", "kind_of"]


class Kind(enum.Enum):
    """How what is found is watched."""

    CONSTANT = "by identity: nothing in it can change"
    TENSOR = "as a parameter of the kernel, and what code mentions of its own attributes"
    FUNCTION = "its code, closure, defaults, the globals it names, and what code mentions of its attributes"
    METHOD = "the function, and the object it is bound to"
    BUILTIN = "the object it is bound to"
    PARTIAL = "the function, and the arguments it holds"
    TUPLE = "its items"
    CONTAINER = "its content, and its items"
    CLASS = "what code mentions of its attributes, its methods included"
    MODULE = "what code mentions of its names"
    OBJECT = "its class, and what code mentions of its attributes; of a torch module all, and its hooks"
    CONSUMED = "not at all, and never traced: looking at it changes it"
    OTHER = "not at all: the core is recorded again at every call"


_FIXED = {bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range, slice}
_FIXED |= {torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, torch.finfo, torch.iinfo}
_FIXED |= {fractions.Fraction, decimal.Decimal, torch.jit.ScriptFunction, type(torch.ops.aten.add), np.ufunc}
_FIXED |= {type(torch.ops.aten.add.Tensor), types.GenericAlias, types.UnionType, types.CodeType, typing.TypeVar}
_FIXED |= {types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType}
_FIXED |= {types.GetSetDescriptorType, types.MemberDescriptorType}
_DRAWN = (random.Random, torch.Generator)
_PLAIN = {*CONTAINERS}
_BASES = {
    *(_PLAIN - {np.ndarray}),
    object,
    tuple,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    abc.ABC,
    types.SimpleNamespace,
}
_BASES |= {typing.Generic, typing.Protocol, torch.autograd.Function}
_BASE_MODULES = {"enum", "collections.abc"}
_HEAP_TYPE = 1 << 9
_METACLASSES = {type, abc.ABCMeta, enum.EnumMeta, type(torch.autograd.Function), type(typing.Protocol)}


def _is_object(cls: type) -> bool:
    """Whether nothing but attributes decides what an object does: its classes are the user's, ours, or such a base."""
    return all(
        base in _BASES
        or base.__module__ in _BASE_MODULES
        or is_ours(base)
        or (not is_foreign(base) and _is_python(base))
        for base in lookup_order(cls)
    )


def _is_python(cls: type) -> bool:
    """Whether a class was written in Python: one of an extension module holds what nobody sees."""
    return bool(cls.__flags__ & _HEAP_TYPE) and (type(cls) in _METACLASSES or is_ours(type(cls)))


def _is_container(cls: type) -> bool:
    return issubclass(cls, CONTAINERS) and (cls in _PLAIN or (not is_foreign(cls) and _is_object(cls)))


_BUILTINS = (types.BuiltinFunctionType, types.MethodWrapperType)
_KINDS: tuple[tuple[Kind, Callable[[type], bool]], ...] = (
    (Kind.CONSTANT, lambda cls: cls in _FIXED or issubclass(cls, (np.generic, np.dtype)) or cls.__module__ == "typing"),
    (Kind.OTHER, lambda cls: cls in weakref.ProxyTypes),  # which has every method there is, an iterator's as well
    (Kind.TENSOR, lambda cls: issubclass(cls, Tensor)),
    (Kind.FUNCTION, lambda cls: cls is types.FunctionType),
    (Kind.METHOD, lambda cls: cls is types.MethodType),
    (Kind.BUILTIN, lambda cls: cls in _BUILTINS),
    (Kind.PARTIAL, lambda cls: cls is functools.partial),
    (Kind.CLASS, lambda cls: cls in _METACLASSES),
    (Kind.MODULE, lambda cls: cls is types.ModuleType),
    (Kind.TUPLE, lambda cls: issubclass(cls, tuple) and (cls is tuple or _is_object(cls))),
    (Kind.CONTAINER, _is_container),
    (Kind.OBJECT, lambda cls: issubclass(cls, nn.Module) or _is_object(cls)),
    (Kind.CONSUMED, lambda cls: issubclass(cls, (Iterator, *_DRAWN)) or cls.__module__.startswith("numpy.random")),
    (Kind.OTHER, lambda cls: True),
)


@functools.lru_cache(maxsize=4096)
def _kind_of_instances(cls: weakref.ref[type]) -> Kind:
    found = cls()
    assert found is not None
    return next(kind for kind, test in _KINDS if test(found))


def kind_of(value: Any) -> Kind:
    """The kind of what a core can reach. It is asked of the class: an object may say anything about itself."""
    return _kind_of_instances(weakref.ref(type(value)))
