"""Markup that tests look into: start tags and texts of HTML."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Every start tag with its attributes, and every text; of `each`, one text for all that stands in one."""

    def __init__(self, text, each=()):
        super().__init__()
        self.each, self.tags, self.texts = each, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in self.each:
            self.texts.append("")

    def handle_data(self, data):
        if self.each:
            self.texts[-1] += data
        else:
            self.texts.append(data)

    def all(self, tag):
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]
