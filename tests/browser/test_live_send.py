"""The button that sends visits."""

from playwright.sync_api import Locator, Page, expect

from tests.browser import live
from tests.browser.live import Open
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


def squares(page: Page) -> Locator:
    return page.locator("#squares > svg")


def sent(page: Page) -> dict[str, int]:
    """The summary: who answered, and how often."""
    text = page.locator("#sent").inner_text()
    pairs = (one.rsplit(" ×", 1) for one in text.split(", ") if one)
    return {who: int(times) for who, times in pairs}


def has_stopped(page: Page, valkey: Valkey) -> int:
    """Assert that no more are sent, and that all that were have counted; return how many."""
    expect(page.locator("#sent")).to_have_attribute("aria-busy", "false")
    count = valkey.counter()
    live.wait_for_draws(page, 2)
    assert valkey.counter() == count == sum(sent(page).values())
    return count


def test_visits_are_sent_while_the_button_is_held_and_drawn_by_version_with_who_answered(
    valkey: Valkey, program: Start, open_page: Open
) -> None:
    versions = dict(zip(live.NAMES, ("1.0", "1.0", "1.1"), strict=True))
    flag = f"--redis-url={valkey.url}"
    started = [
        live.start_replica(program, name, flag, version=versions[name]) for name in live.NAMES
    ]
    with Proxy([one.port for one in started]) as balancer:
        # So it chooses for each request.
        balancer.to_client.change = lambda data: data.replace(
            b" OK\r\n", b" OK\r\nConnection: close\r\n"
        )
        opened = open_page(f"http://127.0.0.1:{balancer.port}")
        opened.may_lose = True  # at the end the balancer goes first
        page = opened.page
        live.is_live(page)
        live.hold(page, lambda: expect(squares(page).nth(29)).to_be_attached())
        has_stopped(page, valkey)
        assert sent(page).keys() == set(live.NAMES)
        assert squares(page).count() == sum(sent(page).values())
        drawn = squares(page).evaluate_all(
            "(all) => all.map((one) => [one.querySelector('title').textContent,"
            " one.querySelector('path').getAttribute('fill')])"
        )
        fills = {name: {fill for who, fill in drawn if who == name} for name in live.NAMES}
        assert fills["web-1"] == fills["web-2"]
        assert len(fills["web-1"]) == len(fills["web-3"]) == 1
        assert fills["web-1"] != fills["web-3"]
        live.photograph(page, "send")


#: The ways to leave the button without letting it go.
LEAVES = [
    "() => document.activeElement.blur()",
    """() => {
      Object.defineProperty(document, "hidden", { value: false, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }""",
    "() => document.querySelector('#send').dispatchEvent(new PointerEvent('pointercancel'))",
]


def test_opening_the_page_counts_nothing_and_only_holding_the_button_sends(
    valkey: Valkey, server: Program, open_page: Open
) -> None:
    page = open_page(server.url).page
    live.is_live(page)
    live.wait_for_draws(page, 2)
    assert valkey.counter() == 0
    button = page.get_by_role("button", name="Hold to send visits")
    expect(button).to_have_accessible_description("Ten a second, and each one counts.")

    def send_some() -> None:  # of many, the page keeps few squares
        wait_until(lambda: sum(sent(page).values()) > count + 2, pause=0.1)

    count = 0
    for key in (" ", "Enter"):
        button.focus()
        page.keyboard.down(key)
        send_some()
        page.keyboard.up(key)
        count = has_stopped(page, valkey)
    for leave in LEAVES:
        button.hover()
        page.mouse.down()
        send_some()
        page.evaluate(leave)
        count = has_stopped(page, valkey)
        page.mouse.up()
    button.evaluate("(button) => button.click()")  # as a screen reader does: for one second
    send_some()
    assert has_stopped(page, valkey) - count <= 10


#: Notes the most requests that have no answer yet.
NOTE_MOST = """
globalThis.most = 0;
let underWay = 0;
const real = fetch;
globalThis.fetch = (...what) => {
  globalThis.most = Math.max(most, ++underWay);
  return real(...what).finally(() => underWay--);
};"""


def test_no_more_than_ten_are_under_way_and_what_got_no_number_has_a_shape_of_its_own(
    valkey: Valkey, counting: Start, open_page: Open, places: list[str]
) -> None:
    flags = (f"--redis-url={valkey.url}", places[0], "--faults", "--fault-rate=1")
    server = live.start_replica(counting, "web-1", *flags)
    opened = open_page(server.url, NOTE_MOST)
    page = opened.page
    live.is_live(page)

    def send_until(said: str) -> None:
        live.hold(page, lambda: expect(page.locator("#sent")).to_contain_text(said))

    send_until("error 503")
    assert sent(page).keys() == {"error 503"}
    assert squares(page).count() == squares(page).filter(has=page.locator("path.silent")).count()
    opened.forgive("status of 503")

    # Not from the page, whose requests tell their origin, and are refused.
    assert server.put("/faults", b'{"rate": 0, "wait": "3s"}')[0] == 200
    answered = squares(page).count()

    def send_ten() -> None:
        page.wait_for_function("() => most >= 10")
        expect(squares(page)).not_to_have_count(answered)  # and until then, no more

    live.hold(page, send_ten)
    assert page.evaluate("() => most") == 10
    assert server.put("/faults", b'{"wait": "0s"}')[0] == 200
    valkey.kill()
    # A longer line, which moves the button, and what it says at first may be another.
    expect(live.status(page)).to_contain_text("Connection refused")
    send_until("web-1 (not counted)")
    expect(page.locator("#squares .ring").first).to_be_visible()

    opened.may_lose = True
    server.process.kill()
    server.process.wait()
    expect(live.status(page)).to_contain_text("Connection lost")
    send_until("no answer")
