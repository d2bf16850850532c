"""The parts that every section is put together from: heads, folds, legends and the rows of a plot."""

from ft_audit.agent.report.markup import Child, Markup, tag


def section(anchor: str, title: str, lead: Child, *body: Child) -> Markup:
    """One section: its title, the sentence to take away, and what shows it."""
    head = tag("header", tag("h2", title), tag("p", lead, class_="lead"), class_="section-head")
    return tag("section", head, *body, id=anchor)


def folded(summary: Child, *body: Child) -> Markup:
    """What only some readers open."""
    return tag("details", tag("summary", summary), *body)


def key(kind: str, text: str) -> Markup:
    """One entry of a plot's legend."""
    return tag("span", tag("i", class_=f"swatch {kind}"), text, class_="key")


def legend(*keys: Child) -> Markup:
    """The entries under a plot's title."""
    return tag("p", *keys, class_="legend")


def plot_row(name: Child, plot: Child, value: Child, kind: str = "") -> Markup:
    """One line of a plot: what it is of, the plot, and its number."""
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", plot, class_="track-cell"),
        tag("div", value, class_="value"),
        class_=f"plot-row {kind}".strip(),
    )
