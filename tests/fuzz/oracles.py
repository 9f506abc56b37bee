"""What must be true of a connection, whatever a client sends."""

import asyncio
import contextlib
import gc
import itertools
import logging
import weakref
from collections.abc import Iterator, Sequence
from logging.handlers import BufferingHandler

import hypothesis
from hypothesis.strategies import none

from tests.fuzz import client, reference
from tests.fuzz.application import LAST, UNMEASURED, Request
from tests.fuzz.client import End, Manner, Outcome
from tests.fuzz.messages import inputs
from tests.fuzz.reference import Answer

#: Connections after which what they left behind is looked for.
ROUND = 500


class Tried:
    """Sends inputs, and says what is wrong by an AssertionError.

    :ivar inputs: how many there were.
    :ivar last: the last of them.
    :ivar connections: how many they were sent on.
    """

    def __init__(self) -> None:
        self.inputs = self.connections = 0
        self.last = b""
        self.log = BufferingHandler(1000)
        self.log.setLevel(logging.ERROR)
        self._alive: weakref.WeakKeyDictionary[object, object] = weakref.WeakKeyDictionary()

    def check(
        self, data: bytes, manners: Sequence[tuple[list[int], Manner]], is_valid: bool = False
    ) -> None:
        """Send an input whole, and in pieces: it must come to the same.

        :arg manners: where to cut, and how to go about it.
        :arg is_valid: whether every request has to be taken.
        """
        self.inputs += 1
        self.last = data
        self.log.buffer.clear()
        with contextlib.closing(client.Loop()) as self._loop:
            theirs = reference.requests_in(data)
            whole = self._drive([data], Manner())
            answers = _check(whole, theirs, Manner())
            if is_valid and len(whole.requests) < len(theirs):
                assert whole.requests, "a valid request is refused"
                assert _ends(whole.requests[-1], answers[-1]), "a valid request is refused"
            for cuts, manner in manners:
                outcome = self._drive(_pieces(data, cuts), manner)
                if outcome == whole and manner.end is not End.RESET:
                    continue  # as mostly; h11 takes longer to read it again than all the rest
                in_pieces = _check(outcome, theirs, manner)
                if manner.end is not End.RESET:
                    assert outcome.requests == whole.requests, (manner, cuts)
                    assert _comparable(in_pieces) == _comparable(answers), (manner, cuts)

    def _drive(self, pieces: list[bytes], manner: Manner) -> Outcome:
        outcome = self._loop.run_until_complete(client.drive(pieces, manner, self._alive))
        self.connections += 1
        assert not (errors := self.log.buffer), [self.log.format(one) for one in errors]
        assert not self._loop.failures, self._loop.failures
        assert not (tasks := asyncio.all_tasks(self._loop)), f"tasks are left: {tasks}"
        assert not (timers := self._loop.timers_left()), f"timers are left: {timers}"
        if self.connections % ROUND == 0:
            self.check_nothing_is_left()
        return outcome

    def check_new(self, examples: int, seed: int) -> None:
        """Check so many inputs that nobody has thought of; the last is the shortest that fails."""
        settings = hypothesis.settings(
            max_examples=examples,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        check = hypothesis.given(inputs())(lambda it: self.check(*it))
        hypothesis.seed(seed)(settings(check))()

    def check_nothing_is_left(self) -> None:
        """Assert that no connection outlives its client, and say how that one was used."""
        gc.collect()
        assert not (alive := list(self._alive.values())), f"not freed: {alive}"


@contextlib.contextmanager
def trying() -> Iterator[Tried]:
    """Try inputs, with an eye on the log."""
    # Hypothesis looks once for what keeps its random numbers.
    hypothesis.given(none())(lambda _: None)()
    gc.freeze()  # what was there before cannot be left behind, and takes long to look through
    tried = Tried()
    logging.getLogger().addHandler(tried.log)
    try:
        yield tried
        tried.check_nothing_is_left()
    finally:
        logging.getLogger().removeHandler(tried.log)
        gc.unfreeze()


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(set(cuts)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    return [piece for piece in pieces if piece]


def _check(outcome: Outcome, theirs: list[Request], manner: Manner) -> list[Answer]:
    """Compare with what h11 reads, and let it read the answers."""
    requests = outcome.requests
    assert len(requests) <= len(theirs), f"h11 reads no request in {requests[len(theirs) :]}"
    for ours, other in zip(requests, theirs, strict=False):
        assert reference.same(ours, other), f"h11 reads {other}, not {ours}"
    if manner.end is End.RESET:  # which may cut an answer anywhere
        return []
    answers = reference.answers_in(outcome.received, [one.method for one in requests])
    assert len(requests) <= len(answers) <= len(requests) + 1, f"{requests} {answers}"
    for number, (request, answer) in enumerate(zip(requests, answers, strict=False), 1):
        assert answer.is_whole
        assert answer.headers.get("number") == str(number) or _way(request) == "/begun"
        assert "expect" in request.headers or not answer.is_continued
    for answer in answers[len(requests) :]:
        assert _is_refusal(answer) or "number" not in answer.headers
    return answers


def _ends(request: Request, answer: Answer) -> bool:
    """Whether no other request is read: the answer may end where the connection does."""
    has_length = {"content-length", "transfer-encoding"} & set(answer.headers)
    return _way(request) in LAST or (_way(request) in UNMEASURED and not has_length)


def _way(request: Request) -> str:
    return request.target.partition("?")[0]


def _is_refusal(answer: Answer) -> bool:
    return answer.status in (400, 408, 431) and "number" not in answer.headers


def _comparable(answers: list[Answer]) -> list[object]:
    """Leave out what may depend on when something arrives: 100, and the status of a refusal.

    And 408, which only a client gets that has not closed its side.
    """
    some = [one for one in answers if one.status != 408]
    return ["refused" if _is_refusal(one) else one._replace(is_continued=False) for one in some]
