"""The report of a sweep as one HTML file; it may import what the report does.

`page.py` puts it together, `figures.py` and `strips.py` draw, `witness.py` draws deadlocks.
"""
