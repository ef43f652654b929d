"""What the pages in docs/ show is run, each page on a server of its own; see documents.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import ROOT, RUN, blocks, run

# Begins with `make serve`, and is run by test_readme.py.
QUICKSTART = "quickstart.md"
PAGES = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != QUICKSTART)
# Of all pages together; each says why.
NOT_RUN_MAX = 6


@pytest.mark.parametrize("name", [name for name in PAGES if blocks(ROOT / "docs" / name)])
def test_a_page_does_what_it_says(own_server, tmp_path, name):
    folder = tmp_path / "work"
    folder.mkdir()
    run(ROOT / "docs" / name, own_server, folder)


# What the examples of a statement of the parser begin with, by the name that it has there.
EXAMPLES = {
    "Query": ["SELECT", "VALUES", "TABLE", "WITH"],
    "Describe": ["DESCRIBE"],
    "FlushTable": ["STORAGE FLUSH TABLE"],
    "FlushAll": ["STORAGE FLUSH ALL"],
    "CompactTable": ["STORAGE COMPACT TABLE"],
    "CheckTable": ["STORAGE CHECK TABLE"],
    "CreateTable": ["CREATE TABLE", "CREATE USER TABLE", "CREATE STREAM TABLE", "CREATE TEMPORARY TABLE"],
    "CreateTableAs": ["CREATE OR REPLACE TEMPORARY TABLE high AS SELECT"],
    "ShowSetting": ["SHOW ALL", "SHOW timezone"],
    "UseNamespace": ["USE", "SET schema"],
    "Set": ["SET", "RESET"],
    "Transaction": ["BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "SAVEPOINT", "ROLLBACK TO", "RELEASE", "SET TRANSACTION"],
}  # fmt: skip


def test_every_statement_has_an_example():
    source = (ROOT / "engine" / "src" / "sql" / "statement.rs").read_text()
    body = source.split("pub(crate) enum Statement {", 1)[1].split("\n}\n", 1)[0]
    statements = re.findall(r"^    ([A-Z]\w+)", body, re.M)
    assert len(statements) > 30
    run = [block.text for block in blocks(ROOT / "docs" / "sql.md") if block.language == "sql"]
    lines = [line for text in run for line in text.splitlines()]
    for statement in statements:
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", statement).upper()
        for begin in EXAMPLES.get(statement, [words]):
            assert any(line.startswith(begin) for line in lines), f"{statement}: no example begins with {begin}"


def test_few_blocks_are_not_run():
    every = [block for name in PAGES for block in blocks(ROOT / "docs" / name)]
    not_run = [block for block in every if block.marker.startswith("not run")]
    assert len(every) > 60 and len(not_run) <= NOT_RUN_MAX, [block.text for block in not_run]


def test_every_block_is_of_a_known_kind():
    """One without a language, or with another name for the same, would be run by nobody."""
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        opening = True
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                language = line[3:].split(",")[0]
                known = (*RUN, "text", "json", "go", "rust", *(["bash"] if page.name in ("README.md", QUICKSTART) else []))
                assert not opening or language in known, f"{page.name}: {line}"
                opening = not opening
        assert opening, f"{page.name}: a block without end"


def test_a_planted_mistake_is_found(own_server, tmp_path):
    for number, (page, text) in enumerate(
        [
            ("```sql\nSELECT 1 AS a;\n```\n\n```text\n+---+\n| b |\n```\n", "prints"),
            ("```sql\nSELECT nothing;\n```\n", "nothing"),
            ("<!-- refused: something else -->\n```sql\nSELECT nothing;\n```\n", "nothing"),
            ("<!-- refused: 1 -->\n```sql\nSELECT 1;\n```\n", "SELECT 1"),
            ("```sh\nfalse; true\n```\n", "false"),
            ("```toml\n[server]\nlisten = 5\n```\n", "listen"),
            ("<!-- not run -->\n```sh\ntrue\n```\n", "nobody says why"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = Path(folder / "page.md")
        path.write_text(page)
        with pytest.raises(AssertionError, match=text):
            run(path, own_server, folder)
