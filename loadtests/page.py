"""The parts of a report's HTML page: one file, no script, nothing fetched from elsewhere. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("page.css")

# Even if a server's words got past the escaping, a browser would run and fetch nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(
    title: str, under: str, parts: Iterable[str], *, refresh_s: int | None = None
) -> bytes:
    """A whole page; `parts` are HTML. It is loaded anew each `refresh_s` where that is given."""
    again = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">{again}
<title>{escape(title)}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p>{escape(under)}</p>
</header>
{chr(10).join(part for part in parts if part)}
</main>
</body>
</html>
""".encode()


def verdict(good: str, complaints: Sequence[str]) -> str:
    """Whether the figures can be trusted."""
    if not complaints:
        return f'<p class="verdict">{escape(good)}</p>'
    listed = "".join(f"<li>{escape(said)}</li>" for said in complaints)
    return f'<div class="verdict bad"><strong>Not valid</strong><ul>{listed}</ul></div>'


def tiles(figures: Iterable[tuple[str, str, str]]) -> str:
    """Figures that meet the eye first: what, how much, in which unit."""
    return (
        '<dl class="tiles">'
        + "".join(
            f"<div><dt>{escape(what)}</dt>"
            f"<dd>{escape(much)} <small>{escape(unit)}</small></dd></div>"
            for what, much, unit in figures
        )
        + "</dl>"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing where that is nothing."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def charts(*figures: str) -> str:
    """Figures side by side where there is room."""
    shown = "".join(figures)
    return f'<div class="charts">{shown}</div>' if shown else ""


def figure(title: str, chart: str, caption: str) -> str:
    """A chart with its title and a sentence."""
    return (
        f"<figure><h3>{escape(title)}</h3>{chart}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 0) -> str:
    """Rows that begin with their name; the last `words` columns hold text, not numbers."""
    from_ = len(headings) - words
    head = "".join(
        f'<th scope="col"{" class=words" if place >= from_ else ""}>{escape(heading)}</th>'
        for place, heading in enumerate(headings)
    )
    body = []
    for row in rows:
        cells = "".join(
            f'<td class="words">{escape(cell)}</td>'
            if place >= from_
            else f"<td>{escape(cell)}</td>"
            for place, cell in enumerate(row[1:], start=1)
        )
        body.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    if not body:
        return ""
    # Can be scrolled by keyboard where it is wider than the window.
    label = escape(headings[0])
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def folded(title: str, text: str) -> str:
    """Text that is seen when asked for."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
