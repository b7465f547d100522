"""How commands are read off a page: molecule/resources/pages.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pages
from pages import blocks, commands, find, told

PAGE = """# A page

    ansible-playbook playbooks/x.yml -i inventories/mine -e node_id=worker-1 --check  # only looks
    ansible-playbook playbooks/x.yml -i inventories/mine -e node_id=worker-1 \\
        -e 'more={"a": 1}'
    ansible-playbook site.yml -i inventories/mine

Text with `ansible-playbook playbooks/y.yml`.

- a list

      ansible-playbook playbooks/z.yml

```yaml
ansible-playbook playbooks/no.yml
```

```sh
/opt/bin/ansible-playbook playbooks/y.yml
localhost changed=1
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a.md").write_text(PAGE)
    monkeypatch.setattr(pages, "PROJECT", tmp_path)
    return "a.md"


def test_commands_are_read_and_nothing_else(page: str) -> None:
    found = commands(page)
    assert [one.playbook for one in found] == [
        *("playbooks/x.yml", "playbooks/x.yml", "site.yml", "playbooks/z.yml", "playbooks/y.yml"),
    ]
    one, two, *_ = found
    assert one.options == ("-e", "node_id=worker-1", "--check")
    assert one.inventories == ("inventories/mine",)
    assert two.options == ("-e", "node_id=worker-1", "-e", 'more={"a": 1}')
    assert two.variables == ("node_id", "more")


def test_the_shortest_that_has_the_words_is_taken(page: str) -> None:
    assert find(page, "playbooks/x.yml").options == ("-e", "node_id=worker-1", "--check")
    assert find(page, "playbooks/x.yml", "more").options[-1] == 'more={"a": 1}'
    assert told(page, "site.yml") == ("site.yml",)
    assert told(page, "playbooks/x.yml", "--check", node_id="b") == (
        *("playbooks/x.yml", "-e", "node_id=b", "--check"),
    )


def test_what_is_not_there_is_said(page: str) -> None:
    with pytest.raises(
        LookupError, match=r"a.md: found no command with playbooks/x.yml --diff, but:\n  a.md:3"
    ):
        told(page, "playbooks/x.yml", "--diff")
    with pytest.raises(LookupError, match="none"):
        told(page, "playbooks/w.yml")
    with pytest.raises(LookupError, match="sets no confirm"):
        told(page, "playbooks/x.yml", confirm="a")


@given(st.text(alphabet="a`- \n#|", max_size=200))
def test_any_text_has_blocks(text: str) -> None:
    for _, number, lines in blocks(text):
        whole = text.splitlines()
        assert all(line in whole[number - 1 + place] for place, line in enumerate(lines))
