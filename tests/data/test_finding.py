"""Finding: the final answer of a text under every rule."""

import pytest

from negdistill.data.finding import final_answer

# --- find ---------------------------------------------------------------------------------------------

BOXED = [
    (r"so $x = \boxed{5}$.", "5"),
    (r"\boxed{1} or rather \boxed{2}", "2"),
    (r"\boxed{1}, that is \fbox{2}", "2"),
    (r"\fbox{2} and then \boxed{1}", "1"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{\boxed{7}}", "7"),
    (r"\boxed {7}", "7"),
    (r"\boxed{ 7 }", "7"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed{a\\}", "a\\\\"),
    ("\\boxed{a\nb}", "a\nb"),
    (r"is $\boxed 2$.", "2"),
    (r"is $\boxed 12$ cm", "12"),
    (r"is \(\boxed -\frac12\)", r"-\frac12"),
    ("\\boxed 9. Done", "9"),
    ("\\boxed 9\nDone", "9"),
    (r"\boxed{5}}", "5"),
    (r"\boxed{\frac{1}{2}", None),
    (r"\boxed{1} and \boxed{2", None),
    (r"\boxed{}", None),
    (r"\boxed", None),
    (r"\boxedness{5}", None),
    ("The answer is 5.", None),
    ("", None),
]


@pytest.mark.parametrize("text, answer", BOXED)
def test_boxed(text, answer):
    assert final_answer(text) == answer
    if answer is not None:
        assert final_answer(text, "lenient") == answer


LENIENT = [
    ("The answer is 5.", "5"),
    ("the answer is: 3.5.", "3.5"),
    ("The answer is 1. No, the final answer is 2. Done 3", "2"),
    ("The answer is 12 miles.\nThat took 3 hours.", "12 miles"),
    (r"The answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
    ("The answer is\n\\[ x + 1. \\]", "x + 1"),
    ("The answer is $5$ apples, 3 more.", "5"),
    ("The answer is $3$ and $4$.", "$3$ and $4$"),
    ("The answer is $30.", "30"),
    (r"The answer is $\$408.04$.", r"\$408.04"),
    ("The answer is 5.\n#### 6", "6"),  # the mark of the data set wins over a phrase
    ("so 4 + 2 = 6\n#### 6", "6"),
    ("#### 5\n#### -1,200 ", "-1,200"),
    ("that leaves 3 - 1 = 2 apples.", "2"),
    ("it costs $1,250.75.", "1,250.75"),
    ("10-5", "5"),
    ("so x = -5", "-5"),
    ("or x = −5", "−5"),
    ("a share of 3/4 of it", "3/4"),
    ("a share of .5 each", ".5"),
    ("the point x2 of 7th", "7"),
    ("there is none", None),
    (r"it is 4, \boxed{3", "3"),
    ("", None),
]


@pytest.mark.parametrize("text, answer", LENIENT)
def test_lenient(text, answer):
    assert final_answer(text, "lenient") == answer


STATED = [
    ("The answer is 31 dollars.", "31 dollars"),
    ("**The answer is 31.**", "31"),
    ("The answer is **31** dollars.", "**31** dollars"),
    ("✅ Final Answer: **73**", "73"),  # huggingface/Math-Verify 76
    ("**Answer:** 31\n", "31"),
    ("**Answer**: 31", "31"),
    ("Answer: m+n = 256+37 = 293", "m+n = 256+37 = 293"),  # antirez/ds4 319
    ("The answer is Rs. 31.", "Rs. 31"),
    ("The answer is 9 p.m. and not later.", "9 p.m"),
    ("The answer is $1.5$ million.", "$1.5$ million"),
    ("The answer to the question is 7.", "7"),
    ("La respuesta es 9. Hay 3 más.", "9"),
    ("Antwort: 9. Das sind 3 mehr.", "9"),
    ("答案是9。因为有3个。", "9"),
    ("答えは9です。全部で3つ。", "9です"),
    ("정답은 9입니다. 모두 3개.", "9입니다"),
]
MARKED = [
    ("The answer is 30 minutes.\n#### 30", "30"),
    ("So 30.\n#### $30\n", "$30"),
    ("#### 30\n\nQuestion: who?", "30"),
    ("#### Step 2: add\nThe answer is 12.", "12"),  # a heading of level 4
    ("#### Answer\n12", "12"),
    ("#### The answer is 12", "12"),
]
NUMBERS = [
    ("€31", "31"),
    ("**31**", "31"),
    ("一共有12个苹果。", "12"),
    ("全部で12個です", "12"),
    ("모두 12개", "12"),
    ("答案 １２", "１２"),
    ("it is 10 000 people", "10 000"),
    ("it is 1'234 people", "1'234"),
    (r"it is 9{,}500 here", "9{,}500"),
    ("it takes 2 1/2 cups", "2 1/2"),
    ("it takes 2½ cups", "2½"),
    ("there are 1.5 million of them", "1.5 million"),
    ("there are 3 dozen eggs", "3 dozen"),
    (r"a share of $\frac{3}{4}$ each", r"\frac{3}{4}"),
    ("that is 10^{20} of them", "10^{20}"),
    ("from 3x^2 no more", "3"),
    ("The total is 72 clips, altogether.", "72"),  # jundot/omlx 3484
]


@pytest.mark.parametrize("text, answer", [*STATED, *MARKED, *NUMBERS])
def test_what_stands_around_an_answer(text, answer):
    """Kind: emphasis, words and the data set's own mark around an answer, and letters that touch a number;
    as in huggingface/Math-Verify#76, sgl-project/sglang#29933, jundot/omlx#3484, antirez/ds4#319,
    HKUDS/Vibe-Trading#1122.
    """
    assert final_answer(text, "lenient") == answer


THOUGHTS = [
    (r"<think>so \boxed{5}</think> and then The answer is 4.", "4", None),
    (r"so \boxed{5}</think>\boxed{4}", "4", "4"),
    (r"<think>The answer is 5. So \boxed{5}", None, None),  # it never came to an end
    (r"<thinking>5</thinking>", None, None),
    (r"I think \boxed{5}", "5", "5"),
]


@pytest.mark.parametrize("text, lenient, boxed", THOUGHTS)
def test_reasoning_is_no_answer(text, lenient, boxed):
    """Kind: a number or a box in the reasoning before `</think>`; as in sgl-project/sglang-jax#1409,
    vllm-project/vllm#13375.
    """
    assert final_answer(text, "lenient") == lenient
    assert final_answer(text, "boxed") == boxed
    assert final_answer(f"<think>5, B</think>{text}", "choice") is None


MARKS = [
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("<Thoughts>", "</Thoughts>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>commentary<|message|>", "<|channel|>final<|message|>"),
]


@pytest.mark.parametrize("begins, ends", MARKS)
def test_reasoning_under_other_marks_is_no_answer(begins, ends):
    """Kind: the marks by which models set their reasoning apart, and the mark of the end of a turn."""
    reasoning = r"The answer is 5, (B), \boxed{5}."
    for answer in (
        "31",
        "The answer is 31.",
        "The answer is 31.<|return|>",
        "<|begin_of_solution|>31<|im_end|>",
    ):
        for text in (f"{begins}{reasoning}{ends}{answer}", f"{reasoning}{ends}\n\n{answer}"):
            assert final_answer(text, "lenient") == "31"
            assert final_answer(text, "choice") is final_answer(text, "boxed") is None
    for rule in ("lenient", "boxed", "choice"):
        assert final_answer(f"{begins}{reasoning}", rule) is None  # it never came to an end
    assert final_answer(f"{begins}5{ends}The answer is (C).", "choice") == "C"


def test_a_word_for_reasoning_is_no_mark():
    for text in ("by [analysis] 31", "some (thought) 31", "the final analysis: 31", "<reason 31"):
        assert final_answer(text, "lenient") == "31"


@pytest.mark.parametrize("tag", ["answer", "ANSWER", "final_answer", "final answer"])
def test_tags_around_an_answer(tag):
    """Kind: an answer that is set apart by a tag; what comes after it is none; as in
    AI-Hypercomputer/maxtext#4150.
    """
    for said in ("31", "**31**", "The answer is 31.", "\n31\n"):
        assert final_answer(f"so 5. <{tag}>{said}</{tag}> It took 3 steps.", "lenient") == "31"
    assert final_answer(rf"<{tag}>\boxed{{31}}</{tag}>", "boxed") == "31"
    assert final_answer(f"<{tag}>1</{tag}> No: <{tag}>31", "text") == "31"


CHOICES = [
    ("The answer is (B) Vitamin C.", "B"),
    ("The answer is B. Vitamin C", "B"),
    ("(B) and not (A)", "B"),
    ("The answer is (B) and not (A).", "B"),
    ("The answer is D, not B.", "D"),
    ("Answer: It is not B, the answer is D", "D"),  # antirez/ds4 321
    ("Answer: rules out C, leaving D", "D"),
    ("Answer: **D**", "D"),
    ("ANSWER: $A$", "A"),  # UKGovernmentBEIS/inspect_ai 5055
    ("**Answer: D**", "D"),
    ("(b)", "B"),
    ("b. 4", "B"),  # EleutherAI/lm-evaluation-harness 4188
    ("b", "B"),
    ("The answer is B because a car moves.", "B"),
    ("The answer is C because I computed the integral.", "C"),  # jundot/omlx 3668
    ("The answer is B. Note that A is a common distractor.", "B"),
    ("Answer seems to be A.\n\nAnswer: A", "A"),  # groq/openbench 348
    ("Antwort:\n\nAntwort: C", "C"),  # openai/simple-evals 33
    ("Option B is correct.", "B"),
    ("#### C", "C"),
    (r"\boxed{\text{(C)}}", "C"),
    (r"\boxed{c}", "C"),
    ("答案：B", "B"),
    ("答案是（Ｂ）。", "B"),
    ("so it must be C.", "C"),
    ("I do not know", None),
    ("The answer is I do not know.", None),
    ("ANSWER: I don't know", None),  # UKGovernmentBEIS/inspect_ai 2216
    ("ANSWER: None of the above", None),
    ("The answer is A or B.", None),
    ("A or B", None),
    ("The answer is A dog.", None),
    ("", None),
]


@pytest.mark.parametrize("text, letter", CHOICES)
def test_choice(text, letter):
    """Kind: the letter of a choice beside other letters, in any case and under any mark, and words that are
    none; as in UKGovernmentBEIS/inspect_ai#2216, antirez/ds4#321, jundot/omlx#3668, groq/openbench#348,
    EleutherAI/lm-evaluation-harness#4188.
    """
    assert final_answer(text, "choice") == letter


def test_text():
    assert final_answer("The answer is **Paris**.", "text") == "Paris"
    assert final_answer("Let me see.\nParis", "text") == "Paris"
    assert final_answer("<think>Rome</think>\nParis", "text") == "Paris"


@pytest.mark.parametrize("text", [None, 5, ["5"], b"5"])
def test_what_is_no_text_has_no_answer_to_find(text):
    with pytest.raises(TypeError, match="text must be a text; got .*, a"):
        final_answer(text)
