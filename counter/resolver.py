"""DNS look-ups that never hold up the program, and of which a bounded number hangs.

A look-up cannot be ended: `getaddrinfo` returns when the system's resolver gives up, with the
default of resolv.conf(5) ten seconds or more after it began. So all who ask for a name at a time
share its look-ups, of whichever connection they are, and a new one begins beside those that
hang, as the network may have been back since.
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

#: Look-ups under way at once in a process, each a thread. The manifests allow a container 64.
MAX_LOOK_UPS = 16

#: Seconds after which a look-up hangs, and the next one of the name may begin. The resolver asks
#: again after five, so that with the eight that one name may have there is a question on its way
#: in less than every second.
HANGS_AFTER = 0.6


@dataclass
class _Name:
    """The look-ups of one host, and those who wait for them."""

    under_way: list[threading.Thread] = field(default_factory=list)
    """The one that began last is last."""
    begun: float = 0.0
    """When it did, on the monotonic clock."""
    waiting: set[asyncio.Future[list[str]]] = field(default_factory=set)


_lock = threading.Lock()  # held by the event loop and by look-ups, for no time
_names: dict[str, _Name] = {}


async def resolve(host: str) -> list[str]:
    """Return the addresses of a host, in the order in which they are to be tried.

    The loop would look them up in a few threads of its pool, which a resolver that hangs fills,
    and which the end of the program waits for. Nobody waits for these.

    :arg host: a name, or an address, which is returned as it is.
    :raises OSError: when the name does not resolve, or too many look-ups hang to begin another.
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
    """Begin a look-up of a name, unless one that may still answer is under way.

    A name has others beside one that hangs as long as there is room: of what is allowed in all,
    each name has the same share, and so has one that is not there yet.
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
        thread.start()  # it cannot end before the lock is free
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
    except ValueError:  # another server has told a label that is too long, or empty
        failure = "it is no host name"
    with _lock:
        name, thread = _names[host], threading.current_thread()
        is_last = name.under_way[-1] is thread
        name.under_way.remove(thread)
        if failure and not is_last:
            return  # the one that was asked later may know better
        name.begun = 0.0
        waiting = list(name.waiting)
        _forget_if_idle(host)
    for answer in waiting:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            answer.get_loop().call_soon_threadsafe(_finish, answer, host, addresses, failure)


def _finish(
    answer: asyncio.Future[list[str]], host: str, addresses: list[str], failure: str
) -> None:
    if answer.done():  # whoever asked has given up, or has had another answer
        return
    if failure:
        answer.set_exception(OSError(f"cannot resolve {host}: {failure}"))
    else:
        answer.set_result(addresses)


def _forget_if_idle(host: str) -> None:
    if not _names[host].under_way and not _names[host].waiting:
        del _names[host]


def _in_order(found: list[Any]) -> list[str]:
    """Return the addresses that `getaddrinfo` found, each family's in turn.

    It sorts them by which are likely to do, so where IPv6 is broken, all of its addresses would be
    tried first (https://www.rfc-editor.org/rfc/rfc8305#section-4).
    """
    families: dict[int, list[str]] = {}
    for family, _, _, _, (address, _, *more) in found:
        if more and more[1]:  # a link-local address means nothing without its link
            address = f"{address}%{more[1]}"
        families.setdefault(family, []).append(address)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
    return list(dict.fromkeys(address for address in in_turn if address is not None))
