"""DNS look-ups that never hold up the program. Only a bounded number of them can hang.

Nothing can end a look-up: `getaddrinfo` returns only when the system's resolver gives up. With the
defaults of resolv.conf(5) this takes ten seconds or more. So all connections that need a name share
its look-ups. A new look-up begins beside those that hang, because the network may be back by then.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

#: Look-ups that a process may have under way at the same time. Each is a thread. `compose.yaml` and
#: the Swarm stack allow a container 64 threads.
MAX_LOOK_UPS = 16

#: Seconds after which a look-up counts as hanging, and the next look-up of the name may begin. The
#: system's resolver sends its question again only after five seconds. One name may have eight
#: look-ups, so together they send a question at least every second.
HANGS_AFTER = 0.6


@dataclass
class _Name:
    """The look-ups of one host, and the callers that wait for them."""

    under_way: list[threading.Thread] = field(default_factory=list)
    """In the order in which they began."""
    begun: float = 0.0
    """When the last one began, in seconds of the monotonic clock."""
    waiting: set[asyncio.Future[list[str]]] = field(default_factory=set)


_lock = threading.Lock()  # the event loop and the look-ups hold it for a few microseconds
_names: dict[str, _Name] = {}


async def resolve(host: str) -> list[str]:
    """Return the addresses of a host, in the order in which to try them.

    The event loop's own look-ups run in a pool of a few threads. A resolver that hangs would fill
    the pool, and the program would wait for the pool at its end. Nobody waits for these threads.

    :arg host: a name, or an IP address, which is returned as it is.
    :raises OSError: when the name does not resolve, or so many look-ups hang that no other may
        begin.
    """
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    try:
        while not answer.done():
            with _lock:
                _begin_if_due(host)
                _names[host].waiting.add(answer)
            await asyncio.wait([answer], timeout=HANGS_AFTER / 2)
        return answer.result()
    finally:
        with _lock:
            if host in _names:
                _names[host].waiting.discard(answer)
                _forget_if_idle(host)


def _begin_if_due(host: str) -> None:
    """Begin a look-up of a name, unless one is under way that does not hang.

    While look-ups of the name hang, others begin beside them as long as there is room. All names
    have equal shares of the look-ups. The resolver keeps one more share for a new name.

    :raises OSError: when the name has no look-up, and none may begin.
    """
    name = _names.setdefault(host, _Name())
    numbers = [len(one.under_way) for one in _names.values() if one.under_way]
    has_room = sum(numbers) < MAX_LOOK_UPS
    if name.under_way:
        share = MAX_LOOK_UPS // (len(numbers) + 1)
        hangs = time.monotonic() - name.begun >= HANGS_AFTER
        if not hangs or not has_room or len(name.under_way) >= share:
            return
    elif not has_room:
        raise OSError(f"cannot resolve {host}: too many look-ups of names hang")
    thread = threading.Thread(target=_look_up, args=(host,), name=f"look-up of {host}", daemon=True)
    try:
        thread.start()  # at its end it needs the lock, so it is in the list before it ends
    except RuntimeError:
        if not name.under_way:
            raise OSError(f"cannot resolve {host}: the system allows no more threads") from None
        return
    name.under_way.append(thread)
    name.begun = time.monotonic()


def _look_up(host: str) -> None:
    addresses, failure = [], ""
    try:
        addresses = _in_order(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError as error:
        failure = error.strerror or str(error)
    except ValueError:  # a sentinel or a node has sent a name with a label too long, or empty
        failure = "it is no host name"
    with _lock:
        name, thread = _names[host], threading.current_thread()
        is_last = name.under_way[-1] is thread
        name.under_way.remove(thread)
        if failure and not is_last:
            return  # a look-up that began later may succeed
        name.begun = 0.0
        waiting = list(name.waiting)
        _forget_if_idle(host)
    for answer in waiting:
        with contextlib.suppress(RuntimeError):  # it is raised when the loop is closed
            answer.get_loop().call_soon_threadsafe(_finish, answer, host, addresses, failure)


def _finish(
    answer: asyncio.Future[list[str]], host: str, addresses: list[str], failure: str
) -> None:
    if answer.done():  # the caller has given up, or has had another answer
        return
    if failure:
        answer.set_exception(OSError(f"cannot resolve {host}: {failure}"))
    else:
        answer.set_result(addresses)


def _forget_if_idle(host: str) -> None:
    if not _names[host].under_way and not _names[host].waiting:
        del _names[host]


def _in_order(found: list[Any]) -> list[str]:
    """Return the addresses that `getaddrinfo` found: one of each family in turn.

    `getaddrinfo` puts first what it expects to work. Where IPv6 is broken, the caller would try all
    IPv6 addresses before the first IPv4 address (https://www.rfc-editor.org/rfc/rfc8305#section-4).
    """
    families: dict[int, list[str]] = {}
    for family, _, _, _, (address, _, *more) in found:
        if more and more[1]:  # a link-local address is useless without its link
            address = f"{address}%{more[1]}"
        families.setdefault(family, []).append(address)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
    return list(dict.fromkeys(address for address in in_turn if address is not None))
