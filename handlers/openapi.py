"""``GET /openapi.yaml``: the description of all paths."""

from pathlib import Path

from handlers.base import BaseHandler

DESCRIPTION = (Path(__file__).parent.parent / "openapi.yaml").read_bytes()


class OpenAPIHandler(BaseHandler):
    """Describes the paths (https://spec.openapis.org/oas/v3.1.0)."""

    def get(self) -> None:
        """Answer with the description; RFC 9512 defines its media type."""
        self.set_header("Content-Type", "application/yaml")
        self.write(DESCRIPTION)

    head = get
