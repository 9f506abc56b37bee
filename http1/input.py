"""The bytes that a client has sent and that nobody has read yet."""

from tornado.httputil import HTTPInputError

from http1.beginning import Beginning


class TooLarge(HTTPInputError):
    """A head is larger than allowed."""


class Input:
    """Keeps the bytes that have arrived until somebody reads them.

    :arg max_head_size: bytes of a request's head, with the empty lines before it.
    """

    def __init__(self, max_head_size: int) -> None:
        self.data = b""
        self.at = 0
        """Where the unread bytes begin in the data."""
        self._max_head_size = max_head_size
        self._blank = 0  # bytes of empty lines before the head
        self._searched = 0  # bytes of the head that were searched for its end
        self._beginning: Beginning | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all bytes have been read."""
        return self.at == len(self.data)

    @property
    def unread(self) -> bytes:
        """The unread bytes."""
        return self.data[self.at :]

    def add(self, data: bytes) -> None:
        """Keep bytes that have arrived, after the unread ones."""
        if self.at < len(self.data):
            data = self.data[self.at :] + data
        self.data, self.at = data, 0

    def clear(self) -> None:
        """Forget all bytes."""
        self.data, self.at = b"", 0

    def read_head(self) -> bytes | None:
        """Return the head of the next request; None when it is not complete.

        :raises TooLarge: when the head is too large.
        :raises HTTPInputError: when the bytes cannot become a head any more.
        """
        data = self.data
        while data.startswith(b"\r\n", self.at):  # ignore empty lines (RFC 9112, 2.2)
            self.at += 2
            self._blank += 2
        begin = self.at
        end = data.find(b"\r\n\r\n", begin + self._searched) + 4
        size = (end if end > 3 else len(data)) - begin
        if self._blank + size > self._max_head_size:
            raise TooLarge(f"a head of more than {self._max_head_size} bytes")
        if end > 3:
            self.at = end
            self._blank = self._searched = 0
            self._beginning = None
            return data[begin:end]
        if size:
            self._searched = max(0, size - 3)
            self._beginning = self._beginning or Beginning()
            self._beginning.check(data[begin:])
        return None
