"""Flags of a request (`regs.FLAGS`): how it may wait, and what it runs in."""

NOWAIT = 1  # the caller cannot sleep (M_NOWAIT, GFP_ATOMIC)
SOFT = 2  # in a soft interrupt or an interrupt thread
HARD = 4  # in a fast interrupt or an IPI handler
RESERVE = 8  # may use the system's page reserve (M_USE_RESERVE)
INTERRUPT = 16  # may use the interrupts' page reserve (M_INTWAIT, M_USE_INTERRUPT_RESERVE)
WAITED = 32  # it would have slept at a limit, but cannot, or nobody is left to wait for: it fails (the answer SLEEP)
