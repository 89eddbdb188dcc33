"""Compare: what is equal under math and number, and what is not, either way round."""

import string

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from negdistill.data.answers import check_reference, equivalent, grade
from negdistill.data.records import Problem, Rationale
from negdistill.method.asc import groups, vote

# --- right answers ------------------------------------------------------------------------------------

NUMBERS = {  # equal under number and under math
    "a unit or a noun after it": [
        ("31 dollars", "31"),
        ("16 years old", "16"),
        ("45 miles per hour", "45"),
        ("27 cookies", "27"),
        ("27 chocolate chip cookies", "27"),
        ("12 apples", "12 apples"),
        (r"31\text{ cm}", "31"),
        (r"31\,\mathrm{cm}^2", "31"),
        (r"31\mbox{ cm}", "31 cm"),
        ("12 cm", "12"),
        ("12 m", "12"),
        ("64ft^2", "64"),
        ("3 km/hr", "3"),
        ("$5/kg", "5"),
        ("31 in total", "31"),
        ("31 cookies, all in all", "31"),
        ("31 cookies (in total)", "31"),
        ("31 cookies because 30 + 1 = 31", "31"),
        ("about 31", "31"),
        ("Tom has 31 cookies", "31"),
        ("16-year-old", "16"),
        ("the 7th day", "7"),
        ("12个苹果", "12"),
        ("9です", "9"),
        ("答案是9。", "9"),
        ("74°", r"74^\circ"),
        ("74 degrees", "74"),
        (r"74^{\circ}\text{C}", "74°C"),
    ],
    "money": [
        ("€31", "31"),
        ("31€", "31"),
        ("£31", "31"),
        ("31 USD", "$31"),
        ("US$31", "31"),
        ("Rs. 31", "31"),
        ("₹31", "31"),
        (r"\$31.00", "31"),
        (r"$\$31$", "31"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        (r"\text{\textsterling}31", "£31"),
        ("50 cents", "$0.50"),
        ("$1.5M", "1,500,000"),
        ("$2k", "2000"),
    ],
    "emphasis": [
        ("**31**", "31"),
        ("__31__", "31"),
        ("_31_", "31"),
        ("*31*", "31"),
        ("`31`", "31"),
        ("31.**", "31"),
        ("**31** dollars", "31"),
        (r"\textbf{31}", "31"),
        (r"\mathbf{31}", "31"),
        (r"\text{31}", "31"),  # huggingface/Math-Verify 37
        (r"{\bf 31}", "31"),
        (r"\boxed{\boxed{31}}", "31"),
        (r"\color{red}{31}", "31"),
        ('"31"', "31"),
    ],
    "thousands": [
        (r"9{,}500", "9500"),  # open-compass/opencompass 2647
        (r"10,\!000", "10000"),
        (r"1\,234", "1234"),
        (r"1\ 234", "1234"),
        ("1 234", "1234"),
        ("1\N{THIN SPACE}234", "1234"),
        ("1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567", "1,234,567"),
        ("1'234", "1234"),
        ("１，２３４", "1234"),
        ("1,234.50", "1234.5"),
        ("-1,234", "-1234"),
        (r"1,234/2", "617"),
        (r"\frac{1,234}{2}", "617"),
    ],
    "fractions and powers": [
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac12", "1/2"),
        ("½", "0.5"),
        ("2½", "2.5"),
        ("1 1/4", "5/4"),
        (r"1\frac14", "5/4"),
        ("-1 1/4", "-5/4"),
        ("2 1/2 cups", "2.5"),
        ("2 and a half", "2.5"),
        (r"2 \text{ and } \frac{1}{2}", "2.5"),
        ("2^10", "1024"),
        (r"2.5 \times 10^6", "2500000"),
        ("2.5×10⁶", "2500000"),
        ("5e-05", "0.00005"),
        ("1e16", "10000000000000000"),
        (r"0.\overline{3}", "1/3"),
        ("5!", "120"),
        ("5!=120", "120"),
        ("1.234.567", "1234567"),
        ("1.234,50 €", "1234.5"),
        ("twelve", "12"),
        ("thirty-one apples", "31"),
        ("two thirds", "2/3"),
        ("+5", "5"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("negative 5", "-5"),
        ("１２", "12"),
        ("١٢", "12"),
        ("१२", "12"),
    ],
    "equations": [
        ("8 + 9 = 17", "17"),
        ("8 + 9 = 17 apples", "17"),
        ("The total is 8 + 9 = **17**", "17"),
        ("x=5", "5"),
        ("2=x", "2"),
        ("x = 8 + 9 = 17", "17"),
        ("m+n = 256+37 = 293", "293"),  # antirez/ds4 319
        (r"17 \bmod 5 = 2", "2"),
        (r"\text{Area} = 12\text{ cm}^2", "12"),
        ("f(2) = 5", "5"),
        (r"\angle ABC = 40^\circ", "40"),
        (r"x \equiv 3 \pmod 7", "3"),
        (r"x \approx 3.14", "3.14"),
        (r"= 5", "5"),
    ],
    "factors": [
        (r"1.5\text{ million}", "1500000"),
        ("$1.5$ million", "1,500,000"),
        (r"3\text{ dozen}", "36"),
        ("2 hundred thousand", "200000"),
        ("3万", "30000"),
        ("3 tenths", "0.3"),
        ("2 hours", "120 minutes"),
        ("3 hours and 30 minutes", "3.5 hours"),
        ("31 dollars and 50 cents", "$31.50"),
        ("1.2 km", "1200 m"),
        ("50%", "50"),
        (r"50\%", "0.5"),
        ("50 percent", r"50\%"),
    ],
}
FORMULAS = [
    (r"\sqrt{3} - 1", "-1 + sqrt(3)"),
    ("4√65", r"4\sqrt{65}"),
    ("4√(65)", r"4\sqrt{65}"),
    ("∛2", r"\sqrt[3]{2}"),
    (r"\sqrt[3]2", r"\sqrt[3]{2}"),
    ("[2, ∞)", r"[2,\infty)"),
    ("(−∞, 2) ∪ (3, ∞)", r"(-\infty,2)\cup(3,\infty)"),
    (r"x \in [2, \infty)", r"[2,\infty)"),
    ("x²+1", "x^2+1"),
    ("a₁ + 2", "2 + a_1"),
    ("3*pi/2", r"\frac{3\pi}{2}"),
    ("2π", r"2\pi"),
    (r"3\sqrt{2}\text{ cm}", r"3\sqrt2"),
    (r"\pm 3", "3, -3"),
    (r"x = 2 \pm \sqrt{3}", r"2-\sqrt3, 2+\sqrt3"),
    (r"x = 1 \text{ or } x = -2", "-2, 1"),
    ("1, 2, and 3", r"\{3, 2, 1\}"),
    ("y = 2x + 3", "2x+3"),
    ("y = 2x", "x = y/2"),
    (r"\text{No solution.}", "no solution"),
    (r"\text{(E)},", "E"),
    ("5:6", r"\frac56"),
    ("4:51:06 p.m.", r"04\!:\!51\!:\!06\text{ p.m.}"),
    (r"0.716815\ldots", r"7-2\pi"),
    ("0.333333", r"\frac13"),
    (r"\sin(-60^\circ) = -\frac{\sqrt3}{2}", r"-\frac{\sqrt3}{2}"),
    (r"\textbf{(B) }12", "12"),
    (r"a+b \ \textbf{(E)}", "a+b"),
    (
        r"\begin{pmatrix}ab-ba\\1\end{pmatrix} = \begin{pmatrix}0\\1\end{pmatrix}",
        r"\begin{pmatrix}0\\1\end{pmatrix}",
    ),
    (r"\tan{15^\circ}", r"\tan 15^\circ"),
    (r"2\pi\text{ m}", r"2\pi"),
    ("(6,235)", r"(6, 235^\circ)"),
    (r"x \leqslant 3", "x <= 3"),
    ("-3 < k < 5", "(-3,5)"),
    ("f(x) = x^2", "y = x^2"),
    ("y = -x + 1", "x + y = 1"),
    (r"\sqrt{1/n}", r"\sqrt{\frac{1}{n}}"),
    ("2x+4y-3=0", "y = -1/2*x + 3/4"),  # huggingface/Math-Verify 26
]
ROWS = [(kind, one, other) for kind, pairs in NUMBERS.items() for one, other in pairs]


@pytest.mark.parametrize("rule", ["number", "math"])
@pytest.mark.parametrize("kind, one, other", ROWS)
def test_numbers_are_read(kind, one, other, rule):
    """Kind: what stands around, inside or for a number: units, money, emphasis, separators, fractions,
    equations, words that multiply; as in EleutherAI/lm-evaluation-harness#3214,
    open-compass/opencompass#2647, huggingface/Math-Verify#37, huggingface/Math-Verify#34,
    greynewell/matchspec#306, antirez/ds4#319.
    """
    assert equivalent(one, other, rule) and equivalent(other, one, rule)


@pytest.mark.parametrize("one, other", FORMULAS)
def test_formulas_are_read(one, other):
    """Kind: one formula, typed in two ways; as in huggingface/Math-Verify#26, huggingface/Math-Verify#35,
    modelscope/ms-swift#4541.
    """
    assert equivalent(one, other, "math") and equivalent(other, one, "math")


# --- wrong answers ------------------------------------------------------------------------------------

DIFFERENT = {
    "mixed numbers": [
        ("1 1/4", "11/4"),
        (r"1\frac14", "11/4"),
        ("3 4", "34"),
        ("3 4", "12"),
        ("2 3/4", "23/4"),
    ],
    "words": [
        *(("HHT", "HTH"), ("May", "Amy"), ("left", "felt"), ("TH", "HT"), (r"\text{even}", r"\text{neve}")),
        *(("HHT, HTH", "HHT, THH"), (r"x\text{ is even}", r"x\text{ is odd}"), ("at least 5", "5")),
        ("May 5", "June 5"),
        *(("not 5", "5"), ("5 or more", "5"), ("no", "yes")),
    ],
    "small numbers": [  # huggingface/Math-Verify 14
        *(("10^{-20}", "10^{-21}"), ("0.0000001", "0.0000002"), ("1/2^{98}", "1/2^{99}")),
        *((r"\frac{1}{2004!}", r"\frac{1}{2006!}"), (r"\sqrt2\cdot10^{-20}", r"\sqrt3\cdot10^{-20}")),
        (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3 \cdot 2^{2006}}"),
        *((r"\frac{1}{3}", "0.333"), ("0.333334", r"\frac13"), ("2.9999999", "3")),
    ],
    "factors and units": [
        *((r"1.5\text{ million}", "1.5"), (r"3\text{ dozen}", "3"), ("2 thousand", "2 million")),
        *((r"9\text{ p.m.}", r"9\text{ a.m.}"), ("9:30 am", "9:30 pm"), ("30 minutes", "30 hours")),
        *(("$31", "€31"), ("12 cm", "12 m"), ("50 cents", "50 dollars"), ("5 feet 6 inches", "5 feet")),
        *(("3 hours and 30 minutes", "3"), ("5c", "5"), ("5x", "5"), ("12m", "12"), ("50%", "5000%")),
        *((r"2\mathrm{e}", "2"), ("1 hour and 1 minute", "1"), (r"5 \text{ if odd}, 3 \text{ if even}", "5")),
    ],
    "thousands": [(r"10\,000", "0"), ("10,000", "10.000"), ("1,234", "1234000"), ("(1,234)", "1234")],
    "equations": [
        *(("7 = 11a+c", "11a+c"), ("11a+c = 7", "7"), ("x^2+y^2=1", "1"), ("x+y=0", "0"), ("x=5", "x=6")),
        *(("y=2x", "y=3x"), ("x=1, y=2", "x=2, y=1"), ("f(x)=0", "f(x)=1")),
        ("3*x-1*y+13=0", "3x + 4y + 14=0"),  # huggingface/Math-Verify 60
    ],
    "lists": [  # huggingface/Math-Verify 14
        *(
            ("n=2, 3, 4", "n=1, 2, 3"),
            ("D = (0, 1)", "D = (0, 1.5)"),
            (r"19, 46, \text{ and } 82", "21, 36, and 82"),
        ),
        *((r"\pm 2021", "2021"), ("12:00", "1:00"), (r"1, 2, \ldots, n", r"1, 3, 5, \ldots, 2n-1")),
        *((r"1:2:3:\ldots", r"1:4:9:\ldots"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("1, 2", "1, 2, 2")),
    ],
    "formulas": [
        (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}"),
        ("4", r"4\sqrt(2)"),  # huggingface/Math-Verify 41
        (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}"),
        *((r"\sin x", r"\cos x"), ("x > 2", r"x \ge 2"), (r"2\sqrt3", r"3\sqrt2"), ("", "0"), (".", "$$")),
    ],
}


@pytest.mark.parametrize(
    "kind, one, other", [(kind, *pair) for kind, pairs in DIFFERENT.items() for pair in pairs]
)
def test_different_answers_are_different(kind, one, other):
    """Kind: mixed numbers, words, small numbers, separators, equations and lists that are taken for others;
    as in huggingface/Math-Verify#81, sympy/sympy#15624, huggingface/Math-Verify#14,
    huggingface/Math-Verify#21, open-compass/opencompass#2647, huggingface/Math-Verify#60,
    huggingface/Math-Verify#41.
    """
    for rule in ("math", "number"):
        assert not equivalent(one, other, rule) and not equivalent(other, one, rule)


def test_a_vote_of_words_compares_words():
    """Kind: words that are read as products of letters; as in sympy/sympy#15624, scitix/sieval#68."""
    assert vote("HHT HTH THH TTT TTT".split()) == "TTT"
    assert groups([["May", "Amy", "may", None, r"\text{May}"]])[0].tolist() == [0, 1, 0, -1, 0]
    assert groups([["1 1/4", "11/4", "5/4"]])[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("reference", ["B", "b", "(B)", r"\text{(B)}"])
def test_a_choice_is_its_letter(reference):
    """Kind: the letter of a reference, in any case and under any mark; as in
    EleutherAI/lm-evaluation-harness#4188, NVIDIA-NeMo/Gym#1844.
    """
    problem = Problem("1", "?", reference, "", "", None, "mine")
    texts = ["The answer is (B) Vitamin C.", "Answer: **B**", "(b)", "The answer is (C) and not (B)."]
    grades = grade([problem], [Rationale("1", n, t, "t") for n, t in enumerate(texts)], "choice", "choice")
    assert [one.label for one in grades] == ["right", "right", "right", "wrong"]


@pytest.mark.parametrize(
    "text", ["The answer is 31 dollars.", "€31", "**31**", "**The answer is 31.**", "31 €"]
)
@pytest.mark.parametrize("rule", ["number", "math"])
def test_the_same_label_under_number_and_latex(text, rule):
    """Kind: money, emphasis or a noun around the number of an answer; as in
    EleutherAI/lm-evaluation-harness#3214, vllm-project/tpu-inference#2318.
    """
    (one,) = grade(
        [Problem("1", "?", "31", "", "", None, "mine")], [Rationale("1", 0, text, "t")], "lenient", rule
    )
    assert one.label == "right"


# --- references that can never be met -----------------------------------------------------------------


@pytest.mark.parametrize("reference", ["NaN", "Infinity", "many", "3 and 4", "x + 1", ""])
def test_a_reference_that_no_answer_can_equal_is_refused(reference):
    """Kind: a reference that the rule cannot read, so that no answer equals it; as in
    EleutherAI/lm-evaluation-harness#2212.
    """
    with pytest.raises(
        ValueError, match='answer must be a number under rule "number"; got .*which no answer can equal'
    ):
        check_reference(reference, "number")


def test_references_under_other_rules():
    for reference in ("12 cm", "5e-05", "1e16", "1,000", r"\frac12", "x = 5", "50%"):
        check_reference(reference, "number")
    for rule in ("math", "exact", "string", lambda answer, reference: True):
        check_reference("no solution", rule)
        with pytest.raises(ValueError, match="answer must be a text that is not empty"):
            check_reference(" ", rule)
    check_reference("(b)", "choice")
    with pytest.raises(ValueError, match="answer must be a letter A to J under rule \"choice\"; got 'Paris'"):
        check_reference("Paris", "choice")


# --- properties ---------------------------------------------------------------------------------------

FRAMES = (
    [
        "**{}**",
        "__{}__",
        "`{}`",
        "*{}*",
        "${}$",
        r"\({}\)",
        r"\[{}\]",
        r"\boxed{{{}}}",
        r"\boxed{{\boxed{{{}}}}}",
    ]
    + [r"\text{{}}{}", "{}.", " {} ", "x = {}", "{} = x", "= {}", r"\left({}\right)", "{{{}}}"]
    + [
        "{} dollars",
        "${}",
        "€{}",
        "{}€",
        r"\${}",
        "{} cm",
        r"{}\text{{ cm}}",
        r"{}^\circ",
        "{}%",
        "{} cookies in total",
    ]
    + ["The total is {}", "{} years old", "{}个", "{}です", "**{}** apples", "{}, because that is so"]
)
integers = st.integers(-(10**9), 10**9)
NUMBER = (
    integers.map(str)
    | integers.map("{:,}".format)
    | st.decimals(-1000, 1000, places=3).map(str)
    | st.builds(r"\frac{{{}}}{{{}}}".format, st.integers(0, 999), st.integers(1, 999))
    | st.builds("{}/{}".format, st.integers(-999, 999), st.integers(1, 999))
    | st.builds("{} 1/{}".format, st.integers(1, 99), st.integers(2, 9))
)
FORMULA = st.sampled_from(
    [
        r"\sqrt{2}+1",
        "x^2-1",
        "(1,2)",
        "[0,1)",
        "1,2",
        r"\pi",
        "x=5",
        "7=11a+c",
        "a+b=12",
        "HHT",
        "no solution",
    ]
    + [
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        "3:4",
        r"\pm 3",
        "9 a.m.",
        "x>2",
        r"\text{even}",
        "2x",
        "xy",
        "y=2x",
    ]
)
ANSWER = NUMBER | FORMULA
SPACES = st.sampled_from(["", " ", "  ", r"\;", r"\:", "~", r"\ "])
PATIENT = settings(deadline=None, max_examples=60)


@PATIENT
@given(ANSWER | st.text(max_size=30), ANSWER | st.text(max_size=30))
def test_equality_is_reflexive_and_symmetric(one, other):
    assert equivalent(one, one, "math")
    for rule in ("math", "number", "choice", "string", "exact"):
        assert equivalent(one, other, rule) == equivalent(other, one, rule)


@PATIENT
@given(NUMBER, st.sampled_from(FRAMES))
def test_a_number_equals_itself_in_every_frame(number, frame):
    assume("," not in number or frame != r"\left({}\right)")  # (1,000) is a pair
    for rule in ("number", "math"):
        assert equivalent(frame.format(number), number, rule) and equivalent(
            number, frame.format(number), rule
        )


@PATIENT
@given(NUMBER, st.data())
@example("100", None)
def test_a_changed_digit_is_never_equal(number, data):
    places = [place for place, one in enumerate(number) if one in string.digits]
    place = data.draw(st.sampled_from(places)) if data else 0
    digit = data.draw(st.sampled_from(string.digits)) if data else "2"
    changed = number[:place] + digit + number[place + 1 :]
    assume(digit != number[place] and not (r"\frac{0" in number + changed or number[0] == changed[0] == "0"))
    assume(not any(zero in number + changed for zero in ("/0", "{0}")) and number.strip("-0./1") != "")
    for frame in ("{}", r"{}\text{{ cm}}", r"\sqrt{{{}}}", "x + {}", "({}, 1)"):
        for rule in ("number", "math"):
            assert not equivalent(frame.format(changed), frame.format(number), rule)


@PATIENT
@given(SPACES, SPACES, SPACES)
def test_spaces_that_latex_ignores_change_nothing(a, b, c):
    for spaced, tight in (
        (rf"{a}\frac{{{b}1}}{{2{c}}}", r"\frac{1}{2}"),
        (rf"x{a}+{b}\sqrt{{{c}2}}", r"x+\sqrt{2}"),
        (rf"({a}1,{b}2{c})", "(1,2)"),
        (rf"x{a}={b}5{c}", "x=5"),
        (rf"-{a}5{b}x{c}", "-5x"),
    ):
        assert equivalent(spaced, tight, "math") and equivalent(tight, spaced, "math")
