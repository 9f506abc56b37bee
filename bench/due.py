"""When the requests of an open loop were due."""


def waits(requests: list[tuple[int, int]], clients: int, period: float) -> list[float]:
    """Return how long each request took from when it was due, in microseconds, in that order.

    Each client has a request due every ``period``, even if the last one has no answer. So every
    period is alike: its first request is due at the same offset, its second one too, and so on.
    The function estimates each offset as the one at which a tenth of these requests were sent.
    Later ones may have waited for an answer, and a delayed load may send a few early.

    :arg requests: when each was sent, and how long its answer took from then, in microseconds.
    :arg clients: how many clients sent them.
    :arg period: in microseconds.
    """
    requests = sorted(requests)
    since = [sent - i // clients * period for i, (sent, _) in enumerate(requests)]
    turns = [sorted(since[turn::clients]) for turn in range(min(clients, len(since)))]
    due = [turn[len(turn) // 10] for turn in turns]
    return [max(0, since[i] - due[i % clients]) + took for i, (_, took) in enumerate(requests)]
