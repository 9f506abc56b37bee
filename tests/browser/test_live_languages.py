"""The live page in its languages, and for everybody: what axe-core and html-validate find."""

import json
import re
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser import live
from tests.browser.live import Open
from tests.support.driven import driven
from tests.support.npm import with_npm
from tests.support.program import NOWHERE, Program, Start
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


def axe_finds_nothing(page: Page, where: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"


def test_axe_finds_nothing_and_a_reader_of_chinese_no_english(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    flags = (f"--redis-url={valkey.url}", "--faults", "--labels=zone=eu,node=n7")
    servers = [
        live.start_replica(counting, f"web-{one}", *flags, version=f"1.{one}") for one in (1, 2)
    ]
    for server in servers:
        server.visits()
    page = open_page(servers[0].url, locale="zh-CN").page
    assert page.evaluate("() => document.documentElement.lang") == "zh-CN"
    live.wait_for_steps(page, 2)
    expect(live.status(page)).to_have_text("实时")  # until web-1 alone has visits for a while
    live.hold(page, lambda: expect(page.locator("#sent")).to_contain_text("web-1 ×"))
    expect(page).to_have_title("friendlyhello 实时页面")
    expect(page.get_by_role("columnheader", name="主机名")).to_be_visible()
    live.wait_for_marks(page, "web-2 上线", "1.2 首次出现")
    expect(live.row(page, "web-1").locator(".labels")).to_have_text("zone=eu、node=n7")
    expect(live.row(page, "web-1").locator(".seen")).to_have_text(re.compile("现在|前"))
    servers[1].process.kill()
    with driven(servers[0], rate=10, concurrency=1):
        expect(live.row(page, "web-2")).to_have_class("silent")
        expect(live.status(page)).to_have_text("实时；web-2 已失联")
        live.wait_for_marks(page, "web-2 失联")
        for look in live.looks(page):
            axe_finds_nothing(page, look)
    valkey.kill()
    expect(live.status(page)).to_have_attribute("data-state", "away")
    page.emulate_media(reduced_motion="reduce")  # the grey comes at once
    axe_finds_nothing(page, "Redis is away")
    expect(live.status(page)).to_contain_text("Redis 不可用，计数停用。以下是此前的数据。（")
    names = {"friendlyhello", "web", "Redis", "redis", "zone", "eu", "node"}

    def is_chinese() -> bool:
        said = live.status(page).inner_text().partition("（")[2]  # in the words of the system
        text = page.locator("main").inner_text().replace(said, "")
        return set(re.findall("[A-Za-z]{2,}", text)) <= names

    wait_until(is_chinese)  # the reason may change between the two looks
    live.photograph(page, "chinese")


def test_numbers_and_times_are_those_of_the_browsers_language(
    valkey: Valkey, server: Program, open_page: Open
) -> None:
    valkey.client.set("counter", 12_344)
    server.visits()
    page = open_page(server.url, locale="de-DE").page
    expect(page.locator("#total")).to_have_text("12.345")
    assert page.evaluate("() => document.documentElement.lang") == "en"
    live.wait_for_marks(page, "web-1 came")
    time = page.get_by_role("log").locator("time").first
    expect(time).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))


def test_nothing_is_wrong_with_the_pages_html_and_a_mistake_is_found(
    program: Start, tmp_path: Path
) -> None:
    validate = with_npm(tmp_path / "validate", Path(__file__).parent / "validate")
    server = program(NOWHERE)
    for language in ("en", "zh-CN"):
        for last in ("5m", "1d"):
            page = server.get(f"/live?last={last}", Accept_Language=language)[1]
            assert json.loads(validate(page)) == []
    page = server.get("/live")[1]
    assert '<meta name="description" content="Visits as' in page
    wrong = validate(page.replace('<button type="button"', "<button"))
    assert "no-implicit-button-type" in wrong
