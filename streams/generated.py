"""Written by `make gen` from schemas/avro: do not edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of every record: which event, whose, about what, caused by what, when and by whom."""

    event_id: UUID
    tenant_id: UUID
    aggregate_id: UUID
    version: int
    causation_id: UUID
    correlation_id: UUID
    occurred_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class ApiTokenIssued:
    """An API token of the tenant works from now on. The token itself was shown once and is stored nowhere."""

    name: str
    token_prefix: str
    token_hash: bytes


@dataclass(frozen=True, slots=True)
class ApiTokenRevoked:
    """An API token of the tenant is refused from now on, for ever."""

    token_prefix: str


@dataclass(frozen=True, slots=True)
class BalancerWeightsSet:
    """How the balancer weighs nodes, from now on, on every gateway."""

    cpu: int
    ram: int
    bandwidth: int
    geo: int
    bonus: int


@dataclass(frozen=True, slots=True)
class EnrolmentTokenIssued:
    """The node may be enrolled once with this token; an earlier one that was not used is good for nothing any more. The
    token was shown once and is stored nowhere."""

    token_prefix: str
    token_hash: bytes
    expires_at: datetime


class PersonalKind(StrEnum):
    VIEWER = "VIEWER"
    VIEWER_DAY = "VIEWER_DAY"
    PUBLISHER_DAY = "PUBLISHER_DAY"
    NODE_DAY = "NODE_DAY"
    CONTACT = "CONTACT"
    OTHER = "OTHER"


class ErasureReason(StrEnum):
    REQUESTED = "REQUESTED"
    EXPIRED = "EXPIRED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class ErasureRequested:
    """Somebody's data is to become unreadable."""

    kind: PersonalKind
    reason: ErasureReason
    subject_tag: bytes | None = None
    day: str | None = None


@dataclass(frozen=True, slots=True)
class NodeCertificateIssued:
    """A certificate of a node was signed: after its enrolment, after a repetition of it with the same key, or as the
    next one."""

    enrolment_id: UUID
    certificate_serial: str
    key_fingerprint: bytes
    not_after: datetime


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """What is known of a node is this from now on, all of it."""

    tenants: tuple[UUID, ...] | None = None
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    base_url: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeEnrolled:
    """A node proved that it holds an enrolment token: from now on it speaks with certificates of this enrolment, and
    those of earlier ones are refused."""

    enrolment_id: UUID
    token_prefix: str
    key_fingerprint: bytes


class NodeMode(StrEnum):
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    MAINTENANCE = "MAINTENANCE"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class NodeModeSet:
    """What a node is for, from now on."""

    mode: NodeMode


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    """A media server node may be enrolled from now on. The owner is the tenant; the operator's own id for nodes of the
    operator."""

    node_id: str
    name: str
    tenants: tuple[UUID, ...] | None = None
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    base_url: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRevoked:
    """All certificates of the node, and its enrolment token, are refused from now on. Another enrolment ends that."""

    reason: str


class PlaybackKind(StrEnum):
    PUBLIC = "PUBLIC"
    JWT = "JWT"
    WEBHOOK = "WEBHOOK"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class PlaybackPolicy:
    """Who may watch a stream. The defaults: everybody."""

    kind: PlaybackKind
    allowed_origins: tuple[str, ...] = ()
    allowed_countries: tuple[str, ...] = ()
    blocked_countries: tuple[str, ...] = ()
    max_viewers: int | None = None
    audience: str | None = None
    webhook_url: str | None = None
    open_when_unavailable: bool = False


@dataclass(frozen=True, slots=True)
class PlaybackPolicySet:
    """Others may watch the stream than before."""

    playback: PlaybackPolicy


@dataclass(frozen=True, slots=True)
class PushTargetCreated:
    """The stream has another place to which it can be pushed."""

    target_id: UUID
    name: str
    shown_url: str
    url_digest: bytes
    sealed_url: bytes
    enabled: bool
    internal_name: str


@dataclass(frozen=True, slots=True)
class PushTargetDeleted:
    """The target is gone."""

    target_id: UUID


@dataclass(frozen=True, slots=True)
class PushTargetDisabled:
    """The stream is not pushed there any more."""

    target_id: UUID


@dataclass(frozen=True, slots=True)
class PushTargetEnabled:
    """The stream is pushed there from now on, whenever it is live."""

    target_id: UUID
    sealed_url: bytes
    internal_name: str


@dataclass(frozen=True, slots=True)
class RecordingCalledOff:
    """The recording is to end."""

    recording_id: UUID


@dataclass(frozen=True, slots=True)
class RecordingRequested:
    """The stream is to be recorded while it is live, until that is called off."""

    recording_id: UUID
    container: str
    internal_name: str


class SigningAlgorithm(StrEnum):
    ES256 = "ES256"
    EDDSA = "EDDSA"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class SigningKeyCreated:
    """Viewers' tokens may be signed with another key of the tenant."""

    key_id: str
    name: str
    algorithm: SigningAlgorithm
    public_key: bytes


@dataclass(frozen=True, slots=True)
class SigningKeyRevoked:
    """Tokens that were signed with a key are refused from now on, for ever."""

    key_id: str


@dataclass(frozen=True, slots=True)
class StreamCreated:
    """A stream exists from now on and accepts its key."""

    title: str
    slug: str
    playback_id: str
    internal_name: str
    key_prefix: str
    key_hash: bytes


@dataclass(frozen=True, slots=True)
class StreamDeleted:
    """The stream is gone: its keys are refused, its slug is free again."""

    slug: str


@dataclass(frozen=True, slots=True)
class StreamDisabled:
    """The stream takes neither publishers nor viewers until it is enabled."""


@dataclass(frozen=True, slots=True)
class StreamEnabled:
    """The stream takes publishers and viewers again."""


@dataclass(frozen=True, slots=True)
class StreamKeyRotated:
    """The stream has another key."""

    key_prefix: str
    key_hash: bytes
    old_key_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StreamRenamed:
    """The stream has another title."""

    title: str


@dataclass(frozen=True, slots=True)
class StreamStopRequested:
    """The stream is to be cut once, where it is live at the moment."""

    expires_at: datetime
    internal_name: str


@dataclass(frozen=True, slots=True)
class SubjectErased:
    """The keys are destroyed: what was sealed with them is unreadable, wherever it lies."""

    kind: PersonalKind
    reason: ErasureReason
    keys_destroyed: int
    subject_tag: bytes | None = None
    day: str | None = None


@dataclass(frozen=True, slots=True)
class TenantLimitsSet:
    """The tenant has other limits."""

    max_live_streams: int | None = None


@dataclass(frozen=True, slots=True)
class TenantRegistered:
    """A tenant exists from now on."""

    name: str
    contact_email: bytes | None = None


@dataclass(frozen=True, slots=True)
class TenantReinstated:
    """The tenant may publish and be watched again."""


class SuspensionReason(StrEnum):
    SUSPENDED = "SUSPENDED"
    PAYMENT_REQUIRED = "PAYMENT_REQUIRED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class TenantSuspended:
    """The tenant may neither publish nor be watched until it is reinstated."""

    reason: SuspensionReason


@dataclass(frozen=True, slots=True)
class ViewerKicked:
    """A viewer's session is ended, and refused for a while."""

    session_id: str
    until: datetime


class CommandStatus(StrEnum):
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class CommandHandled:
    """What became of a command, written in the same transaction as its events. Lies on the decisions topic."""

    command_id: UUID
    command_type: str
    fingerprint: bytes
    status: CommandStatus
    events: int
    code: str | None = None
    field: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeNode:
    """Says anew what is known of a node, all of it."""

    tenants: tuple[UUID, ...] | None = None
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    base_url: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfirmErasure:
    """The keys of an erasure are destroyed. Sent by the reactor that did it."""

    keys_destroyed: int


@dataclass(frozen=True, slots=True)
class CreatePushTarget:
    """Gives the stream a place to which it is pushed while it is live."""

    target_id: UUID
    name: str
    shown_url: str
    url_digest: bytes
    sealed_url: bytes
    enabled: bool


@dataclass(frozen=True, slots=True)
class CreateSigningKey:
    """Gives the tenant another key that viewers' tokens are signed with."""

    key_id: str
    name: str
    algorithm: SigningAlgorithm
    public_key: bytes


@dataclass(frozen=True, slots=True)
class CreateStream:
    """Makes a stream."""

    title: str
    slug: str
    playback_id: str
    internal_name: str
    key_prefix: str
    key_hash: bytes


@dataclass(frozen=True, slots=True)
class DeletePushTarget:
    """Takes the target away."""

    target_id: UUID


@dataclass(frozen=True, slots=True)
class DeleteStream:
    """Removes the stream."""


@dataclass(frozen=True, slots=True)
class DisablePushTarget:
    """Pushes the stream there no longer; the target stays."""

    target_id: UUID


@dataclass(frozen=True, slots=True)
class DisableStream:
    """Takes a stream out of service for a while."""


@dataclass(frozen=True, slots=True)
class EnablePushTarget:
    """Pushes the stream there again."""

    target_id: UUID


@dataclass(frozen=True, slots=True)
class EnableStream:
    """Takes a disabled stream back into service."""


@dataclass(frozen=True, slots=True)
class EnrolNode:
    """A node shows an enrolment token and asks for its first certificate."""

    token_prefix: str
    token_hash: bytes
    enrolment_id: UUID
    key_fingerprint: bytes
    certificate_serial: str
    not_after: datetime
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class IssueApiToken:
    """Gives a tenant another API token."""

    name: str
    token_prefix: str
    token_hash: bytes


@dataclass(frozen=True, slots=True)
class IssueEnrolmentToken:
    """Asks for a token that enrols the node once."""

    token_prefix: str
    token_hash: bytes
    valid_seconds: int
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class KickViewer:
    """Ends a viewer's session."""

    session_id: str
    block_seconds: int
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """Makes a media server node known."""

    node_id: str
    name: str
    tenants: tuple[UUID, ...] | None = None
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    base_url: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisterTenant:
    """Makes a tenant with a first API token."""

    name: str
    token_prefix: str
    token_hash: bytes
    contact_email: bytes | None = None


@dataclass(frozen=True, slots=True)
class ReinstateTenant:
    """Lets a tenant go on that was suspended."""


@dataclass(frozen=True, slots=True)
class RenameStream:
    """Gives the stream another title."""

    title: str


@dataclass(frozen=True, slots=True)
class RenewNodeCertificate:
    """A node shows its certificate and asks for the next one."""

    enrolment_id: UUID
    key_fingerprint: bytes
    certificate_serial: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class RequestErasure:
    """Destroys the keys of a person's data, so that it cannot be read any more, wherever it lies."""

    kind: PersonalKind
    reason: ErasureReason
    subject_tag: bytes | None = None
    day: str | None = None


@dataclass(frozen=True, slots=True)
class RevokeApiToken:
    """Ends one of the tenant's API tokens."""

    token_prefix: str


@dataclass(frozen=True, slots=True)
class RevokeNode:
    """Ends all certificates of a node."""

    reason: str


@dataclass(frozen=True, slots=True)
class RevokeSigningKey:
    """Ends a signing key."""

    key_id: str


@dataclass(frozen=True, slots=True)
class RotateStreamKey:
    """Gives the stream another key."""

    key_prefix: str
    key_hash: bytes
    grace_seconds: int
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class SetBalancerWeights:
    """Changes how the balancer weighs nodes. What is null stays as it is."""

    cpu: int | None = None
    ram: int | None = None
    bandwidth: int | None = None
    geo: int | None = None
    bonus: int | None = None


@dataclass(frozen=True, slots=True)
class SetNodeMode:
    """Says what a node is for."""

    mode: NodeMode


@dataclass(frozen=True, slots=True)
class SetPlaybackPolicy:
    """Says who may watch a stream."""

    playback: PlaybackPolicy


@dataclass(frozen=True, slots=True)
class SetTenantLimits:
    """Gives a tenant other limits."""

    max_live_streams: int | None = None


@dataclass(frozen=True, slots=True)
class StartRecording:
    """Records the stream on its media server while it is live, until it is stopped."""

    recording_id: UUID
    container: str


@dataclass(frozen=True, slots=True)
class StopRecording:
    """Ends a recording."""

    recording_id: UUID


@dataclass(frozen=True, slots=True)
class StopStream:
    """Cuts the stream once: its publisher is dropped, its viewers' sessions end. Who publishes again is let in."""

    issued_at: datetime


@dataclass(frozen=True, slots=True)
class SuspendTenant:
    """Stops a tenant."""

    reason: SuspensionReason


@dataclass(frozen=True, slots=True)
class BandwidthMeasured:
    """Byte rate of a live stream as its buffer measured it. At most one per stream in ten seconds."""

    node_id: str
    bytes_per_second: int


class BufferState(StrEnum):
    FULL = "FULL"
    DRY = "DRY"
    RECOVER = "RECOVER"
    EMPTY = "EMPTY"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class BufferChanged:
    """The state of a stream's buffer changed."""

    node_id: str
    state: BufferState
    buffer_ms: int | None = None
    jitter_ms: int | None = None
    max_keepaway_ms: int | None = None
    bitrate_bps: int | None = None
    issues: str | None = None


@dataclass(frozen=True, slots=True)
class ClientSamples:
    """Samples of one stream's sessions over a window: parallel arrays, one element a session and time."""

    node_id: str
    window_started_at: datetime
    session_ids: tuple[str, ...]
    sampled_at: tuple[datetime, ...]
    connectors: tuple[str, ...]
    connected_seconds: tuple[int, ...]
    up_bytes: tuple[int, ...]
    down_bytes: tuple[int, ...]
    up_bytes_per_second: tuple[int, ...]
    down_bytes_per_second: tuple[int, ...]
    packets_sent: tuple[int, ...]
    packets_lost: tuple[int, ...]
    packets_retransmitted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConnectionsCounted:
    """Connections of a media server over a window: parallel arrays, one element a connector. Counted in memory: a crash
    of the agent loses at most one window."""

    node_id: str
    window_started_at: datetime
    window_seconds: int
    connectors: tuple[str, ...]
    opened: tuple[int, ...]
    closed: tuple[int, ...]
    played: tuple[int, ...]
    stopped: tuple[int, ...]


class EdgeAction(StrEnum):
    DROP_PUBLISHER = "DROP_PUBLISHER"
    STOP_STREAM = "STOP_STREAM"
    RECHECK_VIEWERS = "RECHECK_VIEWERS"
    STOP_VIEWER = "STOP_VIEWER"
    START_PUSH = "START_PUSH"
    STOP_PUSH = "STOP_PUSH"
    START_RECORDING = "START_RECORDING"
    STOP_RECORDING = "STOP_RECORDING"
    SET_NODE_MODE = "SET_NODE_MODE"
    OTHER = "OTHER"


class EdgeActionStatus(StrEnum):
    ACKNOWLEDGED = "ACKNOWLEDGED"
    DONE = "DONE"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class EdgeActionReported:
    """What became of something that a node had to do at its media server: about the stream, or the node."""

    node_id: str
    action: EdgeAction
    request_id: UUID
    status: EdgeActionStatus
    detail: str | None = None
    policy_version: int = 0
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class EncoderWindowMeasured:
    """What an encoder beside a stream did since it last said so, every five seconds and at its end. Never measured: read
    as the fork's public source has it; a body of another form is a TriggerInvalid."""

    node_id: str
    kind: str
    window_seconds: int
    input_frames: int
    output_frames: int
    input_bytes: int
    output_bytes: int
    input_codec: str
    output_codec: str
    width: int
    height: int
    source_advanced_ms: int
    output_advanced_ms: int
    is_final: bool


@dataclass(frozen=True, slots=True)
class FactsDropped:
    """The journal of a node reached its byte budget and gave up what was least worth keeping: parallel arrays, one
    element a record type. Ends, totals and admissions are never among it."""

    node_id: str
    record_names: tuple[str, ...]
    counts: tuple[int, ...]
    sizes_bytes: tuple[int, ...]
    from_at: datetime
    until_at: datetime


@dataclass(frozen=True, slots=True)
class IngestEnded:
    """A publisher is gone."""

    node_id: str
    ingest_id: UUID
    internal_name: str
    protocol: str
    end_reason: str
    started_at: datetime | None = None
    seconds: int | None = None
    received_bytes: int | None = None
    end_detail: str | None = None
    synthesized: bool = False
    evidence: str | None = None


class IngestRejection(StrEnum):
    UNKNOWN_KEY = "UNKNOWN_KEY"
    KEY_EXPIRED = "KEY_EXPIRED"
    STREAM_DELETED = "STREAM_DELETED"
    DUPLICATE_INGEST = "DUPLICATE_INGEST"
    MALFORMED_KEY = "MALFORMED_KEY"
    OTHER = "OTHER"
    STREAM_DISABLED = "STREAM_DISABLED"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    PAYMENT_REQUIRED = "PAYMENT_REQUIRED"
    STREAM_LIMIT_REACHED = "STREAM_LIMIT_REACHED"
    NODE_DRAINING = "NODE_DRAINING"
    NODE_MAINTENANCE = "NODE_MAINTENANCE"
    POLICY_STALE = "POLICY_STALE"


@dataclass(frozen=True, slots=True)
class IngestRejected:
    """A publisher was refused."""

    node_id: str
    protocol: str
    reason: IngestRejection
    key_redacted: str | None = None
    address: bytes | None = None
    policy_version: int = 0
    tenant_policy_version: int = 0
    held_by: str | None = None


class IngestLease(StrEnum):
    NOT_ASKED = "NOT_ASKED"
    GRANTED = "GRANTED"
    HELD_HERE = "HELD_HERE"
    UNREACHABLE = "UNREACHABLE"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class IngestStarted:
    """A publisher was admitted and its buffer runs."""

    node_id: str
    ingest_id: UUID
    internal_name: str
    protocol: str
    key_prefix: str | None = None
    address: bytes | None = None
    policy_version: int = 0
    tenant_policy_version: int = 0
    lease: IngestLease = IngestLease.NOT_ASKED
    synthesized: bool = False
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class InputAborted:
    """An input process of the media server gave up by itself. About the stream; of the operator's own streams about the
    node."""

    node_id: str
    stream: str
    source: str
    input: str
    pid: int
    end_reason: str
    end_detail: str | None = None


@dataclass(frozen=True, slots=True)
class ListenerStarted:
    """A connector of the media server listens: at start, and again after it crashed. Of its configuration only what is
    named here is kept."""

    node_id: str
    connector: str
    interface: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class ListenerStopped:
    """A connector of the media server was told to stop listening. A crash and a shutdown say nothing."""

    node_id: str
    connector: str
    interface: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class LivepeerSegmentCompleted:
    """A segment was transcoded by Livepeer. Never measured: read as the fork's public source has it; a body of another
    form is a TriggerInvalid."""

    node_id: str
    segment: int
    first_media_ms: int
    media_ms: int
    width: int
    height: int
    input_bytes: int
    output_bytes: int
    renditions: int
    attempts: int
    turnaround_ms: int


@dataclass(frozen=True, slots=True)
class LivepeerSegmentRejected:
    """A segment was refused by Livepeer's transcoders. About the node: the trigger names no stream. The segment itself
    is not kept. Read as the public source has it, never measured; a body of another form is a TriggerInvalid."""

    node_id: str
    transcoders: tuple[str, ...]
    width: int | None = None
    height: int | None = None
    media_ms: int | None = None


@dataclass(frozen=True, slots=True)
class MediaProcessExited:
    """A process beside a stream (transcoder, thumbnails) ended. Never measured: read as the fork's public source has it;
    a body of another form is a TriggerInvalid."""

    node_id: str
    process: str
    pid: int
    exit_code: int
    boots: int
    status: str
    end_reason: str
    end_detail: str | None = None


@dataclass(frozen=True, slots=True)
class NodeConfigured:
    """The edge agent changed a media server's configuration, and read back whether it took."""

    node_id: str
    step: str
    sentence: str
    applied: bool
    instance: str


class MediaServerFlavour(StrEnum):
    STOCK = "STOCK"
    FORK = "FORK"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class NodeObserved:
    """What the edge agent found a media server to be, when it changed."""

    node_id: str
    software_version: str
    flavour: MediaServerFlavour
    instance: str
    server_name: str
    connectors: tuple[str, ...]
    processors: int
    drift: int


@dataclass(frozen=True, slots=True)
class NodeSamples:
    """Samples of one node over a window: parallel arrays."""

    node_id: str
    window_started_at: datetime
    sampled_at: tuple[datetime, ...]
    cpu_permille: tuple[int, ...]
    memory_used_bytes: tuple[int, ...]
    memory_total_bytes: tuple[int, ...]
    shm_used_bytes: tuple[int, ...]
    shm_total_bytes: tuple[int, ...]
    up_bytes: tuple[int, ...]
    down_bytes: tuple[int, ...]
    viewers: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bandwidth_limit_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A media server (its controller) started."""

    node_id: str
    software_version: str


@dataclass(frozen=True, slots=True)
class NodeStopped:
    """A media server began to stop."""

    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PushEnded:
    """A push or recording process is gone."""

    node_id: str
    push_id: UUID
    target: str
    target_used: str
    end_reason: str
    started_at: datetime | None = None
    seconds: int | None = None
    sent_bytes: int | None = None
    media_ms: int | None = None
    end_detail: str | None = None
    synthesized: bool = False
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class PushStarted:
    """The media server starts to push a stream out or to record it."""

    node_id: str
    push_id: UUID
    target: str
    synthesized: bool = False
    evidence: str | None = None


class PushKind(StrEnum):
    TARGET = "TARGET"
    RECORDING = "RECORDING"
    OTHER = "OTHER"


class PushTargetState(StrEnum):
    WAITING = "WAITING"
    CONNECTING = "CONNECTING"
    ACTIVE = "ACTIVE"
    BACKING_OFF = "BACKING_OFF"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class PushTargetStateChanged:
    """What a media server makes of a push target or recording, as its node sees it: said by the node that has the
    stream, or had it last."""

    node_id: str
    target_id: UUID
    kind: PushKind
    request_id: UUID
    state: PushTargetState
    since: datetime
    attempt: int
    policy_version: int
    reason: str | None = None
    retry_at: datetime | None = None
    sent_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """A recording file is complete."""

    node_id: str
    recording_id: UUID
    path: str
    connector: str
    size_bytes: int
    seconds: int
    started_at: datetime
    ended_at: datetime
    media_ms: int
    end_reason: str
    push_id: UUID | None = None
    first_media_ms: int | None = None
    last_media_ms: int | None = None
    end_detail: str | None = None


@dataclass(frozen=True, slots=True)
class RecordingSegmentWritten:
    """A segment of a recording was written."""

    node_id: str
    path: str
    media_ms: int
    first_media_ms: int | None = None
    last_media_ms: int | None = None


class StreamChange(StrEnum):
    ADDED = "ADDED"
    CHANGED = "CHANGED"
    REMOVED = "REMOVED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class StreamConfigured:
    """The media server's own list of streams changed. Of the configuration only the kind of the source is kept."""

    node_id: str
    stream: str
    change: StreamChange
    source_kind: str | None = None


@dataclass(frozen=True, slots=True)
class StreamNotFound:
    """Somebody asked for a stream that cannot be opened. Said at once, then at most once a minute for each stream, with
    how often it was asked for since. About the stream where it is one of ours, else about the node: then no name is
    kept, for it may be a mistyped key."""

    node_id: str
    connector: str
    requests: int
    internal_name: str | None = None


@dataclass(frozen=True, slots=True)
class StreamRelayEnded:
    """A node relays a stream no more: nobody watches it there, or the node that it came from has it no more."""

    node_id: str
    internal_name: str
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class StreamRelayStarted:
    """A node begins to relay a stream: it fetches it from another node and serves it to its own viewers."""

    node_id: str
    internal_name: str
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class StreamTotals:
    """Nobody is connected to the stream any more; what it came to since the first session."""

    node_id: str
    internal_name: str
    up_bytes: int
    down_bytes: int
    viewers: int
    inputs: int
    outputs: int
    viewer_seconds: int


@dataclass(frozen=True, slots=True)
class StreamWentLive:
    """The buffer is full: viewers get media from now on."""

    node_id: str
    internal_name: str
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class StreamWentOffline:
    """The buffer is empty: the source left."""

    node_id: str
    internal_name: str
    last_media_ms: int | None = None
    evidence: str | None = None
    live_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ThumbnailsUpdated:
    """Preview images of a stream were written anew. Never measured: read as the fork's public source has it; a body of
    another form is a TriggerInvalid."""

    node_id: str
    poster_path: str
    sprite_path: str
    index_path: str


@dataclass(frozen=True, slots=True)
class Track:
    """One track of a live buffer."""

    name: str
    kind: str
    codec: str
    bitrate_bps: int
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    channels: int | None = None
    sample_rate_hz: int | None = None


@dataclass(frozen=True, slots=True)
class TracksChanged:
    """The set of valid tracks changed."""

    node_id: str
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class TriggerInvalid:
    """A trigger body that does not follow the contract, as it came. Answered with the safe default, never half-parsed."""

    node_id: str
    trigger: str
    reason: str
    body: bytes
    sealed_body: bytes | None = None
    unkept: int = 0


class AdmissionBasis(StrEnum):
    PUBLIC = "PUBLIC"
    JWT = "JWT"
    WEBHOOK = "WEBHOOK"
    OPEN_WHEN_UNAVAILABLE = "OPEN_WHEN_UNAVAILABLE"
    MEDIA_SERVER = "MEDIA_SERVER"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class ViewerJoined:
    """A viewer session began."""

    node_id: str
    session_id: str
    viewing_id: UUID
    connector: str
    country: str | None = None
    address: bytes | None = None
    subject: bytes | None = None
    viewer_day: str | None = None
    policy_version: int = 0
    tenant_policy_version: int = 0
    basis: AdmissionBasis = AdmissionBasis.PUBLIC
    synthesized: bool = False
    evidence: str | None = None


class ViewerEnd(StrEnum):
    DISCONNECTED = "DISCONNECTED"
    STREAM_ENDED = "STREAM_ENDED"
    NODE_RESTARTED = "NODE_RESTARTED"
    SUPERSEDED = "SUPERSEDED"
    OTHER = "OTHER"
    REVOKED = "REVOKED"
    NOT_LISTED = "NOT_LISTED"


@dataclass(frozen=True, slots=True)
class ViewerLeft:
    """A viewer session ended."""

    node_id: str
    session_id: str
    viewing_id: UUID
    connector: str
    seconds: int
    up_bytes: int
    down_bytes: int
    end_reason: ViewerEnd
    country: str | None = None
    joined_at: datetime | None = None
    synthesized: bool = False
    evidence: str | None = None


class ViewerRejection(StrEnum):
    STREAM_NOT_FOUND = "STREAM_NOT_FOUND"
    STREAM_DELETED = "STREAM_DELETED"
    OTHER = "OTHER"
    STREAM_DISABLED = "STREAM_DISABLED"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    PAYMENT_REQUIRED = "PAYMENT_REQUIRED"
    KICKED = "KICKED"
    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    TOKEN_MISMATCH = "TOKEN_MISMATCH"
    ORIGIN_NOT_ALLOWED = "ORIGIN_NOT_ALLOWED"
    COUNTRY_NOT_ALLOWED = "COUNTRY_NOT_ALLOWED"
    VIEWER_LIMIT_REACHED = "VIEWER_LIMIT_REACHED"
    WEBHOOK_DENIED = "WEBHOOK_DENIED"
    WEBHOOK_UNAVAILABLE = "WEBHOOK_UNAVAILABLE"
    POLICY_STALE = "POLICY_STALE"
    NODE_DRAINING = "NODE_DRAINING"
    NODE_MAINTENANCE = "NODE_MAINTENANCE"


@dataclass(frozen=True, slots=True)
class ViewerRejected:
    """A viewer was refused."""

    node_id: str
    session_id: str
    connector: str
    reason: ViewerRejection
    address: bytes | None = None
    subject: bytes | None = None
    policy_version: int = 0
    tenant_policy_version: int = 0
    detail: str | None = None
    viewing_id: UUID | None = None


class RoutingPurpose(StrEnum):
    VIEWER = "VIEWER"
    INGEST = "INGEST"
    SOURCE = "SOURCE"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class ViewerRouted:
    """The balancer was asked which node serves a stream, and decided. Candidates are parallel arrays, the best first."""

    purpose: RoutingPurpose
    protocol: str
    weight_cpu: int
    weight_ram: int
    weight_bandwidth: int
    weight_geo: int
    weight_bonus: int
    candidates_total: int
    node_ids: tuple[str, ...]
    scores: tuple[int, ...]
    cpu_used_ppm: tuple[int, ...]
    ram_used_ppm: tuple[int, ...]
    bandwidth_used_ppm: tuple[int, ...]
    distance_ppm: tuple[int, ...]
    has_stream: tuple[bool, ...]
    tag_adjustments: tuple[int, ...]
    is_own: tuple[bool, ...]
    country: str | None = None
    h3_cell: str | None = None
    node_id: str | None = None
    excluded_node_ids: tuple[str, ...] = ()
    exclusion_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What an edge must know of itself."""

    tenant_id: UUID
    node_id: str
    version: int
    mode: NodeMode
    mode_request_id: UUID | None = None
    revoked: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyConfirmed:
    """The writer of the policy is at work: what was decided until then is in the records. Said again and again; of a
    writer that stands still the last one grows old."""

    tenant_id: UUID
    version: int
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class StreamKey:
    """One accepted key."""

    prefix: str
    hash: bytes
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class KickedSession:
    """A viewer session that was ended."""

    session_id: str
    until: datetime
    kick_id: UUID


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What an edge must know of one stream to admit publishers and viewers."""

    tenant_id: UUID
    stream_id: UUID
    internal_name: str
    playback_id: str
    keys: tuple[StreamKey, ...]
    deleted: bool
    version: int = 0
    disabled: bool = False
    playback: PlaybackPolicy | None = None
    kicked: tuple[KickedSession, ...] = ()


@dataclass(frozen=True, slots=True)
class WantedPush:
    """A target that the stream is pushed to while it is live."""

    request_id: UUID
    target_id: UUID
    sealed_url: bytes
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WantedRecording:
    """A recording that runs while the stream is live."""

    request_id: UUID
    recording_id: UUID
    container: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WantedStop:
    """The stream is cut: its publisher is dropped, its viewers' sessions end."""

    request_id: UUID
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StreamTasks:
    """What shall be done with a stream on the node that has it."""

    tenant_id: UUID
    stream_id: UUID
    internal_name: str
    version: int
    pushes: tuple[WantedPush, ...] = ()
    recordings: tuple[WantedRecording, ...] = ()
    stops: tuple[WantedStop, ...] = ()


class TenantStanding(StrEnum):
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    PAYMENT_REQUIRED = "PAYMENT_REQUIRED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that viewers' tokens are signed with."""

    key_id: str
    algorithm: SigningAlgorithm
    public_key: bytes


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What an edge must know of a tenant to admit its publishers and viewers."""

    tenant_id: UUID
    version: int
    standing: TenantStanding
    max_live_streams: int | None = None
    signing_keys: tuple[SigningKey, ...] = ()


Decision = (
    ApiTokenIssued
    | ApiTokenRevoked
    | BalancerWeightsSet
    | EnrolmentTokenIssued
    | ErasureRequested
    | NodeCertificateIssued
    | NodeChanged
    | NodeEnrolled
    | NodeModeSet
    | NodeRegistered
    | NodeRevoked
    | PlaybackPolicySet
    | PushTargetCreated
    | PushTargetDeleted
    | PushTargetDisabled
    | PushTargetEnabled
    | RecordingCalledOff
    | RecordingRequested
    | SigningKeyCreated
    | SigningKeyRevoked
    | StreamCreated
    | StreamDeleted
    | StreamDisabled
    | StreamEnabled
    | StreamKeyRotated
    | StreamRenamed
    | StreamStopRequested
    | SubjectErased
    | TenantLimitsSet
    | TenantRegistered
    | TenantReinstated
    | TenantSuspended
    | ViewerKicked
)
Outcome = CommandHandled
Command = (
    ChangeNode
    | ConfirmErasure
    | CreatePushTarget
    | CreateSigningKey
    | CreateStream
    | DeletePushTarget
    | DeleteStream
    | DisablePushTarget
    | DisableStream
    | EnablePushTarget
    | EnableStream
    | EnrolNode
    | IssueApiToken
    | IssueEnrolmentToken
    | KickViewer
    | RegisterNode
    | RegisterTenant
    | ReinstateTenant
    | RenameStream
    | RenewNodeCertificate
    | RequestErasure
    | RevokeApiToken
    | RevokeNode
    | RevokeSigningKey
    | RotateStreamKey
    | SetBalancerWeights
    | SetNodeMode
    | SetPlaybackPolicy
    | SetTenantLimits
    | StartRecording
    | StopRecording
    | StopStream
    | SuspendTenant
)
Fact = (
    BandwidthMeasured
    | BufferChanged
    | ClientSamples
    | ConnectionsCounted
    | EdgeActionReported
    | EncoderWindowMeasured
    | FactsDropped
    | IngestEnded
    | IngestRejected
    | IngestStarted
    | InputAborted
    | ListenerStarted
    | ListenerStopped
    | LivepeerSegmentCompleted
    | LivepeerSegmentRejected
    | MediaProcessExited
    | NodeConfigured
    | NodeObserved
    | NodeSamples
    | NodeStarted
    | NodeStopped
    | PushEnded
    | PushStarted
    | PushTargetStateChanged
    | RecordingEnded
    | RecordingSegmentWritten
    | StreamConfigured
    | StreamNotFound
    | StreamRelayEnded
    | StreamRelayStarted
    | StreamTotals
    | StreamWentLive
    | StreamWentOffline
    | ThumbnailsUpdated
    | TracksChanged
    | TriggerInvalid
    | ViewerJoined
    | ViewerLeft
    | ViewerRejected
    | ViewerRouted
)
Policy = NodePolicy | PolicyConfirmed | StreamPolicy | StreamTasks | TenantPolicy
Event = Decision | Outcome | Command | Fact
Record = Event | Policy


def read_Meta(d: Any) -> Meta:
    return Meta(
        event_id=d["event_id"],
        tenant_id=d["tenant_id"],
        aggregate_id=d["aggregate_id"],
        version=d["version"],
        causation_id=d["causation_id"],
        correlation_id=d["correlation_id"],
        occurred_at=d["occurred_at"],
        actor=d["actor"],
    )


def read_ApiTokenIssued(d: Any) -> ApiTokenIssued:
    return ApiTokenIssued(
        name=d["name"],
        token_prefix=d["token_prefix"],
        token_hash=d["token_hash"],
    )


def read_ApiTokenRevoked(d: Any) -> ApiTokenRevoked:
    return ApiTokenRevoked(
        token_prefix=d["token_prefix"],
    )


def read_BalancerWeightsSet(d: Any) -> BalancerWeightsSet:
    return BalancerWeightsSet(
        cpu=d["cpu"],
        ram=d["ram"],
        bandwidth=d["bandwidth"],
        geo=d["geo"],
        bonus=d["bonus"],
    )


def read_EnrolmentTokenIssued(d: Any) -> EnrolmentTokenIssued:
    return EnrolmentTokenIssued(
        token_prefix=d["token_prefix"],
        token_hash=d["token_hash"],
        expires_at=d["expires_at"],
    )


def read_ErasureRequested(d: Any) -> ErasureRequested:
    return ErasureRequested(
        kind=PersonalKind(d["kind"]),
        subject_tag=d["subject_tag"],
        day=d["day"],
        reason=ErasureReason(d["reason"]),
    )


def read_NodeCertificateIssued(d: Any) -> NodeCertificateIssued:
    return NodeCertificateIssued(
        enrolment_id=d["enrolment_id"],
        certificate_serial=d["certificate_serial"],
        key_fingerprint=d["key_fingerprint"],
        not_after=d["not_after"],
    )


def read_NodeChanged(d: Any) -> NodeChanged:
    return NodeChanged(
        tenants=None if d["tenants"] is None else tuple(d["tenants"]),
        region=d["region"],
        latitude=d["latitude"],
        longitude=d["longitude"],
        base_url=d["base_url"],
        tags=tuple(d["tags"]),
    )


def read_NodeEnrolled(d: Any) -> NodeEnrolled:
    return NodeEnrolled(
        enrolment_id=d["enrolment_id"],
        token_prefix=d["token_prefix"],
        key_fingerprint=d["key_fingerprint"],
    )


def read_NodeModeSet(d: Any) -> NodeModeSet:
    return NodeModeSet(
        mode=NodeMode(d["mode"]),
    )


def read_NodeRegistered(d: Any) -> NodeRegistered:
    return NodeRegistered(
        node_id=d["node_id"],
        name=d["name"],
        tenants=None if d["tenants"] is None else tuple(d["tenants"]),
        region=d["region"],
        latitude=d["latitude"],
        longitude=d["longitude"],
        base_url=d["base_url"],
        tags=tuple(d["tags"]),
    )


def read_NodeRevoked(d: Any) -> NodeRevoked:
    return NodeRevoked(
        reason=d["reason"],
    )


def read_PlaybackPolicy(d: Any) -> PlaybackPolicy:
    return PlaybackPolicy(
        kind=PlaybackKind(d["kind"]),
        allowed_origins=tuple(d["allowed_origins"]),
        allowed_countries=tuple(d["allowed_countries"]),
        blocked_countries=tuple(d["blocked_countries"]),
        max_viewers=d["max_viewers"],
        audience=d["audience"],
        webhook_url=d["webhook_url"],
        open_when_unavailable=d["open_when_unavailable"],
    )


def read_PlaybackPolicySet(d: Any) -> PlaybackPolicySet:
    return PlaybackPolicySet(
        playback=read_PlaybackPolicy(d["playback"]),
    )


def read_PushTargetCreated(d: Any) -> PushTargetCreated:
    return PushTargetCreated(
        target_id=d["target_id"],
        name=d["name"],
        shown_url=d["shown_url"],
        url_digest=d["url_digest"],
        sealed_url=d["sealed_url"],
        enabled=d["enabled"],
        internal_name=d["internal_name"],
    )


def read_PushTargetDeleted(d: Any) -> PushTargetDeleted:
    return PushTargetDeleted(
        target_id=d["target_id"],
    )


def read_PushTargetDisabled(d: Any) -> PushTargetDisabled:
    return PushTargetDisabled(
        target_id=d["target_id"],
    )


def read_PushTargetEnabled(d: Any) -> PushTargetEnabled:
    return PushTargetEnabled(
        target_id=d["target_id"],
        sealed_url=d["sealed_url"],
        internal_name=d["internal_name"],
    )


def read_RecordingCalledOff(d: Any) -> RecordingCalledOff:
    return RecordingCalledOff(
        recording_id=d["recording_id"],
    )


def read_RecordingRequested(d: Any) -> RecordingRequested:
    return RecordingRequested(
        recording_id=d["recording_id"],
        container=d["container"],
        internal_name=d["internal_name"],
    )


def read_SigningKeyCreated(d: Any) -> SigningKeyCreated:
    return SigningKeyCreated(
        key_id=d["key_id"],
        name=d["name"],
        algorithm=SigningAlgorithm(d["algorithm"]),
        public_key=d["public_key"],
    )


def read_SigningKeyRevoked(d: Any) -> SigningKeyRevoked:
    return SigningKeyRevoked(
        key_id=d["key_id"],
    )


def read_StreamCreated(d: Any) -> StreamCreated:
    return StreamCreated(
        title=d["title"],
        slug=d["slug"],
        playback_id=d["playback_id"],
        internal_name=d["internal_name"],
        key_prefix=d["key_prefix"],
        key_hash=d["key_hash"],
    )


def read_StreamDeleted(d: Any) -> StreamDeleted:
    return StreamDeleted(
        slug=d["slug"],
    )


def read_StreamDisabled(_: Any) -> StreamDisabled:
    return StreamDisabled()


def read_StreamEnabled(_: Any) -> StreamEnabled:
    return StreamEnabled()


def read_StreamKeyRotated(d: Any) -> StreamKeyRotated:
    return StreamKeyRotated(
        key_prefix=d["key_prefix"],
        key_hash=d["key_hash"],
        old_key_until=d["old_key_until"],
    )


def read_StreamRenamed(d: Any) -> StreamRenamed:
    return StreamRenamed(
        title=d["title"],
    )


def read_StreamStopRequested(d: Any) -> StreamStopRequested:
    return StreamStopRequested(
        expires_at=d["expires_at"],
        internal_name=d["internal_name"],
    )


def read_SubjectErased(d: Any) -> SubjectErased:
    return SubjectErased(
        kind=PersonalKind(d["kind"]),
        subject_tag=d["subject_tag"],
        day=d["day"],
        reason=ErasureReason(d["reason"]),
        keys_destroyed=d["keys_destroyed"],
    )


def read_TenantLimitsSet(d: Any) -> TenantLimitsSet:
    return TenantLimitsSet(
        max_live_streams=d["max_live_streams"],
    )


def read_TenantRegistered(d: Any) -> TenantRegistered:
    return TenantRegistered(
        name=d["name"],
        contact_email=d["contact_email"],
    )


def read_TenantReinstated(_: Any) -> TenantReinstated:
    return TenantReinstated()


def read_TenantSuspended(d: Any) -> TenantSuspended:
    return TenantSuspended(
        reason=SuspensionReason(d["reason"]),
    )


def read_ViewerKicked(d: Any) -> ViewerKicked:
    return ViewerKicked(
        session_id=d["session_id"],
        until=d["until"],
    )


def read_CommandHandled(d: Any) -> CommandHandled:
    return CommandHandled(
        command_id=d["command_id"],
        command_type=d["command_type"],
        fingerprint=d["fingerprint"],
        status=CommandStatus(d["status"]),
        code=d["code"],
        field=d["field"],
        message=d["message"],
        events=d["events"],
    )


def read_ChangeNode(d: Any) -> ChangeNode:
    return ChangeNode(
        tenants=None if d["tenants"] is None else tuple(d["tenants"]),
        region=d["region"],
        latitude=d["latitude"],
        longitude=d["longitude"],
        base_url=d["base_url"],
        tags=tuple(d["tags"]),
    )


def read_ConfirmErasure(d: Any) -> ConfirmErasure:
    return ConfirmErasure(
        keys_destroyed=d["keys_destroyed"],
    )


def read_CreatePushTarget(d: Any) -> CreatePushTarget:
    return CreatePushTarget(
        target_id=d["target_id"],
        name=d["name"],
        shown_url=d["shown_url"],
        url_digest=d["url_digest"],
        sealed_url=d["sealed_url"],
        enabled=d["enabled"],
    )


def read_CreateSigningKey(d: Any) -> CreateSigningKey:
    return CreateSigningKey(
        key_id=d["key_id"],
        name=d["name"],
        algorithm=SigningAlgorithm(d["algorithm"]),
        public_key=d["public_key"],
    )


def read_CreateStream(d: Any) -> CreateStream:
    return CreateStream(
        title=d["title"],
        slug=d["slug"],
        playback_id=d["playback_id"],
        internal_name=d["internal_name"],
        key_prefix=d["key_prefix"],
        key_hash=d["key_hash"],
    )


def read_DeletePushTarget(d: Any) -> DeletePushTarget:
    return DeletePushTarget(
        target_id=d["target_id"],
    )


def read_DeleteStream(_: Any) -> DeleteStream:
    return DeleteStream()


def read_DisablePushTarget(d: Any) -> DisablePushTarget:
    return DisablePushTarget(
        target_id=d["target_id"],
    )


def read_DisableStream(_: Any) -> DisableStream:
    return DisableStream()


def read_EnablePushTarget(d: Any) -> EnablePushTarget:
    return EnablePushTarget(
        target_id=d["target_id"],
    )


def read_EnableStream(_: Any) -> EnableStream:
    return EnableStream()


def read_EnrolNode(d: Any) -> EnrolNode:
    return EnrolNode(
        token_prefix=d["token_prefix"],
        token_hash=d["token_hash"],
        enrolment_id=d["enrolment_id"],
        key_fingerprint=d["key_fingerprint"],
        certificate_serial=d["certificate_serial"],
        not_after=d["not_after"],
        issued_at=d["issued_at"],
    )


def read_IssueApiToken(d: Any) -> IssueApiToken:
    return IssueApiToken(
        name=d["name"],
        token_prefix=d["token_prefix"],
        token_hash=d["token_hash"],
    )


def read_IssueEnrolmentToken(d: Any) -> IssueEnrolmentToken:
    return IssueEnrolmentToken(
        token_prefix=d["token_prefix"],
        token_hash=d["token_hash"],
        valid_seconds=d["valid_seconds"],
        issued_at=d["issued_at"],
    )


def read_KickViewer(d: Any) -> KickViewer:
    return KickViewer(
        session_id=d["session_id"],
        block_seconds=d["block_seconds"],
        issued_at=d["issued_at"],
    )


def read_RegisterNode(d: Any) -> RegisterNode:
    return RegisterNode(
        node_id=d["node_id"],
        name=d["name"],
        tenants=None if d["tenants"] is None else tuple(d["tenants"]),
        region=d["region"],
        latitude=d["latitude"],
        longitude=d["longitude"],
        base_url=d["base_url"],
        tags=tuple(d["tags"]),
    )


def read_RegisterTenant(d: Any) -> RegisterTenant:
    return RegisterTenant(
        name=d["name"],
        token_prefix=d["token_prefix"],
        token_hash=d["token_hash"],
        contact_email=d["contact_email"],
    )


def read_ReinstateTenant(_: Any) -> ReinstateTenant:
    return ReinstateTenant()


def read_RenameStream(d: Any) -> RenameStream:
    return RenameStream(
        title=d["title"],
    )


def read_RenewNodeCertificate(d: Any) -> RenewNodeCertificate:
    return RenewNodeCertificate(
        enrolment_id=d["enrolment_id"],
        key_fingerprint=d["key_fingerprint"],
        certificate_serial=d["certificate_serial"],
        not_after=d["not_after"],
    )


def read_RequestErasure(d: Any) -> RequestErasure:
    return RequestErasure(
        kind=PersonalKind(d["kind"]),
        subject_tag=d["subject_tag"],
        day=d["day"],
        reason=ErasureReason(d["reason"]),
    )


def read_RevokeApiToken(d: Any) -> RevokeApiToken:
    return RevokeApiToken(
        token_prefix=d["token_prefix"],
    )


def read_RevokeNode(d: Any) -> RevokeNode:
    return RevokeNode(
        reason=d["reason"],
    )


def read_RevokeSigningKey(d: Any) -> RevokeSigningKey:
    return RevokeSigningKey(
        key_id=d["key_id"],
    )


def read_RotateStreamKey(d: Any) -> RotateStreamKey:
    return RotateStreamKey(
        key_prefix=d["key_prefix"],
        key_hash=d["key_hash"],
        grace_seconds=d["grace_seconds"],
        issued_at=d["issued_at"],
    )


def read_SetBalancerWeights(d: Any) -> SetBalancerWeights:
    return SetBalancerWeights(
        cpu=d["cpu"],
        ram=d["ram"],
        bandwidth=d["bandwidth"],
        geo=d["geo"],
        bonus=d["bonus"],
    )


def read_SetNodeMode(d: Any) -> SetNodeMode:
    return SetNodeMode(
        mode=NodeMode(d["mode"]),
    )


def read_SetPlaybackPolicy(d: Any) -> SetPlaybackPolicy:
    return SetPlaybackPolicy(
        playback=read_PlaybackPolicy(d["playback"]),
    )


def read_SetTenantLimits(d: Any) -> SetTenantLimits:
    return SetTenantLimits(
        max_live_streams=d["max_live_streams"],
    )


def read_StartRecording(d: Any) -> StartRecording:
    return StartRecording(
        recording_id=d["recording_id"],
        container=d["container"],
    )


def read_StopRecording(d: Any) -> StopRecording:
    return StopRecording(
        recording_id=d["recording_id"],
    )


def read_StopStream(d: Any) -> StopStream:
    return StopStream(
        issued_at=d["issued_at"],
    )


def read_SuspendTenant(d: Any) -> SuspendTenant:
    return SuspendTenant(
        reason=SuspensionReason(d["reason"]),
    )


def read_BandwidthMeasured(d: Any) -> BandwidthMeasured:
    return BandwidthMeasured(
        node_id=d["node_id"],
        bytes_per_second=d["bytes_per_second"],
    )


def read_BufferChanged(d: Any) -> BufferChanged:
    return BufferChanged(
        node_id=d["node_id"],
        state=BufferState(d["state"]),
        buffer_ms=d["buffer_ms"],
        jitter_ms=d["jitter_ms"],
        max_keepaway_ms=d["max_keepaway_ms"],
        bitrate_bps=d["bitrate_bps"],
        issues=d["issues"],
    )


def read_ClientSamples(d: Any) -> ClientSamples:
    return ClientSamples(
        node_id=d["node_id"],
        window_started_at=d["window_started_at"],
        session_ids=tuple(d["session_ids"]),
        sampled_at=tuple(d["sampled_at"]),
        connectors=tuple(d["connectors"]),
        connected_seconds=tuple(d["connected_seconds"]),
        up_bytes=tuple(d["up_bytes"]),
        down_bytes=tuple(d["down_bytes"]),
        up_bytes_per_second=tuple(d["up_bytes_per_second"]),
        down_bytes_per_second=tuple(d["down_bytes_per_second"]),
        packets_sent=tuple(d["packets_sent"]),
        packets_lost=tuple(d["packets_lost"]),
        packets_retransmitted=tuple(d["packets_retransmitted"]),
    )


def read_ConnectionsCounted(d: Any) -> ConnectionsCounted:
    return ConnectionsCounted(
        node_id=d["node_id"],
        window_started_at=d["window_started_at"],
        window_seconds=d["window_seconds"],
        connectors=tuple(d["connectors"]),
        opened=tuple(d["opened"]),
        closed=tuple(d["closed"]),
        played=tuple(d["played"]),
        stopped=tuple(d["stopped"]),
    )


def read_EdgeActionReported(d: Any) -> EdgeActionReported:
    return EdgeActionReported(
        node_id=d["node_id"],
        action=EdgeAction(d["action"]),
        request_id=d["request_id"],
        status=EdgeActionStatus(d["status"]),
        detail=d["detail"],
        policy_version=d["policy_version"],
        session_id=d["session_id"],
    )


def read_EncoderWindowMeasured(d: Any) -> EncoderWindowMeasured:
    return EncoderWindowMeasured(
        node_id=d["node_id"],
        kind=d["kind"],
        window_seconds=d["window_seconds"],
        input_frames=d["input_frames"],
        output_frames=d["output_frames"],
        input_bytes=d["input_bytes"],
        output_bytes=d["output_bytes"],
        input_codec=d["input_codec"],
        output_codec=d["output_codec"],
        width=d["width"],
        height=d["height"],
        source_advanced_ms=d["source_advanced_ms"],
        output_advanced_ms=d["output_advanced_ms"],
        is_final=d["is_final"],
    )


def read_FactsDropped(d: Any) -> FactsDropped:
    return FactsDropped(
        node_id=d["node_id"],
        record_names=tuple(d["record_names"]),
        counts=tuple(d["counts"]),
        sizes_bytes=tuple(d["sizes_bytes"]),
        from_at=d["from_at"],
        until_at=d["until_at"],
    )


def read_IngestEnded(d: Any) -> IngestEnded:
    return IngestEnded(
        node_id=d["node_id"],
        ingest_id=d["ingest_id"],
        internal_name=d["internal_name"],
        protocol=d["protocol"],
        started_at=d["started_at"],
        seconds=d["seconds"],
        received_bytes=d["received_bytes"],
        end_reason=d["end_reason"],
        end_detail=d["end_detail"],
        synthesized=d["synthesized"],
        evidence=d["evidence"],
    )


def read_IngestRejected(d: Any) -> IngestRejected:
    return IngestRejected(
        node_id=d["node_id"],
        protocol=d["protocol"],
        reason=IngestRejection(d["reason"]),
        key_redacted=d["key_redacted"],
        address=d["address"],
        policy_version=d["policy_version"],
        tenant_policy_version=d["tenant_policy_version"],
        held_by=d["held_by"],
    )


def read_IngestStarted(d: Any) -> IngestStarted:
    return IngestStarted(
        node_id=d["node_id"],
        ingest_id=d["ingest_id"],
        internal_name=d["internal_name"],
        protocol=d["protocol"],
        key_prefix=d["key_prefix"],
        address=d["address"],
        policy_version=d["policy_version"],
        tenant_policy_version=d["tenant_policy_version"],
        lease=IngestLease(d["lease"]),
        synthesized=d["synthesized"],
        evidence=d["evidence"],
    )


def read_InputAborted(d: Any) -> InputAborted:
    return InputAborted(
        node_id=d["node_id"],
        stream=d["stream"],
        source=d["source"],
        input=d["input"],
        pid=d["pid"],
        end_reason=d["end_reason"],
        end_detail=d["end_detail"],
    )


def read_ListenerStarted(d: Any) -> ListenerStarted:
    return ListenerStarted(
        node_id=d["node_id"],
        connector=d["connector"],
        interface=d["interface"],
        port=d["port"],
    )


def read_ListenerStopped(d: Any) -> ListenerStopped:
    return ListenerStopped(
        node_id=d["node_id"],
        connector=d["connector"],
        interface=d["interface"],
        port=d["port"],
    )


def read_LivepeerSegmentCompleted(d: Any) -> LivepeerSegmentCompleted:
    return LivepeerSegmentCompleted(
        node_id=d["node_id"],
        segment=d["segment"],
        first_media_ms=d["first_media_ms"],
        media_ms=d["media_ms"],
        width=d["width"],
        height=d["height"],
        input_bytes=d["input_bytes"],
        output_bytes=d["output_bytes"],
        renditions=d["renditions"],
        attempts=d["attempts"],
        turnaround_ms=d["turnaround_ms"],
    )


def read_LivepeerSegmentRejected(d: Any) -> LivepeerSegmentRejected:
    return LivepeerSegmentRejected(
        node_id=d["node_id"],
        width=d["width"],
        height=d["height"],
        media_ms=d["media_ms"],
        transcoders=tuple(d["transcoders"]),
    )


def read_MediaProcessExited(d: Any) -> MediaProcessExited:
    return MediaProcessExited(
        node_id=d["node_id"],
        process=d["process"],
        pid=d["pid"],
        exit_code=d["exit_code"],
        boots=d["boots"],
        status=d["status"],
        end_reason=d["end_reason"],
        end_detail=d["end_detail"],
    )


def read_NodeConfigured(d: Any) -> NodeConfigured:
    return NodeConfigured(
        node_id=d["node_id"],
        step=d["step"],
        sentence=d["sentence"],
        applied=d["applied"],
        instance=d["instance"],
    )


def read_NodeObserved(d: Any) -> NodeObserved:
    return NodeObserved(
        node_id=d["node_id"],
        software_version=d["software_version"],
        flavour=MediaServerFlavour(d["flavour"]),
        instance=d["instance"],
        server_name=d["server_name"],
        connectors=tuple(d["connectors"]),
        processors=d["processors"],
        drift=d["drift"],
    )


def read_NodeSamples(d: Any) -> NodeSamples:
    return NodeSamples(
        node_id=d["node_id"],
        window_started_at=d["window_started_at"],
        sampled_at=tuple(d["sampled_at"]),
        cpu_permille=tuple(d["cpu_permille"]),
        memory_used_bytes=tuple(d["memory_used_bytes"]),
        memory_total_bytes=tuple(d["memory_total_bytes"]),
        shm_used_bytes=tuple(d["shm_used_bytes"]),
        shm_total_bytes=tuple(d["shm_total_bytes"]),
        up_bytes=tuple(d["up_bytes"]),
        down_bytes=tuple(d["down_bytes"]),
        viewers=tuple(d["viewers"]),
        inputs=tuple(d["inputs"]),
        outputs=tuple(d["outputs"]),
        bandwidth_limit_bytes_per_second=d["bandwidth_limit_bytes_per_second"],
    )


def read_NodeStarted(d: Any) -> NodeStarted:
    return NodeStarted(
        node_id=d["node_id"],
        software_version=d["software_version"],
    )


def read_NodeStopped(d: Any) -> NodeStopped:
    return NodeStopped(
        node_id=d["node_id"],
        reason=d["reason"],
    )


def read_PushEnded(d: Any) -> PushEnded:
    return PushEnded(
        node_id=d["node_id"],
        push_id=d["push_id"],
        target=d["target"],
        target_used=d["target_used"],
        started_at=d["started_at"],
        seconds=d["seconds"],
        sent_bytes=d["sent_bytes"],
        media_ms=d["media_ms"],
        end_reason=d["end_reason"],
        end_detail=d["end_detail"],
        synthesized=d["synthesized"],
        evidence=d["evidence"],
    )


def read_PushStarted(d: Any) -> PushStarted:
    return PushStarted(
        node_id=d["node_id"],
        push_id=d["push_id"],
        target=d["target"],
        synthesized=d["synthesized"],
        evidence=d["evidence"],
    )


def read_PushTargetStateChanged(d: Any) -> PushTargetStateChanged:
    return PushTargetStateChanged(
        node_id=d["node_id"],
        target_id=d["target_id"],
        kind=PushKind(d["kind"]),
        request_id=d["request_id"],
        state=PushTargetState(d["state"]),
        since=d["since"],
        reason=d["reason"],
        attempt=d["attempt"],
        retry_at=d["retry_at"],
        sent_bytes=d["sent_bytes"],
        policy_version=d["policy_version"],
    )


def read_RecordingEnded(d: Any) -> RecordingEnded:
    return RecordingEnded(
        node_id=d["node_id"],
        recording_id=d["recording_id"],
        push_id=d["push_id"],
        path=d["path"],
        connector=d["connector"],
        size_bytes=d["size_bytes"],
        seconds=d["seconds"],
        started_at=d["started_at"],
        ended_at=d["ended_at"],
        media_ms=d["media_ms"],
        first_media_ms=d["first_media_ms"],
        last_media_ms=d["last_media_ms"],
        end_reason=d["end_reason"],
        end_detail=d["end_detail"],
    )


def read_RecordingSegmentWritten(d: Any) -> RecordingSegmentWritten:
    return RecordingSegmentWritten(
        node_id=d["node_id"],
        path=d["path"],
        media_ms=d["media_ms"],
        first_media_ms=d["first_media_ms"],
        last_media_ms=d["last_media_ms"],
    )


def read_StreamConfigured(d: Any) -> StreamConfigured:
    return StreamConfigured(
        node_id=d["node_id"],
        stream=d["stream"],
        change=StreamChange(d["change"]),
        source_kind=d["source_kind"],
    )


def read_StreamNotFound(d: Any) -> StreamNotFound:
    return StreamNotFound(
        node_id=d["node_id"],
        connector=d["connector"],
        internal_name=d["internal_name"],
        requests=d["requests"],
    )


def read_StreamRelayEnded(d: Any) -> StreamRelayEnded:
    return StreamRelayEnded(
        node_id=d["node_id"],
        internal_name=d["internal_name"],
        evidence=d["evidence"],
    )


def read_StreamRelayStarted(d: Any) -> StreamRelayStarted:
    return StreamRelayStarted(
        node_id=d["node_id"],
        internal_name=d["internal_name"],
        evidence=d["evidence"],
    )


def read_StreamTotals(d: Any) -> StreamTotals:
    return StreamTotals(
        node_id=d["node_id"],
        internal_name=d["internal_name"],
        up_bytes=d["up_bytes"],
        down_bytes=d["down_bytes"],
        viewers=d["viewers"],
        inputs=d["inputs"],
        outputs=d["outputs"],
        viewer_seconds=d["viewer_seconds"],
    )


def read_StreamWentLive(d: Any) -> StreamWentLive:
    return StreamWentLive(
        node_id=d["node_id"],
        internal_name=d["internal_name"],
        evidence=d["evidence"],
    )


def read_StreamWentOffline(d: Any) -> StreamWentOffline:
    return StreamWentOffline(
        node_id=d["node_id"],
        internal_name=d["internal_name"],
        last_media_ms=d["last_media_ms"],
        evidence=d["evidence"],
        live_since=d["live_since"],
    )


def read_ThumbnailsUpdated(d: Any) -> ThumbnailsUpdated:
    return ThumbnailsUpdated(
        node_id=d["node_id"],
        poster_path=d["poster_path"],
        sprite_path=d["sprite_path"],
        index_path=d["index_path"],
    )


def read_Track(d: Any) -> Track:
    return Track(
        name=d["name"],
        kind=d["kind"],
        codec=d["codec"],
        bitrate_bps=d["bitrate_bps"],
        width=d["width"],
        height=d["height"],
        frame_rate=d["frame_rate"],
        channels=d["channels"],
        sample_rate_hz=d["sample_rate_hz"],
    )


def read_TracksChanged(d: Any) -> TracksChanged:
    return TracksChanged(
        node_id=d["node_id"],
        tracks=tuple(read_Track(x) for x in d["tracks"]),
    )


def read_TriggerInvalid(d: Any) -> TriggerInvalid:
    return TriggerInvalid(
        node_id=d["node_id"],
        trigger=d["trigger"],
        reason=d["reason"],
        body=d["body"],
        sealed_body=d["sealed_body"],
        unkept=d["unkept"],
    )


def read_ViewerJoined(d: Any) -> ViewerJoined:
    return ViewerJoined(
        node_id=d["node_id"],
        session_id=d["session_id"],
        viewing_id=d["viewing_id"],
        connector=d["connector"],
        country=d["country"],
        address=d["address"],
        subject=d["subject"],
        viewer_day=d["viewer_day"],
        policy_version=d["policy_version"],
        tenant_policy_version=d["tenant_policy_version"],
        basis=AdmissionBasis(d["basis"]),
        synthesized=d["synthesized"],
        evidence=d["evidence"],
    )


def read_ViewerLeft(d: Any) -> ViewerLeft:
    return ViewerLeft(
        node_id=d["node_id"],
        session_id=d["session_id"],
        viewing_id=d["viewing_id"],
        connector=d["connector"],
        country=d["country"],
        joined_at=d["joined_at"],
        seconds=d["seconds"],
        up_bytes=d["up_bytes"],
        down_bytes=d["down_bytes"],
        end_reason=ViewerEnd(d["end_reason"]),
        synthesized=d["synthesized"],
        evidence=d["evidence"],
    )


def read_ViewerRejected(d: Any) -> ViewerRejected:
    return ViewerRejected(
        node_id=d["node_id"],
        session_id=d["session_id"],
        connector=d["connector"],
        reason=ViewerRejection(d["reason"]),
        address=d["address"],
        subject=d["subject"],
        policy_version=d["policy_version"],
        tenant_policy_version=d["tenant_policy_version"],
        detail=d["detail"],
        viewing_id=d["viewing_id"],
    )


def read_ViewerRouted(d: Any) -> ViewerRouted:
    return ViewerRouted(
        purpose=RoutingPurpose(d["purpose"]),
        protocol=d["protocol"],
        country=d["country"],
        h3_cell=d["h3_cell"],
        node_id=d["node_id"],
        weight_cpu=d["weight_cpu"],
        weight_ram=d["weight_ram"],
        weight_bandwidth=d["weight_bandwidth"],
        weight_geo=d["weight_geo"],
        weight_bonus=d["weight_bonus"],
        candidates_total=d["candidates_total"],
        node_ids=tuple(d["node_ids"]),
        scores=tuple(d["scores"]),
        cpu_used_ppm=tuple(d["cpu_used_ppm"]),
        ram_used_ppm=tuple(d["ram_used_ppm"]),
        bandwidth_used_ppm=tuple(d["bandwidth_used_ppm"]),
        distance_ppm=tuple(d["distance_ppm"]),
        has_stream=tuple(d["has_stream"]),
        tag_adjustments=tuple(d["tag_adjustments"]),
        is_own=tuple(d["is_own"]),
        excluded_node_ids=tuple(d["excluded_node_ids"]),
        exclusion_reasons=tuple(d["exclusion_reasons"]),
    )


def read_NodePolicy(d: Any) -> NodePolicy:
    return NodePolicy(
        tenant_id=d["tenant_id"],
        node_id=d["node_id"],
        version=d["version"],
        mode=NodeMode(d["mode"]),
        mode_request_id=d["mode_request_id"],
        revoked=d["revoked"],
        tags=tuple(d["tags"]),
    )


def read_PolicyConfirmed(d: Any) -> PolicyConfirmed:
    return PolicyConfirmed(
        tenant_id=d["tenant_id"],
        version=d["version"],
        confirmed_at=d["confirmed_at"],
    )


def read_StreamKey(d: Any) -> StreamKey:
    return StreamKey(
        prefix=d["prefix"],
        hash=d["hash"],
        valid_until=d["valid_until"],
    )


def read_KickedSession(d: Any) -> KickedSession:
    return KickedSession(
        session_id=d["session_id"],
        until=d["until"],
        kick_id=d["kick_id"],
    )


def read_StreamPolicy(d: Any) -> StreamPolicy:
    return StreamPolicy(
        tenant_id=d["tenant_id"],
        stream_id=d["stream_id"],
        internal_name=d["internal_name"],
        playback_id=d["playback_id"],
        keys=tuple(read_StreamKey(x) for x in d["keys"]),
        deleted=d["deleted"],
        version=d["version"],
        disabled=d["disabled"],
        playback=None if d["playback"] is None else read_PlaybackPolicy(d["playback"]),
        kicked=tuple(read_KickedSession(x) for x in d["kicked"]),
    )


def read_WantedPush(d: Any) -> WantedPush:
    return WantedPush(
        request_id=d["request_id"],
        target_id=d["target_id"],
        sealed_url=d["sealed_url"],
        expires_at=d["expires_at"],
    )


def read_WantedRecording(d: Any) -> WantedRecording:
    return WantedRecording(
        request_id=d["request_id"],
        recording_id=d["recording_id"],
        container=d["container"],
        expires_at=d["expires_at"],
    )


def read_WantedStop(d: Any) -> WantedStop:
    return WantedStop(
        request_id=d["request_id"],
        expires_at=d["expires_at"],
    )


def read_StreamTasks(d: Any) -> StreamTasks:
    return StreamTasks(
        tenant_id=d["tenant_id"],
        stream_id=d["stream_id"],
        internal_name=d["internal_name"],
        version=d["version"],
        pushes=tuple(read_WantedPush(x) for x in d["pushes"]),
        recordings=tuple(read_WantedRecording(x) for x in d["recordings"]),
        stops=tuple(read_WantedStop(x) for x in d["stops"]),
    )


def read_SigningKey(d: Any) -> SigningKey:
    return SigningKey(
        key_id=d["key_id"],
        algorithm=SigningAlgorithm(d["algorithm"]),
        public_key=d["public_key"],
    )


def read_TenantPolicy(d: Any) -> TenantPolicy:
    return TenantPolicy(
        tenant_id=d["tenant_id"],
        version=d["version"],
        standing=TenantStanding(d["standing"]),
        max_live_streams=d["max_live_streams"],
        signing_keys=tuple(read_SigningKey(x) for x in d["signing_keys"]),
    )


def write_Meta(e: Meta) -> dict[str, Any]:
    return {
        "event_id": e.event_id,
        "tenant_id": e.tenant_id,
        "aggregate_id": e.aggregate_id,
        "version": e.version,
        "causation_id": e.causation_id,
        "correlation_id": e.correlation_id,
        "occurred_at": e.occurred_at,
        "actor": e.actor,
    }


def write_ApiTokenIssued(e: ApiTokenIssued) -> dict[str, Any]:
    return {
        "name": e.name,
        "token_prefix": e.token_prefix,
        "token_hash": e.token_hash,
    }


def write_ApiTokenRevoked(e: ApiTokenRevoked) -> dict[str, Any]:
    return {
        "token_prefix": e.token_prefix,
    }


def write_BalancerWeightsSet(e: BalancerWeightsSet) -> dict[str, Any]:
    return {
        "cpu": e.cpu,
        "ram": e.ram,
        "bandwidth": e.bandwidth,
        "geo": e.geo,
        "bonus": e.bonus,
    }


def write_EnrolmentTokenIssued(e: EnrolmentTokenIssued) -> dict[str, Any]:
    return {
        "token_prefix": e.token_prefix,
        "token_hash": e.token_hash,
        "expires_at": e.expires_at,
    }


def write_ErasureRequested(e: ErasureRequested) -> dict[str, Any]:
    return {
        "kind": e.kind,
        "subject_tag": e.subject_tag,
        "day": e.day,
        "reason": e.reason,
    }


def write_NodeCertificateIssued(e: NodeCertificateIssued) -> dict[str, Any]:
    return {
        "enrolment_id": e.enrolment_id,
        "certificate_serial": e.certificate_serial,
        "key_fingerprint": e.key_fingerprint,
        "not_after": e.not_after,
    }


def write_NodeChanged(e: NodeChanged) -> dict[str, Any]:
    return {
        "tenants": None if e.tenants is None else list(e.tenants),
        "region": e.region,
        "latitude": e.latitude,
        "longitude": e.longitude,
        "base_url": e.base_url,
        "tags": e.tags,
    }


def write_NodeEnrolled(e: NodeEnrolled) -> dict[str, Any]:
    return {
        "enrolment_id": e.enrolment_id,
        "token_prefix": e.token_prefix,
        "key_fingerprint": e.key_fingerprint,
    }


def write_NodeModeSet(e: NodeModeSet) -> dict[str, Any]:
    return {
        "mode": e.mode,
    }


def write_NodeRegistered(e: NodeRegistered) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "name": e.name,
        "tenants": None if e.tenants is None else list(e.tenants),
        "region": e.region,
        "latitude": e.latitude,
        "longitude": e.longitude,
        "base_url": e.base_url,
        "tags": e.tags,
    }


def write_NodeRevoked(e: NodeRevoked) -> dict[str, Any]:
    return {
        "reason": e.reason,
    }


def write_PlaybackPolicy(e: PlaybackPolicy) -> dict[str, Any]:
    return {
        "kind": e.kind,
        "allowed_origins": e.allowed_origins,
        "allowed_countries": e.allowed_countries,
        "blocked_countries": e.blocked_countries,
        "max_viewers": e.max_viewers,
        "audience": e.audience,
        "webhook_url": e.webhook_url,
        "open_when_unavailable": e.open_when_unavailable,
    }


def write_PlaybackPolicySet(e: PlaybackPolicySet) -> dict[str, Any]:
    return {
        "playback": write_PlaybackPolicy(e.playback),
    }


def write_PushTargetCreated(e: PushTargetCreated) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
        "name": e.name,
        "shown_url": e.shown_url,
        "url_digest": e.url_digest,
        "sealed_url": e.sealed_url,
        "enabled": e.enabled,
        "internal_name": e.internal_name,
    }


def write_PushTargetDeleted(e: PushTargetDeleted) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
    }


def write_PushTargetDisabled(e: PushTargetDisabled) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
    }


def write_PushTargetEnabled(e: PushTargetEnabled) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
        "sealed_url": e.sealed_url,
        "internal_name": e.internal_name,
    }


def write_RecordingCalledOff(e: RecordingCalledOff) -> dict[str, Any]:
    return {
        "recording_id": e.recording_id,
    }


def write_RecordingRequested(e: RecordingRequested) -> dict[str, Any]:
    return {
        "recording_id": e.recording_id,
        "container": e.container,
        "internal_name": e.internal_name,
    }


def write_SigningKeyCreated(e: SigningKeyCreated) -> dict[str, Any]:
    return {
        "key_id": e.key_id,
        "name": e.name,
        "algorithm": e.algorithm,
        "public_key": e.public_key,
    }


def write_SigningKeyRevoked(e: SigningKeyRevoked) -> dict[str, Any]:
    return {
        "key_id": e.key_id,
    }


def write_StreamCreated(e: StreamCreated) -> dict[str, Any]:
    return {
        "title": e.title,
        "slug": e.slug,
        "playback_id": e.playback_id,
        "internal_name": e.internal_name,
        "key_prefix": e.key_prefix,
        "key_hash": e.key_hash,
    }


def write_StreamDeleted(e: StreamDeleted) -> dict[str, Any]:
    return {
        "slug": e.slug,
    }


def write_StreamDisabled(_: StreamDisabled) -> dict[str, Any]:
    return {}


def write_StreamEnabled(_: StreamEnabled) -> dict[str, Any]:
    return {}


def write_StreamKeyRotated(e: StreamKeyRotated) -> dict[str, Any]:
    return {
        "key_prefix": e.key_prefix,
        "key_hash": e.key_hash,
        "old_key_until": e.old_key_until,
    }


def write_StreamRenamed(e: StreamRenamed) -> dict[str, Any]:
    return {
        "title": e.title,
    }


def write_StreamStopRequested(e: StreamStopRequested) -> dict[str, Any]:
    return {
        "expires_at": e.expires_at,
        "internal_name": e.internal_name,
    }


def write_SubjectErased(e: SubjectErased) -> dict[str, Any]:
    return {
        "kind": e.kind,
        "subject_tag": e.subject_tag,
        "day": e.day,
        "reason": e.reason,
        "keys_destroyed": e.keys_destroyed,
    }


def write_TenantLimitsSet(e: TenantLimitsSet) -> dict[str, Any]:
    return {
        "max_live_streams": e.max_live_streams,
    }


def write_TenantRegistered(e: TenantRegistered) -> dict[str, Any]:
    return {
        "name": e.name,
        "contact_email": e.contact_email,
    }


def write_TenantReinstated(_: TenantReinstated) -> dict[str, Any]:
    return {}


def write_TenantSuspended(e: TenantSuspended) -> dict[str, Any]:
    return {
        "reason": e.reason,
    }


def write_ViewerKicked(e: ViewerKicked) -> dict[str, Any]:
    return {
        "session_id": e.session_id,
        "until": e.until,
    }


def write_CommandHandled(e: CommandHandled) -> dict[str, Any]:
    return {
        "command_id": e.command_id,
        "command_type": e.command_type,
        "fingerprint": e.fingerprint,
        "status": e.status,
        "code": e.code,
        "field": e.field,
        "message": e.message,
        "events": e.events,
    }


def write_ChangeNode(e: ChangeNode) -> dict[str, Any]:
    return {
        "tenants": None if e.tenants is None else list(e.tenants),
        "region": e.region,
        "latitude": e.latitude,
        "longitude": e.longitude,
        "base_url": e.base_url,
        "tags": e.tags,
    }


def write_ConfirmErasure(e: ConfirmErasure) -> dict[str, Any]:
    return {
        "keys_destroyed": e.keys_destroyed,
    }


def write_CreatePushTarget(e: CreatePushTarget) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
        "name": e.name,
        "shown_url": e.shown_url,
        "url_digest": e.url_digest,
        "sealed_url": e.sealed_url,
        "enabled": e.enabled,
    }


def write_CreateSigningKey(e: CreateSigningKey) -> dict[str, Any]:
    return {
        "key_id": e.key_id,
        "name": e.name,
        "algorithm": e.algorithm,
        "public_key": e.public_key,
    }


def write_CreateStream(e: CreateStream) -> dict[str, Any]:
    return {
        "title": e.title,
        "slug": e.slug,
        "playback_id": e.playback_id,
        "internal_name": e.internal_name,
        "key_prefix": e.key_prefix,
        "key_hash": e.key_hash,
    }


def write_DeletePushTarget(e: DeletePushTarget) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
    }


def write_DeleteStream(_: DeleteStream) -> dict[str, Any]:
    return {}


def write_DisablePushTarget(e: DisablePushTarget) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
    }


def write_DisableStream(_: DisableStream) -> dict[str, Any]:
    return {}


def write_EnablePushTarget(e: EnablePushTarget) -> dict[str, Any]:
    return {
        "target_id": e.target_id,
    }


def write_EnableStream(_: EnableStream) -> dict[str, Any]:
    return {}


def write_EnrolNode(e: EnrolNode) -> dict[str, Any]:
    return {
        "token_prefix": e.token_prefix,
        "token_hash": e.token_hash,
        "enrolment_id": e.enrolment_id,
        "key_fingerprint": e.key_fingerprint,
        "certificate_serial": e.certificate_serial,
        "not_after": e.not_after,
        "issued_at": e.issued_at,
    }


def write_IssueApiToken(e: IssueApiToken) -> dict[str, Any]:
    return {
        "name": e.name,
        "token_prefix": e.token_prefix,
        "token_hash": e.token_hash,
    }


def write_IssueEnrolmentToken(e: IssueEnrolmentToken) -> dict[str, Any]:
    return {
        "token_prefix": e.token_prefix,
        "token_hash": e.token_hash,
        "valid_seconds": e.valid_seconds,
        "issued_at": e.issued_at,
    }


def write_KickViewer(e: KickViewer) -> dict[str, Any]:
    return {
        "session_id": e.session_id,
        "block_seconds": e.block_seconds,
        "issued_at": e.issued_at,
    }


def write_RegisterNode(e: RegisterNode) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "name": e.name,
        "tenants": None if e.tenants is None else list(e.tenants),
        "region": e.region,
        "latitude": e.latitude,
        "longitude": e.longitude,
        "base_url": e.base_url,
        "tags": e.tags,
    }


def write_RegisterTenant(e: RegisterTenant) -> dict[str, Any]:
    return {
        "name": e.name,
        "token_prefix": e.token_prefix,
        "token_hash": e.token_hash,
        "contact_email": e.contact_email,
    }


def write_ReinstateTenant(_: ReinstateTenant) -> dict[str, Any]:
    return {}


def write_RenameStream(e: RenameStream) -> dict[str, Any]:
    return {
        "title": e.title,
    }


def write_RenewNodeCertificate(e: RenewNodeCertificate) -> dict[str, Any]:
    return {
        "enrolment_id": e.enrolment_id,
        "key_fingerprint": e.key_fingerprint,
        "certificate_serial": e.certificate_serial,
        "not_after": e.not_after,
    }


def write_RequestErasure(e: RequestErasure) -> dict[str, Any]:
    return {
        "kind": e.kind,
        "subject_tag": e.subject_tag,
        "day": e.day,
        "reason": e.reason,
    }


def write_RevokeApiToken(e: RevokeApiToken) -> dict[str, Any]:
    return {
        "token_prefix": e.token_prefix,
    }


def write_RevokeNode(e: RevokeNode) -> dict[str, Any]:
    return {
        "reason": e.reason,
    }


def write_RevokeSigningKey(e: RevokeSigningKey) -> dict[str, Any]:
    return {
        "key_id": e.key_id,
    }


def write_RotateStreamKey(e: RotateStreamKey) -> dict[str, Any]:
    return {
        "key_prefix": e.key_prefix,
        "key_hash": e.key_hash,
        "grace_seconds": e.grace_seconds,
        "issued_at": e.issued_at,
    }


def write_SetBalancerWeights(e: SetBalancerWeights) -> dict[str, Any]:
    return {
        "cpu": e.cpu,
        "ram": e.ram,
        "bandwidth": e.bandwidth,
        "geo": e.geo,
        "bonus": e.bonus,
    }


def write_SetNodeMode(e: SetNodeMode) -> dict[str, Any]:
    return {
        "mode": e.mode,
    }


def write_SetPlaybackPolicy(e: SetPlaybackPolicy) -> dict[str, Any]:
    return {
        "playback": write_PlaybackPolicy(e.playback),
    }


def write_SetTenantLimits(e: SetTenantLimits) -> dict[str, Any]:
    return {
        "max_live_streams": e.max_live_streams,
    }


def write_StartRecording(e: StartRecording) -> dict[str, Any]:
    return {
        "recording_id": e.recording_id,
        "container": e.container,
    }


def write_StopRecording(e: StopRecording) -> dict[str, Any]:
    return {
        "recording_id": e.recording_id,
    }


def write_StopStream(e: StopStream) -> dict[str, Any]:
    return {
        "issued_at": e.issued_at,
    }


def write_SuspendTenant(e: SuspendTenant) -> dict[str, Any]:
    return {
        "reason": e.reason,
    }


def write_BandwidthMeasured(e: BandwidthMeasured) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "bytes_per_second": e.bytes_per_second,
    }


def write_BufferChanged(e: BufferChanged) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "state": e.state,
        "buffer_ms": e.buffer_ms,
        "jitter_ms": e.jitter_ms,
        "max_keepaway_ms": e.max_keepaway_ms,
        "bitrate_bps": e.bitrate_bps,
        "issues": e.issues,
    }


def write_ClientSamples(e: ClientSamples) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "window_started_at": e.window_started_at,
        "session_ids": e.session_ids,
        "sampled_at": e.sampled_at,
        "connectors": e.connectors,
        "connected_seconds": e.connected_seconds,
        "up_bytes": e.up_bytes,
        "down_bytes": e.down_bytes,
        "up_bytes_per_second": e.up_bytes_per_second,
        "down_bytes_per_second": e.down_bytes_per_second,
        "packets_sent": e.packets_sent,
        "packets_lost": e.packets_lost,
        "packets_retransmitted": e.packets_retransmitted,
    }


def write_ConnectionsCounted(e: ConnectionsCounted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "window_started_at": e.window_started_at,
        "window_seconds": e.window_seconds,
        "connectors": e.connectors,
        "opened": e.opened,
        "closed": e.closed,
        "played": e.played,
        "stopped": e.stopped,
    }


def write_EdgeActionReported(e: EdgeActionReported) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "action": e.action,
        "request_id": e.request_id,
        "status": e.status,
        "detail": e.detail,
        "policy_version": e.policy_version,
        "session_id": e.session_id,
    }


def write_EncoderWindowMeasured(e: EncoderWindowMeasured) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "kind": e.kind,
        "window_seconds": e.window_seconds,
        "input_frames": e.input_frames,
        "output_frames": e.output_frames,
        "input_bytes": e.input_bytes,
        "output_bytes": e.output_bytes,
        "input_codec": e.input_codec,
        "output_codec": e.output_codec,
        "width": e.width,
        "height": e.height,
        "source_advanced_ms": e.source_advanced_ms,
        "output_advanced_ms": e.output_advanced_ms,
        "is_final": e.is_final,
    }


def write_FactsDropped(e: FactsDropped) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "record_names": e.record_names,
        "counts": e.counts,
        "sizes_bytes": e.sizes_bytes,
        "from_at": e.from_at,
        "until_at": e.until_at,
    }


def write_IngestEnded(e: IngestEnded) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "ingest_id": e.ingest_id,
        "internal_name": e.internal_name,
        "protocol": e.protocol,
        "started_at": e.started_at,
        "seconds": e.seconds,
        "received_bytes": e.received_bytes,
        "end_reason": e.end_reason,
        "end_detail": e.end_detail,
        "synthesized": e.synthesized,
        "evidence": e.evidence,
    }


def write_IngestRejected(e: IngestRejected) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "protocol": e.protocol,
        "reason": e.reason,
        "key_redacted": e.key_redacted,
        "address": e.address,
        "policy_version": e.policy_version,
        "tenant_policy_version": e.tenant_policy_version,
        "held_by": e.held_by,
    }


def write_IngestStarted(e: IngestStarted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "ingest_id": e.ingest_id,
        "internal_name": e.internal_name,
        "protocol": e.protocol,
        "key_prefix": e.key_prefix,
        "address": e.address,
        "policy_version": e.policy_version,
        "tenant_policy_version": e.tenant_policy_version,
        "lease": e.lease,
        "synthesized": e.synthesized,
        "evidence": e.evidence,
    }


def write_InputAborted(e: InputAborted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "stream": e.stream,
        "source": e.source,
        "input": e.input,
        "pid": e.pid,
        "end_reason": e.end_reason,
        "end_detail": e.end_detail,
    }


def write_ListenerStarted(e: ListenerStarted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "connector": e.connector,
        "interface": e.interface,
        "port": e.port,
    }


def write_ListenerStopped(e: ListenerStopped) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "connector": e.connector,
        "interface": e.interface,
        "port": e.port,
    }


def write_LivepeerSegmentCompleted(e: LivepeerSegmentCompleted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "segment": e.segment,
        "first_media_ms": e.first_media_ms,
        "media_ms": e.media_ms,
        "width": e.width,
        "height": e.height,
        "input_bytes": e.input_bytes,
        "output_bytes": e.output_bytes,
        "renditions": e.renditions,
        "attempts": e.attempts,
        "turnaround_ms": e.turnaround_ms,
    }


def write_LivepeerSegmentRejected(e: LivepeerSegmentRejected) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "width": e.width,
        "height": e.height,
        "media_ms": e.media_ms,
        "transcoders": e.transcoders,
    }


def write_MediaProcessExited(e: MediaProcessExited) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "process": e.process,
        "pid": e.pid,
        "exit_code": e.exit_code,
        "boots": e.boots,
        "status": e.status,
        "end_reason": e.end_reason,
        "end_detail": e.end_detail,
    }


def write_NodeConfigured(e: NodeConfigured) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "step": e.step,
        "sentence": e.sentence,
        "applied": e.applied,
        "instance": e.instance,
    }


def write_NodeObserved(e: NodeObserved) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "software_version": e.software_version,
        "flavour": e.flavour,
        "instance": e.instance,
        "server_name": e.server_name,
        "connectors": e.connectors,
        "processors": e.processors,
        "drift": e.drift,
    }


def write_NodeSamples(e: NodeSamples) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "window_started_at": e.window_started_at,
        "sampled_at": e.sampled_at,
        "cpu_permille": e.cpu_permille,
        "memory_used_bytes": e.memory_used_bytes,
        "memory_total_bytes": e.memory_total_bytes,
        "shm_used_bytes": e.shm_used_bytes,
        "shm_total_bytes": e.shm_total_bytes,
        "up_bytes": e.up_bytes,
        "down_bytes": e.down_bytes,
        "viewers": e.viewers,
        "inputs": e.inputs,
        "outputs": e.outputs,
        "bandwidth_limit_bytes_per_second": e.bandwidth_limit_bytes_per_second,
    }


def write_NodeStarted(e: NodeStarted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "software_version": e.software_version,
    }


def write_NodeStopped(e: NodeStopped) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "reason": e.reason,
    }


def write_PushEnded(e: PushEnded) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "push_id": e.push_id,
        "target": e.target,
        "target_used": e.target_used,
        "started_at": e.started_at,
        "seconds": e.seconds,
        "sent_bytes": e.sent_bytes,
        "media_ms": e.media_ms,
        "end_reason": e.end_reason,
        "end_detail": e.end_detail,
        "synthesized": e.synthesized,
        "evidence": e.evidence,
    }


def write_PushStarted(e: PushStarted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "push_id": e.push_id,
        "target": e.target,
        "synthesized": e.synthesized,
        "evidence": e.evidence,
    }


def write_PushTargetStateChanged(e: PushTargetStateChanged) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "target_id": e.target_id,
        "kind": e.kind,
        "request_id": e.request_id,
        "state": e.state,
        "since": e.since,
        "reason": e.reason,
        "attempt": e.attempt,
        "retry_at": e.retry_at,
        "sent_bytes": e.sent_bytes,
        "policy_version": e.policy_version,
    }


def write_RecordingEnded(e: RecordingEnded) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "recording_id": e.recording_id,
        "push_id": e.push_id,
        "path": e.path,
        "connector": e.connector,
        "size_bytes": e.size_bytes,
        "seconds": e.seconds,
        "started_at": e.started_at,
        "ended_at": e.ended_at,
        "media_ms": e.media_ms,
        "first_media_ms": e.first_media_ms,
        "last_media_ms": e.last_media_ms,
        "end_reason": e.end_reason,
        "end_detail": e.end_detail,
    }


def write_RecordingSegmentWritten(e: RecordingSegmentWritten) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "path": e.path,
        "media_ms": e.media_ms,
        "first_media_ms": e.first_media_ms,
        "last_media_ms": e.last_media_ms,
    }


def write_StreamConfigured(e: StreamConfigured) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "stream": e.stream,
        "change": e.change,
        "source_kind": e.source_kind,
    }


def write_StreamNotFound(e: StreamNotFound) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "connector": e.connector,
        "internal_name": e.internal_name,
        "requests": e.requests,
    }


def write_StreamRelayEnded(e: StreamRelayEnded) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "internal_name": e.internal_name,
        "evidence": e.evidence,
    }


def write_StreamRelayStarted(e: StreamRelayStarted) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "internal_name": e.internal_name,
        "evidence": e.evidence,
    }


def write_StreamTotals(e: StreamTotals) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "internal_name": e.internal_name,
        "up_bytes": e.up_bytes,
        "down_bytes": e.down_bytes,
        "viewers": e.viewers,
        "inputs": e.inputs,
        "outputs": e.outputs,
        "viewer_seconds": e.viewer_seconds,
    }


def write_StreamWentLive(e: StreamWentLive) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "internal_name": e.internal_name,
        "evidence": e.evidence,
    }


def write_StreamWentOffline(e: StreamWentOffline) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "internal_name": e.internal_name,
        "last_media_ms": e.last_media_ms,
        "evidence": e.evidence,
        "live_since": e.live_since,
    }


def write_ThumbnailsUpdated(e: ThumbnailsUpdated) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "poster_path": e.poster_path,
        "sprite_path": e.sprite_path,
        "index_path": e.index_path,
    }


def write_Track(e: Track) -> dict[str, Any]:
    return {
        "name": e.name,
        "kind": e.kind,
        "codec": e.codec,
        "bitrate_bps": e.bitrate_bps,
        "width": e.width,
        "height": e.height,
        "frame_rate": e.frame_rate,
        "channels": e.channels,
        "sample_rate_hz": e.sample_rate_hz,
    }


def write_TracksChanged(e: TracksChanged) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "tracks": [write_Track(x) for x in e.tracks],
    }


def write_TriggerInvalid(e: TriggerInvalid) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "trigger": e.trigger,
        "reason": e.reason,
        "body": e.body,
        "sealed_body": e.sealed_body,
        "unkept": e.unkept,
    }


def write_ViewerJoined(e: ViewerJoined) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "session_id": e.session_id,
        "viewing_id": e.viewing_id,
        "connector": e.connector,
        "country": e.country,
        "address": e.address,
        "subject": e.subject,
        "viewer_day": e.viewer_day,
        "policy_version": e.policy_version,
        "tenant_policy_version": e.tenant_policy_version,
        "basis": e.basis,
        "synthesized": e.synthesized,
        "evidence": e.evidence,
    }


def write_ViewerLeft(e: ViewerLeft) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "session_id": e.session_id,
        "viewing_id": e.viewing_id,
        "connector": e.connector,
        "country": e.country,
        "joined_at": e.joined_at,
        "seconds": e.seconds,
        "up_bytes": e.up_bytes,
        "down_bytes": e.down_bytes,
        "end_reason": e.end_reason,
        "synthesized": e.synthesized,
        "evidence": e.evidence,
    }


def write_ViewerRejected(e: ViewerRejected) -> dict[str, Any]:
    return {
        "node_id": e.node_id,
        "session_id": e.session_id,
        "connector": e.connector,
        "reason": e.reason,
        "address": e.address,
        "subject": e.subject,
        "policy_version": e.policy_version,
        "tenant_policy_version": e.tenant_policy_version,
        "detail": e.detail,
        "viewing_id": e.viewing_id,
    }


def write_ViewerRouted(e: ViewerRouted) -> dict[str, Any]:
    return {
        "purpose": e.purpose,
        "protocol": e.protocol,
        "country": e.country,
        "h3_cell": e.h3_cell,
        "node_id": e.node_id,
        "weight_cpu": e.weight_cpu,
        "weight_ram": e.weight_ram,
        "weight_bandwidth": e.weight_bandwidth,
        "weight_geo": e.weight_geo,
        "weight_bonus": e.weight_bonus,
        "candidates_total": e.candidates_total,
        "node_ids": e.node_ids,
        "scores": e.scores,
        "cpu_used_ppm": e.cpu_used_ppm,
        "ram_used_ppm": e.ram_used_ppm,
        "bandwidth_used_ppm": e.bandwidth_used_ppm,
        "distance_ppm": e.distance_ppm,
        "has_stream": e.has_stream,
        "tag_adjustments": e.tag_adjustments,
        "is_own": e.is_own,
        "excluded_node_ids": e.excluded_node_ids,
        "exclusion_reasons": e.exclusion_reasons,
    }


def write_NodePolicy(e: NodePolicy) -> dict[str, Any]:
    return {
        "tenant_id": e.tenant_id,
        "node_id": e.node_id,
        "version": e.version,
        "mode": e.mode,
        "mode_request_id": e.mode_request_id,
        "revoked": e.revoked,
        "tags": e.tags,
    }


def write_PolicyConfirmed(e: PolicyConfirmed) -> dict[str, Any]:
    return {
        "tenant_id": e.tenant_id,
        "version": e.version,
        "confirmed_at": e.confirmed_at,
    }


def write_StreamKey(e: StreamKey) -> dict[str, Any]:
    return {
        "prefix": e.prefix,
        "hash": e.hash,
        "valid_until": e.valid_until,
    }


def write_KickedSession(e: KickedSession) -> dict[str, Any]:
    return {
        "session_id": e.session_id,
        "until": e.until,
        "kick_id": e.kick_id,
    }


def write_StreamPolicy(e: StreamPolicy) -> dict[str, Any]:
    return {
        "tenant_id": e.tenant_id,
        "stream_id": e.stream_id,
        "internal_name": e.internal_name,
        "playback_id": e.playback_id,
        "keys": [write_StreamKey(x) for x in e.keys],
        "deleted": e.deleted,
        "version": e.version,
        "disabled": e.disabled,
        "playback": None if e.playback is None else write_PlaybackPolicy(e.playback),
        "kicked": [write_KickedSession(x) for x in e.kicked],
    }


def write_WantedPush(e: WantedPush) -> dict[str, Any]:
    return {
        "request_id": e.request_id,
        "target_id": e.target_id,
        "sealed_url": e.sealed_url,
        "expires_at": e.expires_at,
    }


def write_WantedRecording(e: WantedRecording) -> dict[str, Any]:
    return {
        "request_id": e.request_id,
        "recording_id": e.recording_id,
        "container": e.container,
        "expires_at": e.expires_at,
    }


def write_WantedStop(e: WantedStop) -> dict[str, Any]:
    return {
        "request_id": e.request_id,
        "expires_at": e.expires_at,
    }


def write_StreamTasks(e: StreamTasks) -> dict[str, Any]:
    return {
        "tenant_id": e.tenant_id,
        "stream_id": e.stream_id,
        "internal_name": e.internal_name,
        "version": e.version,
        "pushes": [write_WantedPush(x) for x in e.pushes],
        "recordings": [write_WantedRecording(x) for x in e.recordings],
        "stops": [write_WantedStop(x) for x in e.stops],
    }


def write_SigningKey(e: SigningKey) -> dict[str, Any]:
    return {
        "key_id": e.key_id,
        "algorithm": e.algorithm,
        "public_key": e.public_key,
    }


def write_TenantPolicy(e: TenantPolicy) -> dict[str, Any]:
    return {
        "tenant_id": e.tenant_id,
        "version": e.version,
        "standing": e.standing,
        "max_live_streams": e.max_live_streams,
        "signing_keys": [write_SigningKey(x) for x in e.signing_keys],
    }


READERS: Final[Mapping[str, Callable[[Any], Record]]] = {
    "ApiTokenIssued": read_ApiTokenIssued,
    "ApiTokenRevoked": read_ApiTokenRevoked,
    "BalancerWeightsSet": read_BalancerWeightsSet,
    "EnrolmentTokenIssued": read_EnrolmentTokenIssued,
    "ErasureRequested": read_ErasureRequested,
    "NodeCertificateIssued": read_NodeCertificateIssued,
    "NodeChanged": read_NodeChanged,
    "NodeEnrolled": read_NodeEnrolled,
    "NodeModeSet": read_NodeModeSet,
    "NodeRegistered": read_NodeRegistered,
    "NodeRevoked": read_NodeRevoked,
    "PlaybackPolicySet": read_PlaybackPolicySet,
    "PushTargetCreated": read_PushTargetCreated,
    "PushTargetDeleted": read_PushTargetDeleted,
    "PushTargetDisabled": read_PushTargetDisabled,
    "PushTargetEnabled": read_PushTargetEnabled,
    "RecordingCalledOff": read_RecordingCalledOff,
    "RecordingRequested": read_RecordingRequested,
    "SigningKeyCreated": read_SigningKeyCreated,
    "SigningKeyRevoked": read_SigningKeyRevoked,
    "StreamCreated": read_StreamCreated,
    "StreamDeleted": read_StreamDeleted,
    "StreamDisabled": read_StreamDisabled,
    "StreamEnabled": read_StreamEnabled,
    "StreamKeyRotated": read_StreamKeyRotated,
    "StreamRenamed": read_StreamRenamed,
    "StreamStopRequested": read_StreamStopRequested,
    "SubjectErased": read_SubjectErased,
    "TenantLimitsSet": read_TenantLimitsSet,
    "TenantRegistered": read_TenantRegistered,
    "TenantReinstated": read_TenantReinstated,
    "TenantSuspended": read_TenantSuspended,
    "ViewerKicked": read_ViewerKicked,
    "CommandHandled": read_CommandHandled,
    "ChangeNode": read_ChangeNode,
    "ConfirmErasure": read_ConfirmErasure,
    "CreatePushTarget": read_CreatePushTarget,
    "CreateSigningKey": read_CreateSigningKey,
    "CreateStream": read_CreateStream,
    "DeletePushTarget": read_DeletePushTarget,
    "DeleteStream": read_DeleteStream,
    "DisablePushTarget": read_DisablePushTarget,
    "DisableStream": read_DisableStream,
    "EnablePushTarget": read_EnablePushTarget,
    "EnableStream": read_EnableStream,
    "EnrolNode": read_EnrolNode,
    "IssueApiToken": read_IssueApiToken,
    "IssueEnrolmentToken": read_IssueEnrolmentToken,
    "KickViewer": read_KickViewer,
    "RegisterNode": read_RegisterNode,
    "RegisterTenant": read_RegisterTenant,
    "ReinstateTenant": read_ReinstateTenant,
    "RenameStream": read_RenameStream,
    "RenewNodeCertificate": read_RenewNodeCertificate,
    "RequestErasure": read_RequestErasure,
    "RevokeApiToken": read_RevokeApiToken,
    "RevokeNode": read_RevokeNode,
    "RevokeSigningKey": read_RevokeSigningKey,
    "RotateStreamKey": read_RotateStreamKey,
    "SetBalancerWeights": read_SetBalancerWeights,
    "SetNodeMode": read_SetNodeMode,
    "SetPlaybackPolicy": read_SetPlaybackPolicy,
    "SetTenantLimits": read_SetTenantLimits,
    "StartRecording": read_StartRecording,
    "StopRecording": read_StopRecording,
    "StopStream": read_StopStream,
    "SuspendTenant": read_SuspendTenant,
    "BandwidthMeasured": read_BandwidthMeasured,
    "BufferChanged": read_BufferChanged,
    "ClientSamples": read_ClientSamples,
    "ConnectionsCounted": read_ConnectionsCounted,
    "EdgeActionReported": read_EdgeActionReported,
    "EncoderWindowMeasured": read_EncoderWindowMeasured,
    "FactsDropped": read_FactsDropped,
    "IngestEnded": read_IngestEnded,
    "IngestRejected": read_IngestRejected,
    "IngestStarted": read_IngestStarted,
    "InputAborted": read_InputAborted,
    "ListenerStarted": read_ListenerStarted,
    "ListenerStopped": read_ListenerStopped,
    "LivepeerSegmentCompleted": read_LivepeerSegmentCompleted,
    "LivepeerSegmentRejected": read_LivepeerSegmentRejected,
    "MediaProcessExited": read_MediaProcessExited,
    "NodeConfigured": read_NodeConfigured,
    "NodeObserved": read_NodeObserved,
    "NodeSamples": read_NodeSamples,
    "NodeStarted": read_NodeStarted,
    "NodeStopped": read_NodeStopped,
    "PushEnded": read_PushEnded,
    "PushStarted": read_PushStarted,
    "PushTargetStateChanged": read_PushTargetStateChanged,
    "RecordingEnded": read_RecordingEnded,
    "RecordingSegmentWritten": read_RecordingSegmentWritten,
    "StreamConfigured": read_StreamConfigured,
    "StreamNotFound": read_StreamNotFound,
    "StreamRelayEnded": read_StreamRelayEnded,
    "StreamRelayStarted": read_StreamRelayStarted,
    "StreamTotals": read_StreamTotals,
    "StreamWentLive": read_StreamWentLive,
    "StreamWentOffline": read_StreamWentOffline,
    "ThumbnailsUpdated": read_ThumbnailsUpdated,
    "TracksChanged": read_TracksChanged,
    "TriggerInvalid": read_TriggerInvalid,
    "ViewerJoined": read_ViewerJoined,
    "ViewerLeft": read_ViewerLeft,
    "ViewerRejected": read_ViewerRejected,
    "ViewerRouted": read_ViewerRouted,
    "NodePolicy": read_NodePolicy,
    "PolicyConfirmed": read_PolicyConfirmed,
    "StreamPolicy": read_StreamPolicy,
    "StreamTasks": read_StreamTasks,
    "TenantPolicy": read_TenantPolicy,
}
WRITERS: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {
    ApiTokenIssued: write_ApiTokenIssued,
    ApiTokenRevoked: write_ApiTokenRevoked,
    BalancerWeightsSet: write_BalancerWeightsSet,
    EnrolmentTokenIssued: write_EnrolmentTokenIssued,
    ErasureRequested: write_ErasureRequested,
    NodeCertificateIssued: write_NodeCertificateIssued,
    NodeChanged: write_NodeChanged,
    NodeEnrolled: write_NodeEnrolled,
    NodeModeSet: write_NodeModeSet,
    NodeRegistered: write_NodeRegistered,
    NodeRevoked: write_NodeRevoked,
    PlaybackPolicySet: write_PlaybackPolicySet,
    PushTargetCreated: write_PushTargetCreated,
    PushTargetDeleted: write_PushTargetDeleted,
    PushTargetDisabled: write_PushTargetDisabled,
    PushTargetEnabled: write_PushTargetEnabled,
    RecordingCalledOff: write_RecordingCalledOff,
    RecordingRequested: write_RecordingRequested,
    SigningKeyCreated: write_SigningKeyCreated,
    SigningKeyRevoked: write_SigningKeyRevoked,
    StreamCreated: write_StreamCreated,
    StreamDeleted: write_StreamDeleted,
    StreamDisabled: write_StreamDisabled,
    StreamEnabled: write_StreamEnabled,
    StreamKeyRotated: write_StreamKeyRotated,
    StreamRenamed: write_StreamRenamed,
    StreamStopRequested: write_StreamStopRequested,
    SubjectErased: write_SubjectErased,
    TenantLimitsSet: write_TenantLimitsSet,
    TenantRegistered: write_TenantRegistered,
    TenantReinstated: write_TenantReinstated,
    TenantSuspended: write_TenantSuspended,
    ViewerKicked: write_ViewerKicked,
    CommandHandled: write_CommandHandled,
    ChangeNode: write_ChangeNode,
    ConfirmErasure: write_ConfirmErasure,
    CreatePushTarget: write_CreatePushTarget,
    CreateSigningKey: write_CreateSigningKey,
    CreateStream: write_CreateStream,
    DeletePushTarget: write_DeletePushTarget,
    DeleteStream: write_DeleteStream,
    DisablePushTarget: write_DisablePushTarget,
    DisableStream: write_DisableStream,
    EnablePushTarget: write_EnablePushTarget,
    EnableStream: write_EnableStream,
    EnrolNode: write_EnrolNode,
    IssueApiToken: write_IssueApiToken,
    IssueEnrolmentToken: write_IssueEnrolmentToken,
    KickViewer: write_KickViewer,
    RegisterNode: write_RegisterNode,
    RegisterTenant: write_RegisterTenant,
    ReinstateTenant: write_ReinstateTenant,
    RenameStream: write_RenameStream,
    RenewNodeCertificate: write_RenewNodeCertificate,
    RequestErasure: write_RequestErasure,
    RevokeApiToken: write_RevokeApiToken,
    RevokeNode: write_RevokeNode,
    RevokeSigningKey: write_RevokeSigningKey,
    RotateStreamKey: write_RotateStreamKey,
    SetBalancerWeights: write_SetBalancerWeights,
    SetNodeMode: write_SetNodeMode,
    SetPlaybackPolicy: write_SetPlaybackPolicy,
    SetTenantLimits: write_SetTenantLimits,
    StartRecording: write_StartRecording,
    StopRecording: write_StopRecording,
    StopStream: write_StopStream,
    SuspendTenant: write_SuspendTenant,
    BandwidthMeasured: write_BandwidthMeasured,
    BufferChanged: write_BufferChanged,
    ClientSamples: write_ClientSamples,
    ConnectionsCounted: write_ConnectionsCounted,
    EdgeActionReported: write_EdgeActionReported,
    EncoderWindowMeasured: write_EncoderWindowMeasured,
    FactsDropped: write_FactsDropped,
    IngestEnded: write_IngestEnded,
    IngestRejected: write_IngestRejected,
    IngestStarted: write_IngestStarted,
    InputAborted: write_InputAborted,
    ListenerStarted: write_ListenerStarted,
    ListenerStopped: write_ListenerStopped,
    LivepeerSegmentCompleted: write_LivepeerSegmentCompleted,
    LivepeerSegmentRejected: write_LivepeerSegmentRejected,
    MediaProcessExited: write_MediaProcessExited,
    NodeConfigured: write_NodeConfigured,
    NodeObserved: write_NodeObserved,
    NodeSamples: write_NodeSamples,
    NodeStarted: write_NodeStarted,
    NodeStopped: write_NodeStopped,
    PushEnded: write_PushEnded,
    PushStarted: write_PushStarted,
    PushTargetStateChanged: write_PushTargetStateChanged,
    RecordingEnded: write_RecordingEnded,
    RecordingSegmentWritten: write_RecordingSegmentWritten,
    StreamConfigured: write_StreamConfigured,
    StreamNotFound: write_StreamNotFound,
    StreamRelayEnded: write_StreamRelayEnded,
    StreamRelayStarted: write_StreamRelayStarted,
    StreamTotals: write_StreamTotals,
    StreamWentLive: write_StreamWentLive,
    StreamWentOffline: write_StreamWentOffline,
    ThumbnailsUpdated: write_ThumbnailsUpdated,
    TracksChanged: write_TracksChanged,
    TriggerInvalid: write_TriggerInvalid,
    ViewerJoined: write_ViewerJoined,
    ViewerLeft: write_ViewerLeft,
    ViewerRejected: write_ViewerRejected,
    ViewerRouted: write_ViewerRouted,
    NodePolicy: write_NodePolicy,
    PolicyConfirmed: write_PolicyConfirmed,
    StreamPolicy: write_StreamPolicy,
    StreamTasks: write_StreamTasks,
    TenantPolicy: write_TenantPolicy,
}
