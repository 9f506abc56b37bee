"""What one client may take of the server, so that the others always get theirs."""

#: What a connection may take.
HTTP = {
    # Browsers and balancers stay below 8 kB; what is longer is refused as it is read.
    "max_header_size": 16 * 1024,
    # No page takes a body. One that was announced longer is refused unread.
    "max_body_size": 64 * 1024,
    # Seconds for such a body: one packet, or a few over a bad line.
    "body_timeout": 10.0,
    # Seconds for a request's headers, from their first byte on: as long for them.
    "header_timeout": 10.0,
    # Seconds that a connection may be idle. Balancers keep theirs for 60; one that closes first
    # must not be the server, or a request may meet the close on its way.
    "idle_connection_timeout": 75.0,
}

#: Connections that may wait to be accepted; the system lowers it to its own limit.
BACKLOG = 4096

#: Visits that may wait for their numbers. As many as arrive in the two seconds that a visit may
#: wait by default, at 5,000 a second; past it the counter is no help, and pages go without.
WAITING_VISITS = 10_000
