"""A page as one file that fetches nothing and runs nothing, whatever text it quotes."""

import base64
import hashlib
from importlib.resources import files

from ft_audit.agent.report.markup import Child, Markup, tag


def document(title: str, *body: Child) -> str:
    """The HTML of a whole page with the report's own style."""
    style = files("ft_audit.agent.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def _policy(style: str) -> str:
    # The style's own hash: nothing that was quoted could style the page, load from it or run in it.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
