"""``GET /openapi.yaml``: what all of the paths answer."""

from pathlib import Path

from handlers.base import BaseHandler

DESCRIPTION = (Path(__file__).parent.parent / "openapi.yaml").read_bytes()


class OpenAPIHandler(BaseHandler):
    """Describes the paths (https://spec.openapis.org/oas/v3.1.0)."""

    def get(self) -> None:
        """Answer the description, whose media type is that of RFC 9512."""
        self.set_header("Content-Type", "application/yaml")
        self.write(DESCRIPTION)

    head = get
