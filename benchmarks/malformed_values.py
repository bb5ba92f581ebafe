"""Values and texts that hardly any place expects, for `benchmarks/malformed.py`."""

from typing import Any

CANARY = "ran-code.txt"
"""File that exists only if text of an input was executed."""

CODE = f"open('{CANARY}', 'w').close()"
SHELL = f"touch {CANARY}"
"""Python and shell code that makes this file."""

ADDRESSES = (
    "postgresql://me@127.0.0.1:9/nas",
    "postgresql+psycopg://me@/nas?host=127.0.0.1&port=9",
    "http://127.0.0.1:9/mlflow",
    "sqlite:///../../outside/trials.db",
    "sqlite:///../../outside/none.db",
    "file:///etc",
    "databricks",
)
"""Addresses of a database or of MLflow that nobody has named: nothing may connect to them, or be made there."""

SCALARS: tuple[Any, ...] = (
    *ADDRESSES,
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    10**9,
    10**17,
    -(10**17),
    10**30,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    5e-324,
    "",
    " ",
    "x" * 5000,
    "a\x00b",
    "\x1b[31mred\x1b]0;title\x07",
    "one\ntwo\rthree",
    "\u202etxt.exe",
    "é\N{COMBINING ACUTE ACCENT}",
    "\N{ARABIC-INDIC DIGIT ONE}\N{ARABIC-INDIC DIGIT TWO}",
    "../../../outside/stranger",
    "/etc/passwd",
    "/dev/zero",
    "~/x",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.yaml",
    "https://example.com/a.pt",
    f"ssh://-oProxyCommand={SHELL}/torch",
    f"__import__('os').system('{SHELL}')",
    f"[{CODE}, nn.ReLU()][1]",
    f"$({SHELL})",
    f"; {SHELL} #",
    "{0.__class__.__mro__}",
    "%s%n%(x)s",
    "[b]bold[/b]",
    "[/red]",
    "[link=http://127.0.0.1:9]x[/link]",
    "<script>alert(1)</script>",
    "| a | b |\n|---|---|",
    "=1+1",
    "-1",
    "1e-3",
    "nan",
    "2026-13-45",
    "yes",
    "None",
    "nn.Module",
    "torch.load",
    "__class__",
)
"""Values that a file or a command line may hold in any place."""

CONTAINERS: tuple[Any, ...] = (
    [],
    {},
    [[]],
    [None],
    [1, 2, 3],
    ["a", 1, None],
    {"a": {}},
    {"": ""},
    {"__class__": "x"},
    list(range(3000)),
    {str(number): number for number in range(500)},
)

TEXTS: tuple[str, ...] = (
    "",
    "\n \n",
    "---\n---\n",
    "a: 1\n---\nb: 2\n",
    "\tname: x\n",
    "[" * 100_000,
    "{" * 5_000,
    "- " * 3_000 + "x",
    "&a [*a]",
    "a: &a {b: *a}\n",
    "\n".join(
        ["a: &a0 [x, x, x, x, x, x, x, x, x]", *(f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(10))]
    ),
    f"!!python/object/apply:os.system ['{SHELL}']\n",
    f'name: !!python/object/apply:builtins.eval ["{CODE}"]\n',
    "name: !!python/name:os.system\nx: !!python/module:os\n",
    "name: !!binary aGVsbG8=\nx: !!set {a, b}\ny: !!omap [a: 1]\nz: !!timestamp 2026-13-45\n",
    "name: !unknown {a: 1}\n",
    "<<: {a: 1}\n<<: *nowhere\n",
    "? [a, b]\n: c\n? {d: e}\n: f\n",
    "1: a\n1.0: b\ntrue: c\nnull: d\n2026-01-01: e\n",
    "name: " + "9" * 10_000,
    "name: 1:59:59:59:59\nx: 0o777\ny: 0xFFFFFFFFFFFFFFFFFFFF\nz: 1_000__000\n",
    '{"name": ' * 2_000,
    '{"a": 1, "a": 2}',
    '{"a": NaN, "b": Infinity, "c": -1e999}',
    "\ufeff\ufeffname: x\n",
    "%YAML 9.9\n---\nname: x\n",
    "a,b,c\n1,2\n",
    '"' * 1001,
    "=cmd|' /C calc'!A0,1\n",
    "\x1b[2J\x1b]8;;http://127.0.0.1:9\x07x\n",
)
"""Texts that replace the whole content of a file."""
