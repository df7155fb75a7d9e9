"""The program in this process."""

import sys

import kmemexp.__main__ as program


def call(monkeypatch, *words) -> int:
    """Run the program in this process. Returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["kmemexp", *words])
    try:
        program.main()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code)
            return 1
        return end.code or 0
    return 0
