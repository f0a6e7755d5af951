"""Manifests from a directory of YAML files: bounded, in one order everywhere, with their place for messages.

This file knows YAML and placeholders, not what a Domain is. `${NAME}` and `${NAME:-default}` stand for values that the
caller gives; they are put into single values after the YAML was parsed, so a value can never add fields.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sternpost_operator.problems import ManifestError, Origin, Problem

MAX_FILES = 1_000
"""Files in one directory; more is a mistake in the path."""
MAX_FILE_OCTETS = 1024 * 1024
"""Kubernetes itself refuses objects above about 1.5 MiB."""
MAX_DOCUMENTS = 20_000
MAX_DEPTH = 32
"""Nesting of one document; ours need six. The parser recurses, so it must be bounded before it."""
SUFFIXES = frozenset({".yaml", ".yml"})

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_NAMED = re.compile(r"([A-Z][A-Z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document that is not empty."""

    origin: Origin
    content: object


def load(directory: Path, variables: Mapping[str, str]) -> list[Document]:
    """Every document of the directory's `*.yaml` and `*.yml` files, by file name and then in the file's order.

    Subdirectories are not entered. `variables` is the list of placeholders that may be used: one that is neither there
    nor has a default is a problem. Raises ManifestError with every problem of every file; nothing is returned then.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        files = sorted(
            path for path in directory.iterdir() if path.suffix in SUFFIXES and not path.name.startswith(".")
        )
    except OSError as error:
        raise ManifestError([Problem(Origin(str(directory)), "", "", f"cannot be read: {error.strerror}")]) from error
    if len(files) > MAX_FILES:
        raise ManifestError(
            [Problem(Origin(str(directory)), "", "", f"has {len(files)} files; at most {MAX_FILES} are read")]
        )
    for path in files:
        try:
            documents += load_text(_read(path), str(path), variables)
        except ManifestError as error:
            problems += error.problems
        if len(documents) > MAX_DOCUMENTS:
            raise _refused(str(directory), 0, f"has more than {MAX_DOCUMENTS} documents")
    if problems:
        raise ManifestError(problems)
    return documents


def load_text(text: str, file: str, variables: Mapping[str, str]) -> list[Document]:
    """The documents of one file's text. Raises ManifestError."""
    documents: list[Document] = []
    loader = _Loader(text, variables)
    number = 0
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it open
            number += 1
            content = loader.get_data()
            if content is not None:
                documents.append(Document(Origin(file, number), content))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise _refused(file, max(number, 1), f"{line}{error.problem or 'is not valid YAML'}") from error
    except (yaml.YAMLError, ValueError) as error:
        # A scalar such as an impossible date raises ValueError; its text could repeat the value.
        raise _refused(file, max(number, 1), "is not valid YAML") from error
    finally:
        loader.dispose()
    return documents


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE_OCTETS + 1)
        if len(octets) > MAX_FILE_OCTETS:
            raise _refused(str(path), 0, f"is larger than {MAX_FILE_OCTETS // 1024} KiB; split it")
        return octets.decode("utf-8")
    except OSError as error:
        raise _refused(str(path), 0, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _refused(str(path), 0, f"is not UTF-8 (octet {error.start})") from error


def _refused(file: str, document: int, text: str) -> ManifestError:
    return ManifestError([Problem(Origin(file, document), "", "", text)])


class _Invalid(yaml.MarkedYAMLError):
    """A rule of ours that a document breaks, at its line."""

    def __init__(self, text: str, mark: Any) -> None:
        super().__init__(problem=text, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what hides mistakes (duplicate keys) or multiplies (aliases), and fills placeholders."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        super().__init__(text)
        self._variables = variables
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it open
        if isinstance(event, yaml.AliasEvent):
            raise _Invalid("aliases (*name) are not supported; write it out", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Invalid(f"is nested deeper than {MAX_DEPTH}", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        # A mapping's key comes with the mapping as its parent and no index; keys are never filled.
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        if isinstance(node, yaml.ScalarNode) and not is_key and "${" in node.value:
            self._fill(node)
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        return node

    def _fill(self, node: yaml.ScalarNode) -> None:
        is_plain = node.style is None and node.tag == "tag:yaml.org,2002:str"
        node.value = _PLACEHOLDER.sub(lambda found: self._value(found.group(1), node), node.value)
        if is_plain:
            # A plain `port: ${PORT}` is the number that stands there in the end; a quoted one stays text.
            node.tag = self.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]

    def _value(self, inside: str, node: yaml.ScalarNode) -> str:
        named = _NAMED.fullmatch(inside)
        if named is None:
            text = "a placeholder is ${NAME} or ${NAME:-default}, NAME in capitals, digits and underscores"
            raise _Invalid(text, node.start_mark)
        name, default = named.group(1), named.group(2)
        value = self._variables.get(name)
        if not value and default is not None:
            return str(default)
        if value is None:
            known = ", ".join(sorted(self._variables)) or "none"
            raise _Invalid(f"${{{name}}} is not known here and has no default (known: {known})", node.start_mark)
        return value


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise _Invalid("a field's name must be text", key.start_mark)
        if key.value in seen:
            raise _Invalid(f"field {key.value!r} stands twice", key.start_mark)
        seen.add(key.value)
