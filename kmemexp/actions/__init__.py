"""What `action=` names, one file a verb: `act(plans, loader)` does it and returns an exit code.

May import report, sweep, plan, store; lane and boot, to run one lane again.
"""
