"""The live page in many tabs of one browser, which allows a host six connections (HTTP/1.1)."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Opened
from tests.browser.live import Start, happened, is_live, steps, wait_for_steps
from tests.support.ports import held_port
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

Open = Callable[[str], Opened]

#: Seven streams would be one more than the browser allows.
SEVEN = 7

#: What no test can do to a page from outside: hide it, and let no tab hear of another.
TRICKS = """
globalThis.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
const send = BroadcastChannel.prototype.postMessage;
BroadcastChannel.prototype.postMessage = function (message) {
  if (!localStorage.areMute) send.call(this, message);
};
"""


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Open]:
    """Open pages as the tabs of one browser; fail if it complains of anything."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    context.add_init_script(TRICKS)
    opened: list[Opened] = []

    def open_tab(url: str) -> Opened:
        opened.append(Opened(context.new_page()))
        opened[-1].page.goto(url)
        return opened[-1]

    yield open_tab
    context.close()
    assert [one.complaints for one in opened] == [[]] * len(opened)


def streams(server: Program) -> int:
    """How many streams the server has open."""
    found = re.search(r"^friendlyhello_live_watchers (\d+)", server.get("/metrics")[1], re.M)
    assert found
    return int(found[1])


def visit_until_drawn(server: Program, page: Page, number: int) -> int | None:
    """Visit until so many steps are drawn, and return the last visit's number."""
    visit = None
    while steps(page) < number:
        visit = server.visits()
        expect(page.locator("#total")).to_have_text(str(visit))
    return visit


def all_show(tabs: list[Opened], number: int | None) -> None:
    for one in tabs:
        expect(one.page.locator("#total")).to_have_text(str(number))
        is_live(one.page)


def test_seven_tabs_share_one_stream_and_an_eighth_page_loads(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    live = [tabs(f"{server.url}/live") for _ in range(SEVEN)]
    for _ in range(2):
        all_show(live, server.visits())
    eighth = tabs(f"{server.url}/").page
    expect(eighth.get_by_text("Hello world!")).to_be_visible()
    wait_until(lambda: streams(server) == 1)
    all_show(live, valkey.counter())


def test_a_tab_that_is_opened_later_starts_with_what_the_others_have(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    first = tabs(f"{server.url}/live").page
    visit_until_drawn(server, first, 2)
    later = tabs(f"{server.url}/live").page
    is_live(later)
    assert steps(later) >= 2
    assert happened(later) == happened(first) != []
    wait_until(lambda: streams(server) == 1)


def test_tabs_of_another_view_have_a_stream_of_their_own(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    views = [tabs(f"{server.url}/live?last={last}") for last in ("5m", "1h", "1h", "1d")]
    all_show(views, server.visits())
    wait_until(lambda: streams(server) == 3)
    for one in views:
        wait_for_steps(one.page, 1)


@pytest.mark.parametrize("how", ["closed", "left", "hidden"])
def test_when_the_tab_that_has_the_stream_goes_another_one_takes_over(
    how: str, valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    first = tabs(f"{server.url}/live")
    all_show([first], server.visits())
    others = [tabs(f"{server.url}/live") for _ in range(3)]
    all_show(others, 1)
    if how == "closed":
        first.page.close()
    elif how == "left":
        first.page.goto(f"{server.url}/healthz")
    else:
        first.page.evaluate("() => hide(true)")
    for _ in range(2):
        all_show(others, server.visits())
    wait_until(lambda: streams(server) == 1)


def test_all_tabs_come_back_after_a_restart_of_the_server(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    with held_port() as held:
        flags = (f"--redis-url={valkey.url}", f"--port={held.getsockname()[1]}")
        server = counting(*flags)
        live = [tabs(f"{server.url}/live") for _ in range(SEVEN)]
        all_show(live, server.visits())
        for one in live:
            one.may_lose = True
        server.signal()
        assert server.wait() == 0
        for one in live:
            expect(one.page.get_by_role("status")).to_contain_text("Connection lost")
        again = counting(*flags)
        all_show(live, again.visits())
        wait_until(lambda: streams(again) == 1)


def test_a_hidden_tab_has_no_stream_and_catches_up_when_it_is_shown(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    tab = tabs(f"{server.url}/live")
    all_show([tab], server.visits())
    wait_for_steps(tab.page, 1)
    tab.page.evaluate("() => hide(true)")
    wait_until(lambda: streams(server) == 0)
    watching = tabs(f"{server.url}/live").page  # while that one rests
    number = visit_until_drawn(server, watching, steps(tab.page) + 2)
    expect(tab.page.locator("#total")).to_have_text("1")
    tab.page.evaluate("() => hide(false)")
    all_show([tab], number)
    wait_for_steps(tab.page, steps(watching))  # it has what it missed
    wait_until(lambda: streams(server) == 1)


def test_of_two_tabs_that_have_a_stream_one_gives_it_up(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    first = tabs(f"{server.url}/live")
    all_show([first], server.visits())
    first.page.evaluate("() => { localStorage.areMute = true; }")
    other = tabs(f"{server.url}/live")
    wait_until(lambda: streams(server) == 2)
    first.page.evaluate("() => { localStorage.removeItem('areMute'); }")
    wait_until(lambda: streams(server) == 1)
    all_show([first, other], server.visits())


def test_tabs_that_are_opened_at_once_end_with_one_stream(
    valkey: Valkey, counting: Start, tabs: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    live = [tabs("about:blank") for _ in range(SEVEN)]
    for one in live:
        one.page.evaluate("(url) => { location.href = url; }", f"{server.url}/live")
    all_show(live, server.visits())
    wait_until(lambda: streams(server) == 1)
