import pytest

from ralis_backend.core.text import printable, printable_lines, reason_of, shortened, storable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("road", "road"),
        ("Straße 道路 🚗 ", "Straße 道路 🚗 "),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b[31mred\x1b[0m\x07", "\\x1b[31mred\\x1b[0m\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2028c\u200bd", "a\\u202eb\\u2028c\\u200bd"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("C:\\n", "C:\\n"),
    ],
)
def test_what_moves_the_cursor_or_is_not_seen_is_escaped(text, shown):
    assert printable(text) == shown


def test_lines_of_a_message_after_the_first_are_indented():
    assert printable_lines("a\n  b\n\x1bc") == "a\n  b\n  \\x1bc"


def test_a_long_text_says_that_it_was_longer():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"


def test_what_no_database_takes_is_a_question_mark():
    assert storable("a\0b\ud83d\u00e9") == "a?b?\u00e9"


def test_what_an_error_says_can_be_stored():
    assert reason_of(ValueError("k\udce4se\0")) == "k?se?"


def test_an_error_that_says_nothing_is_known_by_its_kind():
    assert reason_of(MemoryError()) == "MemoryError"
    assert reason_of(ValueError("too wide")) == "too wide"
