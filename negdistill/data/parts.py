r"""Parts: the words, the mathematics and the signs of one answer in plain spelling.

about 3\sqrt{2}\text{ cm} in all   ->   about | 3\sqrt{2} | cm in all
"""

from __future__ import annotations

import re

from negdistill.data.units import FACTORS, MEASURES, NUMERALS, SCALE, SIDES, SYMBOLS

# --- words --------------------------------------------------------------------------------------------

_FUNCTION_WORDS = frozenset(
    "a an the of in is are was were be it its to for per on at by as he she they we you has have had will i"
    " so then there that this these those each my our us up all sq cu".split()
)
STOPS = frozenset(  # what follows or precedes them changes the number
    "not no none neither nor or and less fewer greater more least most below above under over between than"
    " half quarter third one two three four five six seven eight nine ten twice double triple never cannot"
    " without except squared cubed factorial plus minus divided"
    " january february march april may june july august september october november december"
    " monday tuesday wednesday thursday friday saturday sunday".split()
)
AFTER = frozenset(
    "less fewer more than over above below under least most one two three".split()
)  # 5 more apples
_CURRENCY = re.compile(
    r"(?:(?<![A-Za-z])(?:US|CA|AU|NZ|HK|SG|[ACR]))?(?:\\\$|\$)|[¢-¥฿₠-⃀]"
    r"|\\(?P<name>euro|EUR|pounds|textsterling|texteuro|textdollar|dollar|yen|textyen|cent|textcent)(?![A-Za-z])"
)
_SIGNS = {"euro": "€", "EUR": "€", "texteuro": "€", "pounds": "£", "textsterling": "£", "yen": "¥"}
_SIGNS |= {"textyen": "¥", "dollar": "$", "textdollar": "$", "cent": "¢", "textcent": "¢"}
_POWER = r"(?: ?\^ ?(?:\{[123]\}|[123]))?"
_SYMBOL = rf"(?:{SYMBOLS}|[kcdmn]?m|[kmn]?[gs]|min|hr?|[dm]?L|mol|mi|ft|yd|in|lb|oz|gal)(?![A-Za-z]){_POWER}"
_UNIT = (  # 60 km/h, 60 V, 60GB, 60g, but 60m may be 60 times m, and 60 n
    rf"(?:(?<=\d)|(?<=\d ))(?:{_SYMBOL}(?: ?(?:/|\\cdot) ?{_SYMBOL})+"
    rf"|(?!.[^A-Za-z])(?:{SYMBOLS})(?![A-Za-z])|[gL](?![A-Za-z]))"
    rf"|(?<=\d )(?:[mgshtLVWNJACFK]|n[ms]|h[ap]|dB|[bf]ps|[br]pm|mpg|pcs)(?![A-Za-z]){_POWER}"
)
_WORD = re.compile(
    rf"(?P<sign>{_CURRENCY.pattern})"
    rf"|(?P<unit>{_UNIT})(?=[ .]*\Z| (?!and\b|or\b|if\b)[a-z]{{2}})"
    rf"|(?P<per>/ ?)?(?:\\text\{{(?P<text>[^{{}}]*)\}}{_POWER}"
    rf"|(?<![\\A-Za-z_^{{])(?P<word>(?:[^\W\d_]['’])?[^\W\d_]{{2,}}(?:['’.-][^\W\d_]{{2,}})*)(?![A-Za-z}}]){_POWER}"
    r"|(?<![^\s(])(?P<article>[Aa]|I)(?= (?!and\b|or\b|is\b|if\b)(?:\\?\$?\d[\d.,]*(?:\\?%)? ?)?[^\W\d_]{2}))"
    r"|(?P<letter>[\u3040-\uffdc])"
)
_WORDS = re.compile(r"[^\W\d_]+(?:[.'’-][^\W\d_]+)*|[$¢-¥฿₠-⃀%]")
_VOWEL = re.compile(r"[aeiou]|[^\x00-\x7f]")


def _is_word(low: str, before: str, after: str) -> bool:
    """Whether letters are a word and not a product of variables; what stands beside them helps to tell."""
    if low in FACTORS or low in MEASURES or not low.isascii():
        return True
    if re.search(r"[\d^_(=]\Z|[*/+&-] ?\Z", before) or re.match(r"[(=]| ?[*+&^_]", after):
        return len(low) > 3 and before[-1:] not in ("^", "_")
    return low in _FUNCTION_WORDS | STOPS or (len(low) > 2 and bool(_VOWEL.search(low))) or len(low) > 4


def _words_in(mark: re.Match[str]) -> list[str]:
    """The words of a match, in small letters but for units; none where its letters are variables."""
    if mark["sign"]:
        return [_SIGNS.get(mark["name"] or "", mark[0][-1])]
    if mark["word"]:
        before, after = mark.string[: mark.start("word")], mark.string[mark.end("word") :]
        if not _is_word(mark["word"].lower(), before, after):
            return []
    said = mark["unit"] or mark["text"] or mark["word"] or (mark["article"] or mark["letter"] or "").lower()
    words = [word.rstrip(".") for word in _WORDS.findall(said.replace("/", " per ").replace(r"\cdot", ""))]
    words = [word if word in MEASURES or word in SIDES else word.lower() for word in words]
    return ["per", *words] if mark["per"] else words


def parts(text: str) -> tuple[list[str], str, list[str], bool]:
    """Words before the mathematics, the mathematics, words after it, and whether it has words or digits
    within words in it.
    """
    pieces: list[tuple[list[str], str]] = []  # words, or a stretch of mathematics
    at, mixed = 0, False
    for mark in _WORD.finditer(text):
        if words := _words_in(mark):
            pieces += [([], text[at : mark.start()]), (words, "")]
            mixed = mixed or bool(re.search(r"\d", mark["text"] or ""))
            at = mark.end()
    pieces.append(([], text[at:]))
    there = [place for place, (_, piece) in enumerate(pieces) if piece.strip(" .,;:!?'\"()/-")]
    first, last = (there[0], there[-1]) if there else (len(pieces), len(pieces))
    lead = [word for words, _ in pieces[:first] for word in words]
    tail = [word for words, _ in pieces[last + 1 :] for word in words]
    mixed = mixed or first != last
    core = re.sub(r"\A[ .]+(?=[ \\+-])|\A[ ,;:'\"]+|[ ,;:'\"]+\Z", "", pieces[first][1] if there else "")
    return lead, core.rstrip("/- ") if tail else core.strip(), tail, mixed


# --- signs around a core ------------------------------------------------------------------------------

_EDITS = tuple(
    (re.compile(pattern, re.IGNORECASE), new)
    for pattern, new in (
        (rf"(?<=\d)({SCALE})+(?=\w)", lambda scale: f"{scale[0]} "),  # 5千个
        (r"(?<![\d./-])(\d+)-(\d+/\d+)(?= [a-z]{2})", r"\1 \2"),  # 1-1/2 cups
        (r"(?<=\d)(?:/[-=]|\+)\Z", ""),  # Rs. 31/-
        (r"(?<=[a-z]{2})\.(?=\d)", ". "),  # Rs.31
        (r"(?<=\d)( ?(?:[kcdm]?m|ft|in))([23])\Z", r"\1^{\2}"),  # 31 cm2
        (r"(?<=\d) (?:\\text\{ ?)?and (?:a|one)[ -]half\b ?\}?", " 1/2 "),
        (r"(?<=\d) (?:\\text\{ ?)?and (?:a|one)[ -](?:quarter|fourth)\b ?\}?", " 1/4 "),
        (r"(?<=\d) (?:\\text\{ ?)?and three[ -](?:quarters|fourths)\b ?\}?", " 3/4 "),
        (r"(?<=\d) (?:\\text\{ ?)?and ?\}? ?(?=\d+/\d+(?![\d/])|\\frac\{\d+\}\{\d+\})", " "),
        (r"(?<![A-Za-z\\])(?:negative|minus) (?=[\d.\\$])", "-"),
        (r"(?<=\d)( ?(?:\\text\{ ?)?)([ap])\.? ?m\b\.?", r"\1 \2m"),
        (r"([-+]) ?((?:[A-Z]{0,2})(?:\\\$|[¢-¥฿₠-⃀])) ?(?=[\d.])", r"\2\1"),
        (r"(?<=\d)[ -]?(?:st|nd|rd|th)\b", " "),
        (r"(?<=\d)-(?=[A-Za-z]{3})", " "),
    )
)
_MONEY_SUFFIX = re.compile(r"((?:\\\$|[¢-¥฿₠-⃀]) ?[\d.]+) ?(k|K|m|M|b|B|bn|mn)\b")
_SUFFIXES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion"}
_CLAUSE = re.compile(
    r"(?<=[\d})\w%])[,;]? (?:because|since|which|where|so that|hence|whereas|as there|as the|as it|as we|when"
    r"|so the|so there|given that)\b.*\Z"
)
_REMARK = re.compile(
    r"(?<=[\w}%]) ?\((?!mod|(?:in )?base|\\text\{ ?mod)(?=[^()]*[A-Za-z]{3})[^()\\=]*\)\Z"
    r"|(?<=\d) ?\([A-Za-z][a-z]{2}[a-z -]*\)(?= [A-Za-z])"  # 14 (fourteen) dollars
    r"|(?<=[\d}%]) -{1,2} (?=[A-Za-z]{3}|it\b|as\b)[^\d=\\+^]*\Z"  # 31 - that's it
)
MODULUS = re.compile(r" ?\(?\\[bp]?mod ?\{?(\w+)\}?\)?\Z| ?\((?:\\text\{ ?)?mod ?\}? ?(\w+)\)\Z")
TAIL_SIGN = re.compile(
    r"(?P<degree> ?(?:\^ ?\{? ?\\circ ?\}?|\\degree(?![A-Za-z])) ?(?P<side>[CFNSEW]\b)?)\Z"
    r"|(?P<percent> ?\\?%)\Z"
)
_START = re.compile(
    r"\A(?:[\s,;:&]|\\\\|[-=]+>"
    r"|(?:=|\\approx|\\equiv|\\therefore|\\(?:long)?(?:R|r)ightarrow|\\to|\\implies)(?![A-Za-z]) ?)+"
)
_END = re.compile(r"(?:[\s.,;:?]|(?<=[A-Za-z]{3})!|\\\\)+\Z")


def trimmed(text: str) -> str:
    """Without what ends a sentence, braces around all, and parentheses around a single letter."""
    while True:
        text = _START.sub("", _END.sub("", text)).strip()
        inner = text[1:-1]
        if text[:1] == "{" and text[-1:] == "}" and depths(inner) is not None:
            text = inner
        elif re.fullmatch(r"\([A-Za-z]\)", text):
            text = inner
        else:
            return text


def depths(text: str) -> list[int] | None:
    """Places at depth 0; None where brackets close that were never opened."""
    depth, places = 0, []
    for place, one in enumerate(text):
        if one in "([{":
            depth += 1
        elif one in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0:
            places.append(place)
    return places if depth == 0 else None


def split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The text, cut at the matches of a pattern outside all brackets."""
    outside = depths(text)
    if outside is None:
        return [text]
    outside, pieces, at = set(outside), [], 0
    for mark in pattern.finditer(text):
        if mark.start() in outside:
            pieces.append(text[at : mark.start()])
            at = mark.end()
    return [*pieces, text[at:]]


_SHARES = {"hal": 2, "thi": 3, "qua": 4, "fou": 4, "fif": 5, "six": 6, "eig": 8, "ten": 10}
_ONES = "|".join(word for word, value in NUMERALS.items() if 0 < value < 10)
_TO_99 = rf"(?:{'|'.join(word for word in NUMERALS if word.endswith('ty'))})(?:[ -](?:{_ONES}))?"
_TO_99 = rf"(?:{_TO_99}|{'|'.join(word for word, value in NUMERALS.items() if value < 20)})\b"
_TO_999 = rf"(?:(?:an?|{_TO_99}) hundred\b(?:(?: and)? {_TO_99})?|{_TO_99})"
_LARGE = rf"(?:an?|{_TO_999}) (?:thousand|million|billion|trillion)\b"
_SPELT_OUT = re.compile(
    rf"{_LARGE}(?:,? (?:and )?{_LARGE})*(?:,? (?:and )?{_TO_999})?|{_TO_999}", re.IGNORECASE
)
_SHARE = re.compile(
    rf"(?:(an?|{_TO_99})[ -](half|halves|(?:third|quarter|fourth|fifth|sixth|eighth|tenth)s?)|half)"
    r"(?= of\b| an?\b|\Z)",
    re.IGNORECASE,
)


def in_digits(text: str) -> str:
    """A number at the start that is spelt out, in digits: two hundred and one, a dozen, three quarters."""
    if (sign := re.match(r"(?:negative|minus) (?=[a-z])", text, re.IGNORECASE)) and text[sign.end() :] != (
        positive := in_digits(text[sign.end() :])
    ):
        return f"-{positive}"
    if share := _SHARE.match(text):
        count, of = NUMERALS.get((share[1] or "").lower(), 1), _SHARES[(share[2] or "half")[:3].lower()]
        return f"{count}/{of}{text[share.end() :]}"
    spelt = _SPELT_OUT.match(text)
    if spelt is None:
        return re.sub(r"\A(?i:an?)(?= (?i:dozen|score|gross)\b)", "1", text)
    total = part = 0
    for word in re.findall(r"[a-z]+", spelt[0].lower()):
        if word == "hundred":
            part *= 100
        elif word in FACTORS:
            total, part = total + part * FACTORS[word], 0
        else:
            part += 1 if word in ("a", "an") else NUMERALS.get(word, 0)  # "and" adds nothing
    rest = text[spelt.end() :]
    return f"{total + part}{rest.removeprefix(f' ({total + part})')}"  # thirty-one (31)


def edited(text: str) -> str:
    """Numbers that are spelt with words, in digits: 2 and a half, negative 5, $1.5M, 9 a.m., 7th."""
    text = in_digits(text)
    for pattern, new in _EDITS:
        text = pattern.sub(new, text)
    return _MONEY_SUFFIX.sub(lambda money: f"{money[1]} {_SUFFIXES[money[2].lower()]}", text)


def without_remarks(text: str) -> str:
    """Without a clause or a remark in parentheses that follows a number."""
    return trimmed(_REMARK.sub("", _CLAUSE.sub("", text))) if re.search(r"\d", text) else text
