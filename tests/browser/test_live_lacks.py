"""The live page where a browser has not, or does not allow, what it uses."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Opened
from tests.browser.live import Start, is_live, row, start_replica, wait_for_steps
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

Open = Callable[[str, str], Opened]


@pytest.fixture
def open_without(browser: Browser) -> Iterator[Open]:
    """Open a page in a browser from which a script has taken something; it may not complain."""
    opened: list[Opened] = []

    def open_without(url: str, script: str) -> Opened:
        context = browser.new_context(viewport={"width": 1000, "height": 900})
        context.set_default_timeout(1000 * PATIENCE)
        context.add_init_script(script)
        opened.append(Opened(context.new_page()))
        opened[-1].page.goto(f"{url}/live")
        return opened[-1]

    yield open_without
    for one in opened:
        one.page.context.close()
    assert [one.complaints for one in opened] == [[]] * len(opened)


@pytest.fixture
def server(program: Start, valkey: Valkey) -> Program:
    one = start_replica(program, "web-1", f"--redis-url={valkey.url}")
    wait_until(one.visits)
    return one


def language(value: str) -> str:
    return f"Object.defineProperty(navigator, 'language', {{ get: () => {value} }});"


def throwing(name: str, error: str) -> str:
    """A class whose making throws, as browsers do where something is blocked."""
    return f"globalThis.{name} = class {{ constructor() {{ throw {error}; }} }};"


SECURITY = "new DOMException('The operation is insecure.', 'SecurityError')"

#: What is taken away.
LACKS = {
    "a language with more to it": language("'en-US@posix'"),
    "a language that is a locale": language("'C'"),
    "an empty language": language("''"),
    "no language": language("undefined"),
    "null as language": language("null"),
    "no channel between tabs": "delete globalThis.BroadcastChannel;",
    "a blocked channel between tabs": throwing("BroadcastChannel", SECURITY),
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
    "no capture of pointers": "delete Element.prototype.setPointerCapture;",
    "a pointer that has gone": """
        Element.prototype.setPointerCapture = () => {
          throw new DOMException('no such pointer', 'NotFoundError');
        };""",
}


@pytest.mark.parametrize("lack", LACKS)
def test_the_page_is_live_and_sends_visits_without(
    lack: str, server: Program, open_without: Open
) -> None:
    page = open_without(server.url, LACKS[lack]).page
    is_live(page)
    wait_for_steps(page, 1)
    expect(row(page, "web-1")).to_be_visible()
    page.get_by_role("button", name="Hold to send visits").hover()
    page.mouse.down()
    expect(page.locator("#sent")).to_contain_text("web-1 ×")
    page.mouse.up()
    expect(page.locator("#sent")).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("channel", ["", "delete globalThis.BroadcastChannel;"])
def test_a_tab_without_a_channel_rests_when_hidden_and_has_a_stream_of_its_own(
    channel: str, server: Program, open_without: Open
) -> None:
    hide = """
    globalThis.hide = (hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    };"""
    page = open_without(server.url, channel + hide).page

    def watchers() -> int:
        metrics = server.get("/metrics")[1]
        (line,) = [one for one in metrics.splitlines() if one.startswith("friendlyhello_live_w")]
        return int(float(line.split()[1]))

    is_live(page)
    for hidden, watching in ((False, 1), (True, 0), (False, 1)):
        page.evaluate(f"hide({str(hidden).lower()})")
        wait_until(lambda watching=watching: watchers() == watching)
    is_live(page)


@pytest.mark.parametrize(
    "lack", ["delete globalThis.EventSource;", throwing("EventSource", SECURITY)]
)
def test_without_a_stream_it_says_that_it_is_lost(
    lack: str, server: Program, open_without: Open
) -> None:
    page = open_without(server.url, lack).page
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
