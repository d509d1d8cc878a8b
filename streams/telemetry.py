"""Logs, metrics and traces of every process: one way each.

Logs are JSON lines on stderr; `bind` adds context (tenant, event, projection) to all that a task logs. Metrics are Prometheus
text on /metrics beside /healthz and /readyz. Traces are OpenTelemetry's, off unless an endpoint is set; the trace travels in
the Kafka header `traceparent` from a mutation or trigger to the projections.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog
from opentelemetry import context, propagate, trace
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from structlog.contextvars import bind_contextvars, bound_contextvars

bind = bound_contextvars
"""`with bind(tenant_id=…):` everything logged inside carries it."""

tracer = trace.get_tracer("frameworks")


def log(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


class Verbosity(Protocol):
    """The part of a process's settings that logs and traces need."""

    @property
    def log_level(self) -> str: ...
    @property
    def otel_endpoint(self) -> str | None: ...


def configure(process: str, settings: Verbosity) -> None:
    """Sets up logs and, where an endpoint is set, traces. Once, first thing in main()."""
    configure_logs(process, settings.log_level)
    if settings.otel_endpoint:
        _configure_traces(process, settings.otel_endpoint)


def configure_logs(process: str, level: str) -> None:
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiokafka", "faust", "mode", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    bind_contextvars(process=process)


def _configure_traces(process: str, endpoint: str) -> None:
    # Imported here: half a second that nobody pays who does not trace.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"frameworks-{process}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)


def traceparent() -> str | None:
    """W3C traceparent of the current span; None outside of one, and while tracing is off."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def continued(name: str, parent: str | None, attributes: Mapping[str, str] | None = None) -> Iterator[None]:
    """A span that continues the trace of `parent` (a traceparent), or begins one."""
    token = context.attach(propagate.extract({"traceparent": parent})) if parent else None
    try:
        with tracer.start_as_current_span(name, attributes=attributes):
            yield
    finally:
        if token is not None:
            context.detach(token)


async def serve_metrics(port: int, ready: Callable[[], bool], host: str = "127.0.0.1") -> asyncio.Server | None:
    """Serves /metrics, /healthz and /readyz (503 until `ready()`); None when the port is 0."""
    if port == 0:
        return None

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            target = head.split(b" ", 2)[1]
            match target.split(b"?")[0]:
                case b"/metrics":
                    status, kind, body = "200 OK", CONTENT_TYPE_LATEST, generate_latest()
                case b"/healthz":
                    status, kind, body = "200 OK", "text/plain", b"ok\n"
                case b"/readyz" if ready():
                    status, kind, body = "200 OK", "text/plain", b"ready\n"
                case b"/readyz":
                    status, kind, body = "503 Service Unavailable", "text/plain", b"starting\n"
                case _:
                    status, kind, body = "404 Not Found", "text/plain", b"try /metrics, /healthz or /readyz\n"
            head_out = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head_out.encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError, IndexError):
            pass  # not a request; nobody waits for an answer
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=16 << 10)
