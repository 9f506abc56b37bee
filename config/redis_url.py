"""The forms of a Redis URL."""

import re
from urllib.parse import parse_qsl, urlsplit

from config.checks import address, boolean

#: The forms that are allowed, in one line.
URLS = (
    "redis://[[user]:password@]host[:port][/db], rediss://… , unix:///path, embedded:DIR, "
    "redis+sentinel://host[:port],…/service[/db] or redis+cluster://host[:port],…"
)

# The options of redis-py that a URL's query may have. Others (timeouts, retries, protocol) would
# break the promises of the counter.
_TLS_QUERY = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}


_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]*)"
    r"(/(?P<service>[A-Za-z0-9._-]+)(?P<db>/[0-9]*)?|/)?(?P<query>\?[^#]*)?"
)


def embedded_folder(url: str) -> str | None:
    """Return DIR of ``embedded:DIR``, or None for any other Redis URL."""
    return url.removeprefix("embedded:") if url.startswith("embedded:") else None


def redis_url(text: str) -> str:
    """Accept each form that `URLS` lists."""
    if embedded_folder(text):
        return text
    if not text.isprintable():  # urlsplit() drops line ends
        raise ValueError(URLS)
    if several := _SEVERAL.fullmatch(text):
        if bool(several["service"]) != (several["kind"] == "sentinel"):
            raise ValueError(URLS)
        for host in several["hosts"].split(","):
            query = several["query"] or ""
            redis_url(
                f"{several['scheme']}://{several['user'] or ''}{host}{several['db'] or ''}{query}"
            )
        return text
    try:
        url = urlsplit(text)
        query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        port = url.port  # raises ValueError when it is not a number or above 65535
        if url.scheme != "unix":
            address(url.hostname or "")
    except ValueError:
        raise ValueError(URLS) from None
    if url.scheme == "unix":
        fits = bool(url.path) and not url.hostname
    else:
        database = re.fullmatch("(/[0-9]{0,9})?", url.path)
        fits = bool(url.scheme in ("redis", "rediss") and port != 0 and database)
    if not fits or url.fragment or not re.fullmatch("[0-9]{1,9}", query.get("db", "0")):
        raise ValueError(URLS)
    known = {"db"} | (_TLS_QUERY if url.scheme == "rediss" else set())
    if not query.keys() <= known:
        raise ValueError(f"{', '.join(sorted(known))} after '?', and nothing else")
    if query.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
        raise ValueError("ssl_cert_reqs=none, optional or required")
    boolean(query.get("ssl_check_hostname", "true"))
    return text


def redacted(url: str) -> str:
    """Return a Redis URL without its password. The URL may be malformed."""
    scheme = re.sub("^([a-z+]+:/*|/*).*", r"\1", url, flags=re.DOTALL | re.IGNORECASE)
    # Hide everything up to the last @: a password that is not escaped may hold any character.
    hidden, at, place = url.removeprefix(scheme).rpartition("@")
    if "?" in hidden or re.match(":[^/]", place):
        return scheme + "***"
    return scheme + ("***@" if at else "") + re.sub("(password=)[^&]*", r"\1***", place)
