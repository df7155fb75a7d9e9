"""What a recording does not show: deaths and births without an event, and what was there before it began.

`history` gathers the events of an import; `snapshots` reads the kernel's own counts before and after; `slabs` says
which of the kernel's caches an object was in; `proofs` and `law` find deaths, `hindsight` the start, `counting` and
`reconcile` what the counts after say. `reconstruct` puts it together: the rows that an import adds, and how much of
them is a guess.
"""
