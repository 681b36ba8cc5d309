"""What a strict reader of HTML finds in a page."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects what a page holds and complains about tags that do not match.

    Attributes:
        ids: Of every element.
        links: Values of whatever may load or lead somewhere.
        tags: Names of all elements.
        text: Everything between tags, styles apart.
    """

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.tags, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            assert not key.startswith("on"), (tag, key)
            if key == "id":
                self.ids.append(value)
            if key in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}:
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def words(self):
        """The text with single spaces."""
        return " ".join("".join(self.text).split())
