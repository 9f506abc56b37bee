"""A Redis before 5: the figures are kept there, too, or a line says which Redis would do.

There, a script that has asked for the time may write only if it has asked before to be replicated
by its effects, which it can from 3.2 on (https://redis.io/docs/latest/commands/eval/).
"""

import lupa.lua51  # type: ignore[import-untyped]
import pytest

from counter import process_key
from replicas import Figures, figures
from tests.support import Caplog
from tests.support.store import unpacked

REFUSAL = "Write commands not allowed after non deterministic commands"


def error_of(script: str, keys: list[str], arguments: list[str], *, has_effects: bool) -> str:
    """Run a script as a Redis before 5 does, where nothing is kept.

    :arg has_effects: whether it is one of 3.2 or newer.
    """
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
    ran: list[str] = []

    def pcall(name: str, *words: object) -> object:
        ran.append(name)
        if name == "TIME":
            return lua.table_from(["1", "0"])
        if name in ("HGET", "ZREVRANGE"):
            return False
        refused = "TIME" in ran and ran[0] != "by effects"
        return lua.table_from({"err": REFUSAL} if refused else {"ok": "OK"})

    effects = {"replicate_commands": lambda: ran.append("by effects")} if has_effects else {}
    own = lua.globals()
    own.redis = lua.table_from({"pcall": pcall, **effects})
    own.KEYS, own.ARGV = lua.table_from(keys), lua.table_from(arguments)
    error = lua.execute(script)["err"] or ""
    assert "HSET" in ran
    return str(error)


@pytest.mark.parametrize(("has_effects", "error"), [(True, ""), (False, REFUSAL)])
def test_from_redis_3_2_on_figures_are_written(has_effects: bool, error: str) -> None:
    one = Figures("web-1")
    one.refused("EVALSHA: NOSCRIPT")
    (sent,) = one.commands(process_key("P"), 0, 1, scripts=True)
    _, script, count, *words = [word.decode() for word in unpacked(sent)]
    keys, arguments = words[: int(count)], words[int(count) :]
    assert error_of(script, keys, arguments, has_effects=has_effects) == error


@pytest.mark.parametrize(
    ("said", "more"),
    [
        (REFUSAL, f"; Redis {figures.OLDEST} is the oldest that is supported"),
        ("NOPERM no", ""),
    ],
)
def test_too_old_a_redis_is_told_which_would_do(said: str, more: str, caplog: Caplog) -> None:
    one = Figures("web-1")
    for _ in range(2):
        one.refused(f"EVAL: {said}")
    assert caplog.messages == [f"Redis refuses some of the live page's figures: EVAL: {said}{more}"]
