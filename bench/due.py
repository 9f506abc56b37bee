"""When the requests of an open loop were due."""


def waits(requests: list[tuple[int, int]], clients: int, period: float) -> list[float]:
    """Return how long each request took from the time when it was due, in that order.

    A client's requests are due a period apart, whatever became of the last one. So in each period
    the first request is due at the same moment, the second one too, and so on. The moments are
    those by which a tenth of each were sent: later ones may have waited for an answer, and a load
    that was held up may send a few early.

    :arg requests: when each was sent, and how long its answer took from then, in microseconds.
    :arg period: in microseconds.
    """
    requests = sorted(requests)
    since = [sent - i // clients * period for i, (sent, _) in enumerate(requests)]
    turns = [sorted(since[turn::clients]) for turn in range(min(clients, len(since)))]
    due = [turn[len(turn) // 10] for turn in turns]
    return [max(0, since[i] - due[i % clients]) + took for i, (_, took) in enumerate(requests)]
