"""What Triton's interpreter makes of a kernel is kept: tokenizing, parsing, rewriting and compiling take long."""

from __future__ import annotations

import marshal
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import triton
from triton.runtime import interpreter

KERNELS = "flexsn_"  # begins the modules of printed kernels, which are named after their text


def keep(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Keep the code of every kernel in a folder, and take it from there."""
    rewriter = interpreter.FunctionRewriter
    rewrite, transform = rewriter.rewrite_ast, rewriter._transform_ast

    def kept(of: Any) -> Path:
        return folder / f"{of.fn.__module__}-{triton.__version__}.{sys.implementation.cache_tag}"

    def rewrite_ast(self: Any) -> Any:
        if self.fn.__module__.startswith(KERNELS) and kept(self).exists():
            return self._compile_and_exec(marshal.loads(kept(self).read_bytes()))
        return rewrite(self)

    def transform_ast(self: Any, source: str) -> CodeType:
        code = compile(transform(self, source), self.filename, "exec")
        if self.fn.__module__.startswith(KERNELS):
            target = kept(self).with_suffix(f".{os.getpid()}")
            target.write_bytes(marshal.dumps(code))
            target.replace(kept(self))
        return code

    def compile_once(tree: Any, **options: Any) -> Any:
        return tree if isinstance(tree, CodeType) else compile(tree, **options)

    patch.setattr(rewriter, "rewrite_ast", rewrite_ast)
    patch.setattr(rewriter, "_transform_ast", transform_ast)
    patch.setattr(interpreter, "compile", compile_once, raising=False)
