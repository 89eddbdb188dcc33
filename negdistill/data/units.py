"""Units: words and signs that may stand beside a number, and what each does to it.

factor       million, dozen, 万: part of the value, 3 dozen is 36
measure      cm, hours, $, p.m.: compared where both sides have one; 120 minutes are 2 hours
side         north, Celsius: compared where both sides have one, beside a measure too
other words  cookies, years old: they say what is counted, which the question has said already
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import zip_longest

_TEN = Fraction(10)
FACTORS: dict[str, Fraction] = {
    **dict.fromkeys(("hundred", "hundreds", "百", "백"), _TEN**2),
    **dict.fromkeys(("thousand", "thousands", "千", "천", "mille", "mil", "tausend", "тысяч"), _TEN**3),
    **dict.fromkeys(("million", "millions", "millones", "millionen", "mio", "mn", "миллионов"), _TEN**6),
    **dict.fromkeys(("billion", "billions", "bn", "milliard", "milliards", "milliarden", "mrd"), _TEN**9),
    **dict.fromkeys(("trillion", "trillions", "tn"), _TEN**12),
    **dict.fromkeys(("quadrillion", "quadrillions"), _TEN**15),
    **dict.fromkeys(("万", "萬", "만"), _TEN**4),
    **dict.fromkeys(("亿", "億", "억"), _TEN**8),
    **dict.fromkeys(("lakh", "lakhs"), _TEN**5),
    **dict.fromkeys(("crore", "crores"), _TEN**7),
    **dict.fromkeys(("dozen", "dozens"), Fraction(12)),
    **dict.fromkeys(("tens",), _TEN),
    **dict.fromkeys(("ten-thousand", "ten-thousands"), _TEN**4),
    **dict.fromkeys(("score",), Fraction(20)),
    **dict.fromkeys(("gross",), Fraction(144)),
    **dict.fromkeys(("halves",), Fraction(1, 2)),
    **dict.fromkeys(("thirds",), Fraction(1, 3)),
    **dict.fromkeys(("fourths",), Fraction(1, 4)),
    **dict.fromkeys(("fifths",), Fraction(1, 5)),
    **dict.fromkeys(("sixths",), Fraction(1, 6)),
    **dict.fromkeys(("eighths",), Fraction(1, 8)),
    **dict.fromkeys(("tenths",), Fraction(1, 10)),
    **dict.fromkeys(("hundredths",), Fraction(1, 100)),
    **dict.fromkeys(("thousandths",), Fraction(1, 1000)),
    **dict.fromkeys(("ten-thousandths",), Fraction(1, 10_000)),
}
SCALE = "[万萬亿億만억]|[千천](?![克米瓦卡赫帕伏焦牛兆]|字节)|[百백](?![帕分])"  # 3千 is 3000, 3千克 is 3 kg

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMERALS: dict[str, int] = {  # zero to ninety-nine
    **{word: value for value, word in enumerate(_ONES)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
    **{f"{ten}-{_ONES[one]}": 10 * value + one for value, ten in enumerate(_TENS, 2) for one in range(1, 10)},
}

_MEASURES = """
length    km kilometer kilometre 千米 公里 = 1000; m meter metre 米 = 1; mm millimeter millimetre = 1/1000
length    cm centimeter centimetre 厘米 = 1/100; dm = 1/10; mile mi = 201168/125; yard yd = 1143/1250
length    ft foot feet = 381/1250; inch inches = 127/5000
mass      kg kilogram 千克 公斤 = 1000; g gram 克 = 1; mg milligram = 1/1000; ton tonne = 1000000
mass      lb = 45359237/100000; oz ounce = 45359237/1600000
time      fortnight = 1209600; week = 604800; day = 86400; hour hr h = 3600; minute min = 60
time      second sec s = 1; ms millisecond = 1/1000
calendar  century centuries = 100; decade = 10; year yr = 1; month = 1/12
volume    l liter litre = 1; dl = 1/10; ml milliliter millilitre = 1/1000; gallon gal = 473176473/125000000
volume    quart = 473176473/500000000; pint = 473176473/1000000000; cup = 473176473/2000000000
area      acre = 1; hectare = 78125000/31613263
speed     mph = 1; kmph kmh = 1
money     $ usd dollar buck = 1; ¢ cent penny pennies = 1/100; nickel = 1/20; dime = 1/10; quarter = 1/4
euro      € eur euro = 1
yen       ¥ jpy yen = 1
sterling  £ gbp quid = 1
rupee     ₹ inr rs rupee = 1
won       ₩ krw won = 1
yuan      cny rmb yuan 元 = 1
rouble    ₽ rub rouble ruble = 1
franc     chf franc = 1
krone     kr krone kroner krona kronor = 1
forenoon  am midnight = 1
afternoon pm noon = 1
angle     degree deg ° = 1
radian    rad radian = 1
share     % percent pct percentage = 1
"""
# with prefixes, as kilowatt and kW
_BASES = """
power W watt; voltage V volt; current A ampere; force N newton; energy J joule; energy Wh watthour
heat cal calorie; frequency Hz hertz; pressure Pa pascal; data B byte
"""
_PREFIXES = (
    ("", "", 0),
    ("k", "kilo", 3),
    ("M", "mega", 6),
    ("G", "giga", 9),
    ("T", "tera", 12),
    ("m", "milli", -3),
)


def _measures() -> dict[str, tuple[str, Fraction]]:
    found = {}
    for line in _MEASURES.strip().splitlines():
        kind, _, rest = line.partition(" ")
        for part in filter(str.strip, rest.split(";")):
            names, _, factor = part.partition("=")
            for name in names.split():
                found[name] = kind, Fraction(factor.strip())
                if name.isascii() and len(name) > 1:
                    found[f"{name}s"] = found[name]
    return found


def _symbols() -> dict[str, tuple[str, Fraction]]:
    """Units that take prefixes, in the letters of their symbols, where m and M differ, and by name."""
    found = {}
    for kind, symbol, name in (base.split() for base in _BASES.replace("\n", ";").split(";") if base.strip()):
        for letter, prefix, power in _PREFIXES:
            size = kind, _TEN**power * (3600 if symbol == "Wh" else 1)
            found |= dict.fromkeys((letter + symbol, prefix + name, f"{prefix}{name}s"), size)
    return found | {name.lower(): found[name] for name in ("kB", "MB", "GB", "TB", "kWh")}


_SYMBOLS = _symbols()
MEASURES: dict[str, tuple[str, Fraction]] = _measures() | _SYMBOLS  # kind and size by name
SYMBOLS = "|".join(name for name in _SYMBOLS if re.fullmatch("[kMGTm]?(?:[WVANJB]|Wh|Hz|Pa|cal)", name))
SIDES = {
    **{side: side for side in "north south east west celsius fahrenheit kelvin".split()},
    **{side: side for side in "gain loss clockwise counterclockwise forward backward".split()},
    **{
        "N": "north",
        "S": "south",
        "E": "east",
        "W": "west",
        "C": "celsius",
        "F": "fahrenheit",
        "K": "kelvin",
    },
    **{"profit": "gain", "backwards": "backward", "forwards": "forward", "anticlockwise": "counterclockwise"},
}
_QUOTIENTS = {"mph": "mile|hour", "kmph": "km|hour", "kmh": "km|hour"}
_PER = ("per", "a", "an", "each", "every")


def unit(lead: list[str], tail: list[str]) -> str:
    """What the words before and after a number measure it in: "km", "km|hour", "mile||north", else ""."""
    sides = [SIDES[word] for word in (*lead, *tail[:5]) if word in SIDES]
    lead = [word for word in lead[-1:] if word.islower() or not word.isalpha()]  # Team B has 31
    words = [_QUOTIENTS.get(word, word) for word in (*lead, *tail[:5])]
    each = [place for place, word in enumerate(words) if word in _PER and words[place + 1 :][:1]]
    per = next((words[place + 1] for place in each if words[place + 1] in MEASURES), "")
    first = [word for place, word in enumerate(words[: len(lead) + 2]) if place - 1 not in each]
    of = next((word for word in first if word.partition("|")[0] in MEASURES), "")
    return "|".join((of if "|" in of else f"{of}|{per}", *sides[:1])).rstrip("|")


def scale(one: str, other: str) -> Fraction | None:
    """How many of the other unit one of the first is; 1 where one is missing, None where they contradict."""
    factor = Fraction(1)
    for place, (name, other_name) in enumerate(zip_longest(one.split("|"), other.split("|"), fillvalue="")):
        if not name or not other_name or name == other_name:
            continue
        (kind, size), (other_kind, other_size) = (
            MEASURES.get(word, (word, Fraction(1))) for word in (name, other_name)
        )
        if kind != other_kind:
            return None
        factor *= other_size / size if place == 1 else size / other_size
    return factor
