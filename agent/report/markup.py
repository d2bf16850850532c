"""HTML built from typed pieces: a plain string is always escaped, and only what is built here is markup."""

import html
from collections.abc import Iterable

from ft_audit.agent.untrusted import pieces

_VOID = {"meta", "br", "circle", "line", "rect", "path"}


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


Child = str | Markup | None


def escape(text: str) -> Markup:
    return text if isinstance(text, Markup) else Markup(html.escape(text, quote=True))


def join(children: Iterable[Child], between: str = "") -> Markup:
    return Markup(escape(between).join(escape(child) for child in children if child is not None))


def tag(element: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """One element; `class_` is class, `stroke_width` is stroke-width, and what is None is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _VOID and not children:
        return Markup(f"<{element}{shown}/>")
    return Markup(f"<{element}{shown}>{join(children)}</{element}>")


def untrusted(text: str, limit: int) -> Markup:
    """Text of a model or a data set: escaped, cut, its hidden characters shown as named marks."""
    shown: list[Child] = []
    for piece in pieces(text, limit):
        if piece.kind == "hidden":
            shown.append(tag("span", piece.text, class_="hidden", title=piece.title))
        elif piece.kind == "space":
            # The break itself stays, so that a list still reads as one; its sign shows it is the text's own.
            after = "\n" if piece.text == "↵" else "\t"
            shown.append(join([tag("span", piece.text, class_="space"), after]))
        elif piece.kind == "cut":
            shown.append(tag("span", piece.text, class_="cut"))
        else:
            shown.append(piece.text)
    return tag("span", *shown, class_="quoted", dir="auto")


def quotation(source: str, text: str, limit: int, side: str = "") -> Markup:
    """A block of untrusted text under the name of where it comes from."""
    body = untrusted(text, limit) if text else tag("span", "(empty)", class_="cut")
    return tag("figure", tag("figcaption", source), tag("blockquote", body), class_=f"quote {side}".strip())
