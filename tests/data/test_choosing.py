"""Choosing: the letter that a text settles on, and those that it refuses."""

import pytest

from negdistill.data.finding import final_answer

REFUSED = [
    ("(B), because (A) is too small", "B"),
    ("(B) is right, (A) is wrong", "B"),
    ("(A) is incorrect, (B) is incorrect, (C) is correct, (D) is incorrect.", "C"),
    ("(B), while (A) is false", "B"),
    ("I choose (B) over (A).", "B"),
    ("I prefer (C) to (D).", "C"),
    ("(B) without (A)", "B"),
    ("(B), never (A)", "B"),
    ("(C) rather than (D)", "C"),
    ("B and not A", "B"),
    ("The answer is not (A) but (B).", "B"),
    ("Both A and B are wrong, so C.", "C"),
    ("A, B, and D are incorrect. C is correct.", "C"),
    ("Options A and B are both wrong; choose D.", "D"),
    ("Neither (A) nor (B) works, hence (D).", "D"),
    ("We reject (A) and (B), so we pick (C).", "C"),
    ("(A) fails, (B) fails, so the answer must be (C).", "C"),
    ("(A) cannot be right; it is (D).", "D"),
    ("(C), although (D) looks tempting", "C"),
    ("The correct option is C, whereas B is wrong.", "C"),
    ("A is false. B is true. C is false.", "B"),
    ("(A) is wrong.", None),
    ("A is not correct.", None),
]
MARKED = [
    ("Thus, B is correct.", "B"),
    ("<answer>B</answer>", "B"),
    ("(A) is tempting. <answer>(C)</answer>", "C"),
    (r"\(B\)", "B"),
    (r"Hence $\textbf{(C)}$ is correct.", "C"),
    ("B - Vitamin C", "B"),
    ("B, Vitamin C", "B"),
    ("C: Hepatitis B", "C"),
    ("C – Plan B", "C"),
    ("The answer is Hepatitis B (option D).", "D"),
    ("The answer is Vitamin A, option C.", "C"),
    ("A, B", None),
    ("B, or C", None),
    ("I, for one, do not know", None),
    ("A dog is big", None),
]
CHINESE = [
    ("故选B。", "B"),
    ("故选B，因为A错误。", "B"),
    ("所以选择C", "C"),
    ("应选D。", "D"),
    ("B选项正确", "B"),
    ("A选项错误，B选项正确，C选项错误。", "B"),
]


@pytest.mark.parametrize("text, letter", REFUSED)
def test_a_letter_that_is_refused_is_no_answer(text, letter):
    """Kind: what is said of another option, before it (not, over, without) or after it (is wrong); as in
    antirez/ds4#321, jundot/omlx#3668.
    """
    assert final_answer(text, "choice") == letter


@pytest.mark.parametrize("text, letter", MARKED)
def test_a_letter_under_any_mark_beside_its_content(text, letter):
    """Kind: the mark around a letter, and capitals in the content of an option; as in NVIDIA-NeMo/Gym#1844,
    TIGER-AI-Lab/MMLU-Pro#7.
    """
    assert final_answer(text, "choice") == letter


@pytest.mark.parametrize("text, letter", CHINESE)
def test_a_letter_in_chinese(text, letter):
    """Kind: no spaces around a letter, and the words of another language."""
    assert final_answer(text, "choice") == letter
