"""Reading directories of YAML: order, bounds, placeholders, mistakes that YAML would hide."""

from pathlib import Path

import pytest

from sternpost_operator.load import MAX_FILE_OCTETS, load, load_text
from sternpost_operator.problems import ManifestError


def one(text: str, **variables: str) -> object:
    (document,) = load_text(text, "f.yaml", variables)
    return document.content


@pytest.mark.parametrize(
    ("text", "variables", "value"),
    [
        ("port: ${PORT:-2526}", {}, 2526),
        ("port: ${PORT:-2526}", {"PORT": "99"}, 99),
        ("port: ${PORT:-2526}", {"PORT": ""}, 2526),
        ("port: '${PORT}'", {"PORT": "99"}, "99"),
        ("port: a${PORT}b${PORT}", {"PORT": "9"}, "a9b9"),
        ("port: ${PORT}", {"PORT": "x\nadmin: true"}, "x\nadmin: true"),
        ("port: $PORT", {"PORT": "9"}, "$PORT"),
    ],
)
def test_placeholders(text: str, variables: dict[str, str], value: object) -> None:
    assert one(text, **variables) == {"port": value}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: ${HOME}", "${HOME} is not known here and has no default (known: PORT)"),
        ("a: ${port}", "a placeholder is ${NAME}"),
        ("a: ${PORT:?x}", "a placeholder is ${NAME}"),
        ("a: 1\na: 2", "line 2: field 'a' stands twice"),
        ("a: &x [1]\nb: *x", "aliases (*name) are not supported"),
        ("1: x", "a field's name must be text"),
        ("a: [", "line 1"),
        ("a: !!python/object:os.system {}", "line 1"),
        ("a: 2026-99-99", "is not valid YAML"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper than 32"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_text(text, "f.yaml", {"PORT": "1"})
    assert says in str(caught.value)
    assert str(caught.value).startswith("f.yaml, document 1: ")


def test_a_mistake_names_the_document(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n---\nb: 2\n---\nc: 3\nc: 4\n")
    with pytest.raises(ManifestError, match="document 3: line 6"):
        load(tmp_path, {})


def test_files_come_by_name_and_others_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("n: 2")
    (tmp_path / "a.yaml").write_text("---\n---\nn: 0\n---\nn: 1\n")
    (tmp_path / ".hidden.yaml").write_text("n: [")
    (tmp_path / "readme.md").write_text("n: [")
    found = load(tmp_path, {})
    assert [document.content for document in found] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [document.origin.document for document in found] == [2, 3, 1]


def test_problems_of_all_files_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_bytes(b"a: \xff")
    (tmp_path / "c.yaml").write_text("# " + "x" * MAX_FILE_OCTETS)
    with pytest.raises(ManifestError) as caught:
        load(tmp_path, {})
    texts = [str(problem) for problem in caught.value.problems]
    assert [Path(problem.origin.file).name for problem in caught.value.problems] == ["a.yaml", "b.yaml", "c.yaml"]
    assert "is not UTF-8 (octet 3)" in texts[1]
    assert "larger than 1024 KiB" in texts[2]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        load(tmp_path / "none", {})
