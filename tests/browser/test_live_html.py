"""The live page's HTML, by html-validate."""

import json
from pathlib import Path

from tests.support.npm import with_npm
from tests.support.program import Start


def test_nothing_is_wrong_with_the_live_page_and_a_mistake_is_found(
    program: Start, tmp_path: Path
) -> None:
    validate = with_npm(tmp_path / "validate", Path(__file__).parent / "validate")
    server = program("--redis-url=unix:/nowhere/redis.sock")
    for language in ("en", "zh-CN"):
        for last in ("5m", "1d"):
            page = server.get(f"/live?last={last}", Accept_Language=language)[1]
            assert json.loads(validate(page)) == []
    page = server.get("/live")[1]
    assert '<meta name="description" content="Visits as' in page
    wrong = validate(page.replace('<button type="button"', "<button"))
    assert "no-implicit-button-type" in wrong
