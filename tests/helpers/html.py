"""What a page says."""

from html.parser import HTMLParser


def html_texts(page: str) -> list[str]:
    """Return the text of each element of a page."""
    texts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = texts.append  # type: ignore[assignment, method-assign]
    parser.feed(page)
    parser.close()
    return texts
