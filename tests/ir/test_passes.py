"""Watching and printing the forms on the way to a kernel."""

from __future__ import annotations

import pytest

from flexsn.ir.passes import describe, passed, watching


def test_a_watcher_sees_every_form_while_it_watches() -> None:
    seen: list[tuple[str, object]] = []
    form = object()
    with watching(lambda *what: seen.append(what)):
        passed("first", form)
        passed("second", "text")
    passed("third", form)
    assert seen == [("first", form), ("second", "text")]


def test_watchers_nest() -> None:
    seen: list[str] = []
    with watching(lambda name, form: seen.append(f"outer {name}")):
        with watching(lambda name, form: seen.append(f"inner {name}")):
            passed("a", "")
        passed("b", "")
    assert seen == ["outer a", "inner a", "outer b"]


def test_a_watcher_leaves_when_what_it_watched_fails() -> None:
    seen: list[str] = []
    with pytest.raises(KeyError), watching(lambda name, form: seen.append(name)):
        raise KeyError
    passed("later", "")
    assert seen == []


@pytest.mark.parametrize(("setting", "printed"), [("1", True), ("0", False), ("", False), (None, False)])
def test_print_passes(
    setting: str | None, printed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLEXSN_PRINT_PASSES", raising=False)
    if setting is not None:
        monkeypatch.setenv("FLEXSN_PRINT_PASSES", setting)
    passed("a form", "y = x\n")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("# ---- a form ----\ny = x\n\n" if printed else "")


def test_what_nobody_registered_is_its_own_text() -> None:
    assert describe("source\n\n") == "source"
