"""The live page where a browser has not, or does not allow, what it uses."""

from playwright.sync_api import expect

from tests.browser.live import HIDE, Open, hold, is_live, row, status, streams, wait_for_steps
from tests.support.program import Program
from tests.support.waiting import wait_until


def throwing(name: str) -> str:
    """A class whose making throws, as browsers do where something is blocked."""
    error = "new DOMException('The operation is insecure.', 'SecurityError')"
    return f"globalThis.{name} = class {{ constructor() {{ throw {error}; }} }};"


LANGUAGE = "Object.defineProperty(navigator, 'language', { get: () => %s });"

#: What is taken away.
LACKS = {
    "a language with more to it": LANGUAGE % "'en-US@posix'",
    "no language": LANGUAGE % "undefined",
    "a blocked channel between tabs": throwing("BroadcastChannel"),
    "no observer of sizes": "delete globalThis.ResizeObserver;",
    "a time zone that is none": """
        const Real = Intl.DateTimeFormat;
        Intl.DateTimeFormat = class extends Real {
          constructor(language, options = {}) {
            if (!options.timeZone) throw new RangeError("invalid time zone: Etc/Unknown");
            super(language, options);
          }
        };""",
    "no time limit of requests": "delete AbortSignal.timeout;",
    "a pointer that has gone": """
        Element.prototype.setPointerCapture = () => {
          throw new DOMException('no such pointer', 'NotFoundError');
        };""",
}


def test_the_page_is_live_and_sends_visits_without(server: Program, open_page: Open) -> None:
    wait_until(server.visits)
    for lack, script in LACKS.items():
        page = open_page(server.url, script).page
        is_live(page)
        wait_for_steps(page, 1)
        expect(row(page, "web-1"), lack).to_be_visible()
        hold(page, lambda page=page: expect(page.locator("#sent")).to_contain_text("web-1 ×"))  # type: ignore[misc]
        page.close()  # all of them drawing at once would take a busy machine minutes


def test_a_tab_without_a_channel_rests_when_hidden_and_has_a_stream_of_its_own(
    server: Program, open_page: Open
) -> None:
    page = open_page(server.url, f"delete globalThis.BroadcastChannel; {HIDE}").page
    is_live(page)
    for hidden, watching in ((False, 1), (True, 0), (False, 1)):
        page.evaluate(f"hide({str(hidden).lower()})")
        wait_until(lambda watching=watching: streams(server) == watching)
    is_live(page)


def test_without_a_stream_it_says_that_it_is_lost(server: Program, open_page: Open) -> None:
    lack = throwing("EventSource")
    expect(status(open_page(server.url, lack).page)).to_contain_text("Connection lost")
