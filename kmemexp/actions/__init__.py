"""What `action=` names, one file a verb.

May import report, sweep, plan, store; lane and boot, to run one lane again.
"""
