"""Units: words and signs that may stand beside a number, and what each does to it.

factor       million, dozen, 万: part of the value, 3 dozen is 36
measure      cm, hours, $, p.m.: compared where both sides have one; 120 minutes are 2 hours
other words  cookies, years old: they say what is counted, which the question has said already
"""

from __future__ import annotations

from fractions import Fraction

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
    **dict.fromkeys(("halves",), Fraction(1, 2)),
    **dict.fromkeys(("thirds",), Fraction(1, 3)),
    **dict.fromkeys(("fourths",), Fraction(1, 4)),
    **dict.fromkeys(("fifths",), Fraction(1, 5)),
    **dict.fromkeys(("sixths",), Fraction(1, 6)),
    **dict.fromkeys(("eighths",), Fraction(1, 8)),
    **dict.fromkeys(("tenths",), Fraction(1, 10)),
    **dict.fromkeys(("hundredths",), Fraction(1, 100)),
    **dict.fromkeys(("thousandths",), Fraction(1, 1000)),
}

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
length    km kilometer kilometre = 1000; m meter metre = 1; dm = 1/10; cm centimeter centimetre = 1/100
length    mm millimeter millimetre = 1/1000; mile mi = 201168/125; yard yd = 1143/1250
length    ft foot feet = 381/1250; inch inches = 127/5000
mass      kg kilogram = 1000; g gram = 1; mg milligram = 1/1000; ton tonne = 1000000
mass      lb = 45359237/100000; oz ounce = 45359237/1600000
time      week = 604800; day = 86400; hour hr = 3600; minute min = 60; second sec = 1; ms millisecond = 1/1000
calendar  century centuries = 100; decade = 10; year yr = 1; month = 1/12
volume    l liter litre = 1; ml milliliter millilitre = 1/1000; gallon gal = 473176473/125000000
speed     mph = 1; kmph kmh = 1
money     $ usd dollar buck = 1; ¢ cent = 1/100
euro      € eur euro = 1
yen       ¥ jpy yen = 1
sterling  £ gbp quid = 1
rupee     ₹ inr rs rupee = 1
won       ₩ krw won = 1
yuan      cny rmb yuan 元 = 1
rouble    ₽ rub rouble ruble = 1
franc     chf franc = 1
krone     kr krone kroner krona kronor = 1
forenoon  am = 1
afternoon pm = 1
angle     degree deg ° = 1
radian    rad radian = 1
share     % percent pct percentage = 1
"""


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


MEASURES: dict[str, tuple[str, Fraction]] = _measures()  # kind and size by name
