"""Visits' spans, and span ids in the log. The program imports it if OpenTelemetry is installed.

OpenTelemetry's own instrumentation makes the span of the request, and the spans of the commands
that open a connection to Redis. It does not see the command that counts: `counter.connection`
sends this command without redis-py, often for many visits together. So this module gives each visit
a span, from its arrival to its number.
"""

import logging

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from counter import KEY, Visits

_tracer = trace.get_tracer("friendlyhello")

#: https://opentelemetry.io/docs/specs/semconv/database/redis/
_ATTRIBUTES = {
    "db.system": "redis",
    "db.system.name": "redis",
    "db.operation.name": "EVALSHA",
    "db.query.text": f"EVALSHA token.lua {KEY}",
}


def name_span(record: logging.LogRecord) -> bool:
    """Add the present span's ids to a log record; it is a filter of a log handler.

    The fields have the names that OpenTelemetry defines for logs outside of its own protocol
    (https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/).

    :return: always true, so the line is logged.
    """
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        vars(record).update(
            trace_id=trace.format_trace_id(context.trace_id),
            span_id=trace.format_span_id(context.span_id),
        )
    return True


class TracedVisits(Visits):
    """Gives each visit its number, and a span."""

    async def count(self) -> int | None:
        """Count one visit, as `Visits.count` does."""
        with _tracer.start_as_current_span("EVALSHA", kind=SpanKind.CLIENT) as span:
            span.set_attributes(_ATTRIBUTES)
            number = await super().count()
            if number is None:
                span.set_status(Status(StatusCode.ERROR, "no number"))
            return number
