"""What commands say while they work, and how it looks in a narrow terminal."""

from __future__ import annotations

import contextlib
import io

import pytest

from coronet_plugin import cli
from coronet_plugin.command import say

LINE = "features of 48 real test pictures of some/folder-with-a-very-long-name/that-is-to-be-copied.png ..."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal()


def test_lines_break_between_words(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        say(LINE)
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 2 and " ".join(line.strip() for line in lines) == f"coronet: {LINE}"
    assert "  some/folder-with-a-very-long-name/that-is-to-be-copied.png" in lines  # whole, to be copied
    assert all(len(line) <= 40 for line in lines if "/" not in line)


def test_errors_do_so_too(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        assert cli.main(["compare", "nothing", "--checkpoints_dir", "some/folder/of/mine"]) == 2
    first, *rest = terminal.getvalue().splitlines()
    assert first.startswith("coronet: no run 'nothing'") and rest and all(line[:2] == "  " for line in rest)


def test_pipes_and_files_get_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    say(LINE)
    say(LINE, "note")
    assert capsys.readouterr().err == f"coronet: {LINE}\nnote: {LINE}\n"
