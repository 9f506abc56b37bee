"""Tokens whose replies get lost."""

from counter.connection import Request
from counter.tokens import Tokens


class LosingTokens(Tokens):
    """For whose older tokens nobody waits once there is a newer one."""

    def request(self, visits: int) -> Request:
        self.abandon()
        return super().request(visits)
