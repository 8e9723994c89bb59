"""What a command is about: a built-in neuron by name, or a core or neuron in a file of one's own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from argparse import ArgumentParser
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from flexsn import FlexSN, neurons
from flexsn.commands.command import UsageError

__all__ = ["PRESETS", "add_subject", "find_subject"]

PRESETS = ("norse", "rnnbuilder", "snntorch", "spikingjelly")


def add_subject(parser: ArgumentParser, default: str | None = None) -> None:
    """The argument that names a neuron."""
    told = "a class of flexsn.neurons, such as LIF or norse.LIF; or FILE.py:NAME, a core or neuron of your own"
    if default is None:
        parser.add_argument("neuron", help=told)
    else:
        parser.add_argument("neuron", nargs="?", default=default, help=f"{told} (default: %(default)s)")


def find_subject(text: str) -> FlexSN:
    """The neuron that ``text`` names.

    Raises:
        UsageError: there is none, with those there are.
    """
    file, colon, name = text.rpartition(":") if ":" in text else (text, "", "")
    found = _in_file(Path(file), name) if colon or text.endswith(".py") else _built_in(text)
    return _neuron(found, text)


def _built_in(name: str) -> Any:
    library, _, short = name.rpartition(".")
    room: Any = getattr(neurons, library) if library in PRESETS else neurons
    found = getattr(room, short if library in ("", *PRESETS) else name, None)
    if isinstance(found, type) and issubclass(found, FlexSN):
        return found
    if isinstance(found, type) and issubclass(found, nn.Module):
        raise UsageError(f"{name} scans no core: it computes all steps at once")
    known = [n for n in room.__all__ if isinstance(getattr(room, n), type) and issubclass(getattr(room, n), FlexSN)]
    raise UsageError(
        f"{room.__name__} has no neuron {short!r}; there are: {', '.join(sorted(known))}\n"
        "a core of your own is named by its file: my_file.py:core"
    )


def _in_file(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    module = _loaded(path)
    if not name:
        raise UsageError(f"{path} has {_names(module)}; say which: {path}:NAME")
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{path} has no {name!r}; it has {_names(module)}")
        found = getattr(found, part)
    return found


def _loaded(path: Path) -> ModuleType:
    """The file as a module, which finds its neighbours as it would if it were run."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[path.stem] = module  # whatever it pickles or inspects looks there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        told = "".join(traceback.format_exception(error.with_traceback(_users(error))))
        raise UsageError(f"{path} cannot be imported\n{told.rstrip()}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
        if before is not None:
            sys.modules[path.stem] = before
    return module


def _users(error: BaseException) -> Any:
    """What was going on from the file's own lines on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in (__name__, "importlib._bootstrap"):
        frames = frames.tb_next
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
        frames = frames.tb_next
    return frames


def _names(module: ModuleType) -> str:
    """What of its own could be a neuron."""
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, FlexSN) or (callable(value) and getattr(value, "__module__", "") == module.__name__)
    ]
    return ", ".join(own) or "nothing that could be a core"


def _neuron(found: Any, text: str) -> FlexSN:
    if inspect.isclass(found):
        try:
            found = found()
        except TypeError as error:
            told = "name one that is made: leaky = Leaky(...), then FILE.py:leaky"
            raise UsageError(f"{text} cannot be made without arguments: {error}\n{told}") from error
    if isinstance(found, FlexSN):
        return found
    if not callable(found):
        raise UsageError(f"{text} is no core: {type(found).__name__} objects cannot be called")
    return FlexSN(found)
