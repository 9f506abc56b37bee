"""A visit's span, for OpenTelemetry; imported where its packages are installed.

Their instrumentation makes the request's span, and those of the commands that open a connection.
What counts is sent by `counter.connection`, past redis-py, often for many visits at once. Each
visit has a span of its own here, from its arrival to its number.
"""

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
