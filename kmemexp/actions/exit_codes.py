"""Exit codes of the program.

0 complete, 1 wrong configuration or input, 2 finished with failed or damaged rows; 128 and its number where a signal
has ended it: 130 Ctrl-C, 143 SIGTERM.
"""

COMPLETE, WRONG, FAILED, SIGNALLED = 0, 1, 2, 128
