"""OpenTelemetry spans of model calls, by the GenAI semantic conventions, where `culturepark[otel]`
is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from culturepark.errors import InputError
from culturepark.records import Reply, Request

FINISHED = {
    "ok": "stop",
    "truncated": "length",
    "filtered": "content_filter",
    "refused": "stop",
    "empty": "stop",
}


@lru_cache(maxsize=1)
def find_tracer() -> Any:
    """Return the tracer of the process; None where OpenTelemetry is not installed or nobody
    listens.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    tracer = trace.get_tracer("culturepark")
    return tracer if tracer.start_span("probe").is_recording() else None


def export_spans() -> None:
    """Send spans where the environment says (OTEL_EXPORTER_OTLP_ENDPOINT), unless somebody has set
    a provider up already.
    """
    if not any(
        os.environ.get(n)
        for n in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InputError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install"
            " 'culturepark[otel]'"
        ) from None
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": os.environ.get("OTEL_SERVICE_NAME", "culturepark")}
        )
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # it sends what is left when the process ends


@contextmanager
def trace_call(identity: str, model: str, request: Request) -> Iterator[Callable[[Reply], None]]:
    """Trace one call, retries and all; yield a function to tell the reply to.

    `identity` is `provider/model@address`, `model` the name that the endpoint knows it by.
    """
    tracer = find_tracer()
    if tracer is None:
        yield lambda reply: None
        return
    provider, _, rest = identity.partition("/")
    address = urlsplit(rest.rpartition("@")[2])
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.seed": (request.seed + request.index) % 2**31,
        "gen_ai.output.type": "json" if request.reply_schema else "text",
        "culturepark.role": request.role,
        "culturepark.speaker": request.speaker,
    }
    if address.hostname:
        attributes["server.address"] = address.hostname
        attributes["server.port"] = address.port or (443 if address.scheme == "https" else 80)
    with tracer.start_as_current_span(f"chat {model}", attributes=attributes) as current:

        def record_reply(reply: Reply) -> None:
            current.set_attributes(
                {k: v for k, v in _list_attributes(reply).items() if v is not None}
            )
            if reply.status == "failed":
                from opentelemetry.trace import Status, StatusCode

                current.set_status(Status(StatusCode.ERROR, reply.reason))

        yield record_reply


def _list_attributes(reply: Reply) -> dict[str, Any]:
    return {
        "gen_ai.response.finish_reasons": (
            [FINISHED[reply.status]] if reply.status in FINISHED else None
        ),
        "gen_ai.usage.input_tokens": reply.prompt_tokens,
        "gen_ai.usage.output_tokens": reply.completion_tokens,
        "error.type": reply.status if reply.status not in ("ok", "truncated") else None,
        "culturepark.attempts": reply.attempts,
        "culturepark.usd": reply.usd,
    }
