"""The claims of the mail: finding the experiments, running their sweeps, judging, writing the verdicts.

May import actions, report and what these stand on.
"""
