"""`fw chaos`: the real processes are killed, frozen, cut off and starved under load, and then everything is compared.

Invariant: what must have come out is known from the ledger alone, which is written before anything is sent, and is compared by
code that shares nothing with the paths that it judges but the codec.
"""
