"""What a user is told of a setting that cannot be used."""


class SettingError(ValueError):
    """A setting that cannot be used; the message is one line, fit for the user."""


def shown(text: str) -> str:
    """Return a user's text as part of one line: no control characters, no endless length."""
    text = repr(text)[1:-1]
    return text if len(text) <= 100 else text[:99] + "…"
