"""Random graphs, cycles among them, against the equations by hand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nir_equations import ByHand, heterogeneous

from flexsn.functional import set_backend
from flexsn.nir import from_nir, to_nir

NEURONS = ["I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"]
KINDS = [*NEURONS, "Affine", "Linear", "Scale", "Threshold", "Delay", "Flatten"]


@pytest.fixture(autouse=True, scope="module")
def in_fp64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def node_of(kind: str, rows: int, columns: int, seed: int) -> Any:
    draw = np.random.default_rng(seed)
    if kind in NEURONS:
        return heterogeneous(kind, columns, seed=seed)
    values = {
        "Affine": lambda: nir.Affine(draw.normal(size=(rows, columns)) / 2, draw.normal(size=rows)),
        "Linear": lambda: nir.Linear(draw.normal(size=(rows, columns)) / 2),
        "Scale": lambda: nir.Scale(draw.uniform(-0.9, 0.9, columns)),
        "Threshold": lambda: nir.Threshold(draw.uniform(0.2, 0.8, columns)),
        "Delay": lambda: nir.Delay(draw.integers(0, 3, columns).astype(float)),
        "Flatten": lambda: nir.Flatten({"input": np.array([columns])}, 0, -1),
    }
    return values[kind]()


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    """Nodes of two or three lanes; each is reached from an earlier one, and further edges go anywhere they fit."""
    nodes: dict[str, Any] = {f"in{size}": nir.Input([size]) for size in (2, 3)}
    takes, gives = {}, {"in2": 2, "in3": 3}
    edges = set()
    for number in range(draw(st.integers(1, 6))):
        kind, name = draw(st.sampled_from(KINDS)), f"n{number}"
        source = draw(st.sampled_from(sorted(gives)))
        takes[name] = gives[source]
        gives[name] = draw(st.sampled_from([2, 3])) if kind in ("Affine", "Linear") else takes[name]
        nodes[name] = node_of(kind, gives[name], takes[name], draw(st.integers(0, 99)))
        edges.add((source, name))
    fitting = [(a, b) for a in gives for b in takes if gives[a] == takes[b]]
    edges |= set(draw(st.lists(st.sampled_from(fitting), max_size=5)))
    for number, name in enumerate(sorted(takes)):
        nodes[f"out{number}"] = nir.Output([gives[name]])
        edges.add((name, f"out{number}"))
    read = {name for name, _ in edges}  # nir puts an Output behind an Input that nobody reads
    nodes = {name: node for name, node in nodes.items() if not isinstance(node, nir.Input) or name in read}
    return nir.NIRGraph(nodes, sorted(edges), type_check=False)


def compared(graph: Any, method: str, reset: str, backend: str) -> None:
    net = from_nir(graph, 1.0, method=method, reset=reset)
    set_backend(net, backend)
    sizes = [int(node.input_type["input"][0]) for node in graph.inputs.values()]
    xs = [2 * torch.rand(6, 2, size, generator=torch.Generator().manual_seed(size)) for size in sizes]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        ys = net(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        for y, expected in zip(ys, ByHand(graph, 1.0, method, reset, net)(*xs), strict=True):
            torch.testing.assert_close(y, expected)
        again = from_nir(to_nir(net), 1.0, method=method, reset=reset)
        set_backend(again, backend)
        chunks = [again(*(x[part] for x in xs)) for part in (slice(0, 2), slice(2, 6))]
        chunks = [chunk if isinstance(chunk, tuple) else (chunk,) for chunk in chunks]
        for y, parts in zip(ys, zip(*chunks, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), y)


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
HOW = st.sampled_from(["exact", "euler"]), st.sampled_from(["zero", "subtract"])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(graphs(), *HOW)
def test_the_loop_computes_the_equations_and_survives_a_round_trip(graph: Any, method: str, reset: str) -> None:
    compared(graph, method, reset, "torch")


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(graphs(), *HOW)
def test_kernels_compute_the_equations(graph: Any, method: str, reset: str) -> None:
    compared(graph, method, reset, "cpp")
