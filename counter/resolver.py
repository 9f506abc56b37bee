"""DNS look-ups that never hold up the program."""

import asyncio
import contextlib
import ipaddress
import socket
import threading


async def resolve(host: str) -> list[str]:
    """Return the addresses of a host, looked up in a thread of its own.

    The loop would look them up in a few threads of its pool, which a resolver that hangs fills,
    and which the end of the program waits for. Nobody waits for this one.

    :arg host: a name, or an address, which is returned as it is.
    :raises OSError: when the name does not resolve.
    """
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def finish(addresses: list[str], error: OSError | None) -> None:
        if answer.done():  # whoever asked has given up
            return
        if error is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(error)

    def look_up() -> None:
        addresses, error = [], None
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = [str(address[0]) for *_, address in found]
        except OSError as failure:
            error = OSError(f"cannot resolve {host}: {failure.strerror}")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, addresses, error)

    threading.Thread(target=look_up, name=f"look-up of {host}", daemon=True).start()
    return await answer
