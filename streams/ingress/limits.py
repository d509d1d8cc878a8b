"""How much may travel, and wait, at once. Client and server hold to the same figures."""

from __future__ import annotations

from typing import Final

MAX_ITEM_BYTES: Final = 1 << 20
MAX_BATCH_BYTES: Final = 4 << 20  # of the whole message on the wire; gRPC refuses more before reading it
MAX_BATCH_ITEMS: Final = 10_000
ITEM_OVERHEAD_BYTES: Final = 80  # of an item on the wire beside its value: tags, lengths, traceparent
MAX_BATCHES_IN_FLIGHT: Final = 64  # per connection; the server reads no further until one is acknowledged
MAX_BYTES_IN_FLIGHT: Final = 16 << 20  # per connection, likewise
MAX_BYTES_WAITING: Final = 128 << 20  # of all connections of an ingress together, likewise
MAX_AHEAD_SECONDS: Final = 300  # how far a node's clock may be ahead; the same that commands are allowed
KEEPALIVE_SECONDS: Final = 5.0  # a policy stream that is silent for three of these is dead

ACCEPTED: Final = ("fw-accepted", "1")
"""Metadata with which a call begins whose node was let in. One that is refused begins with none, and may not have ended yet."""

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_BATCH_BYTES),
    ("grpc.max_send_message_length", MAX_BATCH_BYTES),
    ("grpc.keepalive_time_ms", 10_000),  # a peer that vanished without a word is noticed within 15 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
SERVER_OPTIONS: Final = (
    *CHANNEL_OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),  # a second ingress on the port must fail, not share it in silence
)
