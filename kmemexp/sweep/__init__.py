"""Running a plan: driver, batches, runners, worker, progress, provenance.

May import plan, store, parts; lane by name only.
"""
