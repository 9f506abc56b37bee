"""The error of a setting that cannot be used."""


class SettingError(ValueError):
    """A setting cannot be used. The message is one line, and is for the user."""


def shown(text: str) -> str:
    """Return a user's text, fit for one line: control characters escaped, and not too long."""
    text = repr(text)[1:-1]
    return text if len(text) <= 100 else text[:99] + "…"
