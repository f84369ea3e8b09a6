"""What a person finds in a browser: `/`, `/docs`, `/openapi.json` and the icon."""

from __future__ import annotations

from turnout.core.errors import Failure
from turnout.core.servable import Serving
from turnout.protocols import docs_page, openapi
from turnout.protocols.failures import error_body
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route
from turnout.protocols.v2_metadata import respond

_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    b'<rect width="32" height="32" rx="7" fill="#0f3d3e"/>'
    b'<path d="M5 23h22M9 23C17 23 16 9 27 9" fill="none" stroke="#f2b84b" stroke-width="3" stroke-linecap="round"/>'
    b"</svg>"
)


def landing(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """A browser is led to /docs; everybody else learns that the server is alive, as KServe's clients expect."""
    if "text/html" in http.headers.get("accept", ""):
        return HttpResponse(
            307, "text/plain; charset=utf-8", b"See /docs\n", (("Location", "/docs"), ("Vary", "Accept"))
        )
    return HttpResponse(200, JSON, b'{"status":"alive"}', (("Vary", "Accept"),))


def page(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """The page for people, with a policy under which it can load nothing from elsewhere."""
    headers = (
        ("Content-Security-Policy", docs_page.POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    )
    return HttpResponse(200, "text/html; charset=utf-8", docs_page.render(serving), headers)


def openapi_document(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """The OpenAPI document of what is served at this moment."""
    return respond(openapi.document(serving))


def icon(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """A small picture for the browser's tab."""
    return HttpResponse(200, "image/svg+xml", _ICON, (("Cache-Control", "max-age=86400"),))


class DocumentsRest:
    """The paths of this file."""

    name = "documents"

    def routes(self) -> tuple[Route, ...]:
        """Landing, page, document and icon."""
        return (
            Route("GET", "/", answer=landing, summary="Is the server alive?"),
            Route("GET", "/docs", answer=page, summary="This server's page for people"),
            Route("GET", "/openapi.json", answer=openapi_document, summary="The OpenAPI document"),
            Route("GET", "/favicon.ico", answer=icon, summary="The icon"),
        )

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)
