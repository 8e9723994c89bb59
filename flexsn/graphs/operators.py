"""The operators ``flexsn::scan`` and ``flexsn::scan_backward``: a scan as graphs of ``torch.compile`` have it.

They run as every call runs: guards, cache, dispatch, so a constant that was changed since a graph was made counts.
What a graph was promised holds all the same. Where what runs by now keeps other checkpoints than the graph makes room
for, the backward pass computes them again. The last tensor that is kept, the *token*, says what ran: a backward pass
goes on with the constants of its forward pass.

The arguments come in groups: inputs, states, masks, parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from flexsn.errors import FlexSNError
from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.graphs.call import GraphCall
from flexsn.graphs.run import GraphRun, find, pulled_back, ran
from flexsn.ir.layout import TensorSpec

__all__: list[str] = []

Tensors = Sequence[Tensor]
_CALL = "str core, str call, Tensor[] inputs, Tensor[] states, Tensor[] masks, Tensor[] parameters"
_library: Any = torch.library.Library("flexsn", "DEF")  # type: ignore[no-untyped-call]
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)  # replayed, it would not see a constant change
_library.define(f"scan({_CALL}) -> Tensor[]", tags=_tags)
_library.define(f"scan_backward({_CALL}, Tensor[] kept, Tensor?[] grads, bool[] needs) -> Tensor[]", tags=_tags)


@contextmanager
def _above_autograd() -> Iterator[None]:
    """Back where autograd records: an operator's implementation stands below it, and traces and loops need it."""
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for name in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        exclude = exclude.remove(getattr(torch._C.DispatchKey, name))
    with torch._C._ForceDispatchKeyGuard(include, exclude):
        yield


def _fresh(tensor: Tensor, spec: TensorSpec, taken: set[int], what: str) -> Tensor:
    """The same values in memory of their own, laid out as a graph expects."""
    tensor = tensor.stored if isinstance(tensor, SpikeTensor) else tensor
    if (tuple(tensor.shape), tensor.dtype) != (tuple(spec.shape), spec.dtype):
        raise FlexSNError(
            f"{what} is {tensor.dtype} of shape {tuple(tensor.shape)}; the graph was compiled for "
            f"{spec.dtype} of shape {tuple(spec.shape)}",
            why="dtypes and shapes of what a core returns are fixed when a graph is made",
            hint="torch.compiler.reset() compiles anew",
        )
    if tensor.stride() != tuple(spec.strides) or tensor.untyped_storage()._cdata in taken:
        tensor = spec.make(tensor.device).copy_(tensor)
    taken.add(tensor.untyped_storage()._cdata)
    return tensor


# ---- forward --------------------------------------------------------------------------------------------------


@_above_autograd()
@torch.no_grad()
def _forward(core: str, text: str, *groups: Tensors) -> list[Tensor]:
    call = GraphCall.of(text)
    shape = call.shape(groups[0], groups[1])
    run = find(core, call, groups, call.training)
    results, kept = run.forward(groups)
    taken = {t.untyped_storage()._cdata for group in groups for t in group}
    pairs = zip(results, call.results(shape), strict=True)
    results = tuple([_fresh(result, spec, taken, "a result") for result, spec in pairs])
    expected = call.kept(shape)
    if [TensorSpec.of(t) for t in kept] != expected:
        kept = [spec.make(groups[0][0].device).zero_() for spec in expected]
    return [*_stand_ins(call, results), *results, *kept, *_token(call, run)]


def _stand_ins(call: GraphCall, results: Tensors) -> list[Tensor]:
    """For outputs stored in integers: float tensors without memory, which the gradients come in through."""
    dtypes = [(results[i], call.outputs[i].dtype.visible) for i in call.packed]
    return [y.new_zeros((), dtype=dtype).expand(y.shape) for y, dtype in dtypes]


def _token(call: GraphCall, run: GraphRun) -> list[Tensor]:
    if not call.training:
        return []
    token: Any = torch.tensor(run.number)
    token.run = run  # lives as long
    return [token]


def _forward_in_fake(core: str, text: str, *groups: Tensors) -> list[Tensor]:
    call = GraphCall.of(text)
    shape, device = call.shape(groups[0], groups[1]), groups[0][0].device
    results = [spec.make(device) for spec in call.results(shape)]
    kept = [spec.make(device) for spec in call.kept(shape)]
    token = [torch.empty((), dtype=torch.int64)] if call.training else []
    return [*_stand_ins(call, results), *results, *kept, *token]


# ---- backward -------------------------------------------------------------------------------------------------


@_above_autograd()
@torch.no_grad()
def _backward(core: str, text: str, *rest: Any) -> list[Tensor]:
    *groups, kept, grads, needs = rest
    run = ran(core, GraphCall.of(text), groups, kept)
    gradients = run.backward(groups, kept[:-1], grads, needs)
    taken = {g.untyped_storage()._cdata for g in grads if g is not None}
    made = []
    for gradient, need, tensor in zip(gradients, needs, _flat(groups), strict=True):
        if need:
            like = torch.empty_like(tensor, device="meta")
            spec = TensorSpec(tuple(like.shape), like.stride(), like.dtype)
            value = torch.zeros_like(tensor) if gradient is None else gradient
            made.append(_fresh(value, spec, taken, "a gradient"))
    return made


def _backward_in_fake(core: str, text: str, *rest: Any) -> list[Tensor]:
    *groups, _, _, needs = rest
    return [torch.empty_like(tensor) for tensor, need in zip(_flat(groups), needs, strict=True) if need]


def _flat(groups: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for group in groups for item in group]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.core, ctx.text, *groups = inputs
    call = GraphCall.of(ctx.text)
    kept = output[len(call.packed) + call.num_results :]
    ctx.sizes = [len(group) for group in groups]
    again = [output[len(call.packed) + i] for i in call.read_again]
    ctx.save_for_backward(*_flat(groups), *kept[:-1], *again, *kept[-1:])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*kept)


def _differentiate(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    call, split = GraphCall.of(ctx.text), len(GraphCall.of(ctx.text).packed)
    *groups, kept = _split(ctx.saved_tensors, ctx.sizes)
    needs = _flat(ctx.needs_input_grad[2:])
    of_results = list(grads[split : split + call.num_results])
    for i, gradient in zip(call.packed, grads[:split], strict=True):
        of_results[i] = gradient
    if all(g is None for g in of_results):
        each: Sequence[Tensor | None] = [None] * len(needs)
    elif torch.is_grad_enabled():  # through the loop, which can be differentiated again
        views = [[t.view_as(t) for t in group] for group in groups]  # hooks of the tensors are not for these
        results = ran(ctx.core, call, groups, kept).replay(views, "torch")
        each = pulled_back(_flat(views), results, of_results, needs)
    else:
        found = iter(torch.ops.flexsn.scan_backward(ctx.core, ctx.text, *groups, kept, of_results, needs))
        each = [next(found) if need else None for need in needs]
    return None, None, *_split(each, ctx.sizes)[:-1]


def _split(items: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    """In groups of these sizes, and what is left."""
    found, rest = [], list(items)
    for size in sizes:
        found.append(rest[:size])
        rest = rest[size:]
    return [*found, rest]


_library.impl("scan", _forward, "CompositeExplicitAutograd")
_library.impl("scan_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("flexsn::scan", _forward_in_fake, lib=_library)
torch.library.register_fake("flexsn::scan_backward", _backward_in_fake, lib=_library)
torch.library.register_autograd("flexsn::scan", _differentiate, setup_context=_keep, lib=_library)
