"""Tables of plain text, for a terminal."""

from collections.abc import Sequence

from ft_audit.agent.report.numbers import capital


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table in columns as wide as they must be; the columns in `numbers` are set to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def titled(title: str, body: str) -> str:
    """A table under its title."""
    return f"{capital(title)}\n{body}"
