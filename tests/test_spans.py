"""What can be seen from outside: OpenTelemetry spans by the GenAI conventions, and a structured
log.
"""

import asyncio
import json
import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from test_hosted import ASK, KEY, ask

import culturepark as cp
from culturepark import logs
from culturepark.llm import tracing


@pytest.fixture
def exporter():
    """A tracer provider that keeps what it is told; the process has one for good."""
    kept = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    processor = SimpleSpanProcessor(kept)
    provider.add_span_processor(processor)
    tracing.find_tracer.cache_clear()
    yield kept
    processor.shutdown()
    tracing.find_tracer.cache_clear()


def test_a_call_is_a_span_with_the_genai_attributes_and_no_content(exporter, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with cp.Server(lambda n, _: "Well met.") as server:
        ask(server.url, name="openai/embedded", prompt_price=1.0, completion_price=1.0)
    (span,) = exporter.get_finished_spans()
    told = dict(span.attributes)
    assert (
        span.name == "chat embedded"
        and told["gen_ai.operation.name"] == "chat"
        and told["gen_ai.provider.name"] == "openai"
    )
    assert (told["gen_ai.request.model"], told["gen_ai.request.max_tokens"]) == ("embedded", 9)
    assert told["gen_ai.usage.input_tokens"] == 5 and told["gen_ai.response.finish_reasons"] == (
        "stop",
    )
    assert (
        told["server.address"] == "127.0.0.1"
        and told["server.port"] > 0
        and told["culturepark.usd"] > 0
    )
    assert "Well met" not in str(told) and KEY not in str(told)


def test_a_failed_call_says_so_in_its_span(exporter, serve):
    ask(
        serve(
            lambda n, _: (
                400,
                {},
                {"error": {"message": "too long", "code": "context_length_exceeded"}},
            )
        ).url
    )
    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "failed" and span.status.status_code.name == "ERROR"


def test_without_a_listener_nothing_is_traced(monkeypatch):
    tracing.find_tracer.cache_clear()
    monkeypatch.setattr(trace, "get_tracer", lambda name: trace.NoOpTracer())
    assert tracing.find_tracer() is None
    tracing.find_tracer.cache_clear()


def test_the_log_is_one_json_object_a_line_without_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    cp.model("openai/x")
    with logs.keep_log(tmp_path):
        logging.getLogger("culturepark").warning(
            "%s said Authorization: Bearer abcdefghijk, %s",
            "x",
            KEY,
            extra={"event": "told", "n": 3},
        )
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (line["event"], line["n"], line["level"]) == ("told", 3, "warning") and line[
        "time"
    ].endswith("+00:00")
    assert KEY not in str(line) and "abcdefghijk" not in str(line)


def test_asyncio_is_not_kept_by_a_span(exporter):
    async def play():
        line = cp.model("openai/x", base_url="http://127.0.0.1:9/v1")
        task = asyncio.create_task(line.complete(ASK))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(play())
    assert [s.name for s in exporter.get_finished_spans()] == ["chat x"]
