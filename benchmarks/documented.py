"""Commands that README.md and the pages of docs/ print; `benchmarks/docs.py` and the tests run them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

PLACEHOLDERS = {
    "STUDY": "v9t-my",
    "A": "v9t-my",
    "B": "v9t-my2",
    "FILE": "mine.yaml",
    "MODEL.yaml": "article.yaml",
    "NAME": "UIB",
    "N": "1",
}
"""Values of placeholders in commands."""

RUN, SHELL = ("",), ("", "bash")
"""Languages of blocks whose commands are run, and of all blocks with commands. Those marked as bash need what no test
has: several machines, GPUs, a network."""


def pages() -> list[str]:
    """Return the pages, relative to the project."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", "CONTRIBUTING.md", *found]


def commands(page: str, languages: Sequence[str] = RUN) -> Iterator[str]:
    """Yield the commands of a page: lines of its blocks, Python blocks as `python -c`, commands in sentences."""
    for line in _lines(page, languages):
        is_program = "\n" in line  # of which Python reads the comments
        command = line if is_program else line.removeprefix("$ ").partition("  #")[0].partition(" # ")[0].strip()
        if re.match(r"(nas|python|make search)\b", command) and not re.match(r"nas\s{2,}", command):
            yield command


def _lines(page: str, languages: Sequence[str]) -> Iterator[str]:
    for block in re.split(r"(^```.*?^```)", page, flags=re.DOTALL | re.MULTILINE):
        if not block.startswith("```"):
            yield from (one for one in re.findall(r"`(nas [^`]+)`", block.replace("\n", " ")) if _is_whole(one))
            continue
        language, _, text = block.strip("`").partition("\n")
        if language == "python" and "import nas" in text:
            yield f"python -c {shlex.quote(text)}"
        yield from text.replace("\\\n", " ").splitlines() if language in languages else ()


def _is_whole(command: str) -> bool:
    """Return whether a command in a sentence can be run: it has its arguments and no ellipsis."""
    words = command.split()
    return "..." not in command and any(len(words) > 3 or word in PLACEHOLDERS or "." in word for word in words[2:])


def filled(command: str) -> str:
    """Return a command with values in place of the placeholders."""
    for placeholder, meant in PLACEHOLDERS.items():
        command = re.sub(rf"\b{re.escape(placeholder)}(?![\w.])", meant, command)
    return command


def with_study(command: str) -> str:
    """Return a command with a study, or the plan of a search, which sentences leave out: `nas confirm --seeds 10`."""
    if re.match(r"nas search(?!.*(--space|--refine|--help))", command):
        of_space = "" if "--stock-only" in command else " --space v9 --data my/data.yaml"
        return f"{command}{of_space} --dry-run"
    named = re.match(r"nas (confirm|export|pareto|trials)(?= --(?!help))", command)
    return command if named is None else f"{named[0]} v9t-my{command[named.end() :]}"


def invocations(command: str) -> Iterator[list[str]]:
    """Yield the arguments of each `nas` in a line of a shell, without redirections and variables before it."""
    parts: list[list[str]] = [[]]
    words = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    words.whitespace_split = True
    for word in words:
        if set(word) <= set("|&;"):
            parts.append([])
        elif set(word) <= set("<>"):
            next(words, None)
        else:
            parts[-1].append(word)
    for part in parts:
        while part and re.match(r"[A-Z_]+=", part[0]):
            part.pop(0)
        if part[:1] == ["nas"]:
            yield part[1:]


def flags_in_comments(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of blocks whose comments name further flags in parentheses, with these flags."""
    for line in _lines(page, SHELL):
        command, _, comment = line.removeprefix("$ ").partition("  #")
        found = re.findall(r"(?<=[( ])--[a-z][a-z-]+", " ".join(re.findall(r"\(([^)]*)\)", comment)))
        if command.startswith("nas ") and found:
            yield command.strip(), found
