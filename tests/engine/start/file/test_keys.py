"""On which line a key of a TOML file stands."""

import tomllib

from engine.start.file.keys import key_lines

TEXT = """\
# [not.a.table]
state_dir = "/x"   # a comment

[database]
url = "postgresql://h/d"
keep = { book = "14d", trade = "400d" }

[[streams]]
venue = "a"
symbols = [
  "A",  # "B"
  "B",
]

[[streams]]
venue = \"\"\"
[[streams]]
x = 1
\"\"\"

[databases.archive]
flush_rows = 5

[[databases.archive.routes]]
venue = "a"
[[databases.archive.routes]]
symbols = ["B"]
[log]
"level" = 'INFO'
"""


def test_each_key_has_the_line_on_which_it_begins() -> None:
    tomllib.loads(TEXT)
    lines = key_lines(TEXT)
    told = {key: TEXT.splitlines()[line - 1] for key, line in lines.items()}
    assert lines["state_dir"] == 2
    assert told["database"] == "[database]"
    assert told["database.url"].startswith("url")
    assert told["database.keep.trade"].startswith("keep = {")
    assert (lines["streams[0]"], lines["streams[1]"]) == (8, 15)
    assert told["streams[0].symbols[1]"] == "symbols = ["
    assert lines["streams[1].venue"] == 16
    assert told["databases.archive.flush_rows"] == "flush_rows = 5"
    assert lines["databases.archive.routes[0].venue"] == 25
    assert told["databases.archive.routes[1].symbols"] == 'symbols = ["B"]'
    assert told["log.level"] == "\"level\" = 'INFO'"
    assert not [key for key in lines if "not" in key]
