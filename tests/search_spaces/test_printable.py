import pytest

from search_spaces.errors import unwrapped
from search_spaces.printable import html, markdown, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é\n\ttext", "plain é\n\ttext"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("back\x08space\rover", r"back\x08space\rover"),
        ("half\ud800", r"half\ud800"),
    ],
)
def test_control_characters_are_shown_as_text(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_messages_of_others_have_no_control_characters() -> None:
    assert unwrapped("broken\x1b[31m\n  file") == r"broken\x1b[31m file"


def test_html_is_escaped() -> None:
    assert html("<img src='x' onerror=\"y\">&\x1b") == r"&lt;img src=&#x27;x&#x27; onerror=&quot;y&quot;&gt;&amp;\x1b"


@pytest.mark.parametrize("text", ["<script>x</script>", "![a](http://x)", "[a](javascript:x)", "a | b", "`c`", "# d"])
def test_markdown_has_no_markup(text: str) -> None:
    written = markdown(text)
    assert written.replace("\\", "") == text
    assert all(written[index - 1] == "\\" for index, one in enumerate(written) if one in "<[]!|`#")


def test_markdown_stays_in_its_line() -> None:
    assert markdown("a\n\n# b\r\nc") == r"a \# b c"
