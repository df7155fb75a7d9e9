"""What is said while a sweep runs: how far, how fast, and how long it will take, from the first second."""

import io

import pytest
from rich.console import Console

from kmemexp.sweep import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_the_time_left_is_told_before_the_first_row(clock):
    shown = progress.Quiet(10, 1000, expected=40.0)
    shown.compiling(2)
    assert shown.left == 40 + 2 * progress.COMPILE_SECONDS
    clock.now += 10
    shown.compiling(1)
    assert shown.left == 30 + progress.COMPILE_SECONDS
    clock.now += 1000
    assert shown.left == 0.0


def test_rate_and_time_left_follow_the_work(clock):
    shown = progress.Quiet(10, 1000)
    shown.begin()
    clock.now += 5
    shown.advance(2, 0, 250)
    assert shown.pace == "0.4 rows/s, about 15 s left"
    shown.advance(8, 0, 750)
    assert shown.pace == "2 rows/s"


def test_lines_come_in_the_first_second_and_while_nothing_ends(clock, capsys):
    shown = progress.Lines(10, 1000, expected=40.0)
    shown.compiling(1)
    shown.status("compiling")
    assert capsys.readouterr().err == "compiling, then 10 rows, about 55 s left\n"
    clock.now += 1
    shown.tick()
    assert capsys.readouterr().err == ""
    clock.now += progress.LINE_SECONDS
    shown.tick()
    assert capsys.readouterr().err == "0/10 rows, 11 s, about 44 s left\n"
    shown.advance(10, 0, 1000)
    assert capsys.readouterr().err.startswith("10/10 rows, 11 s")
    shown.tick()
    assert capsys.readouterr().err == ""


def test_a_bar_fits_80_columns(clock):
    shown = progress.Bar(1234, 10**6, expected=40.0)
    text = io.StringIO()
    Console(file=text, width=80).print(shown._bar.get_renderable())
    (line,) = text.getvalue().splitlines()
    assert "0/1,234 rows" in line
    assert "about 40 s left" in line
