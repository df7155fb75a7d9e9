"""Exit codes of the program: 0 complete, 1 wrong configuration or input, 2 finished with failed cells, 130 Ctrl-C."""

COMPLETE, WRONG, FAILED, INTERRUPTED = 0, 1, 2, 130
