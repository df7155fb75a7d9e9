"""What `action=` names, one file a verb: `act(plans, loader)` does it and returns an exit code.

May import validate, report, sweep, planning, store; lane and boot, to run one lane again.
"""
