"""`fw demo`: a recording of a real media server, replayed into the running platform, and what the platform says about it.

Invariant: what must come out is computed from the recording here, by code that shares nothing with the edge agent's.
"""
