"""The quickstart's manifests compile; the state file keeps what was generated, for its owner only."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sternpost_mail.config import Certificate, Credential, Domain, build_config
from sternpost_mail.route import Action, RelayRule, TlsDemand
from sternpost_operator.build import compile_directory
from sternpost_operator.hashing import still_fits
from sternpost_operator.state import State, StateError, load_state, save_state
from tests.unit.operator.samples import KEYS

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_quickstart_compiles_to_one_domain_two_credentials_a_rule_and_a_certificate() -> None:
    result = compile_directory(QUICKSTART, {"STERNPOST_SINK_SMTP_PORT": "12526"}, State(), KEYS, now=NOW)
    assert result.errors == ()
    assert [type(resource) for resource in result.resources] == [Certificate, Credential, Credential, Domain, RelayRule]
    config = build_config(result.resources, 1, "sternpost")
    assert config.tenant_of("example.test") == "sternpost"
    (rule,) = config.rules_of("sternpost")
    assert rule.action is Action.SMART_HOST
    assert rule.allow_forbidden_addresses
    (host,) = rule.smart_hosts
    assert (host.host, host.port, host.tls) == ("127.0.0.1", 12526, TlsDemand.DISABLED)
    smtp = result.generated["sternpost", "quickstart-smtp"]
    assert still_fits(config.credentials[smtp["username"]].secret_hash, smtp["password"])
    assert result.generated["sternpost", "quickstart-api"]["apiKey"].startswith("sp_")


def test_without_a_variable_the_sink_is_on_its_usual_port() -> None:
    result = compile_directory(QUICKSTART, {}, State(), KEYS, now=NOW)
    (rule,) = (resource for resource in result.resources if isinstance(resource, RelayRule))
    assert rule.smart_hosts[0].port == 2526


def test_a_second_start_with_the_saved_state_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "compiler.json"
    first = compile_directory(QUICKSTART, {}, load_state(path), KEYS, now=NOW)
    save_state(path, first.state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["compiler.json"]
    second = compile_directory(QUICKSTART, {}, load_state(path), KEYS, now=NOW)
    assert second.resources == first.resources
    assert second.generated == first.generated
    assert second.state == first.state


def test_a_mistake_in_any_file_leaves_everything_as_it_is(tmp_path: Path) -> None:
    for file in QUICKSTART.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "domain.yaml").write_text("kind: Domain")
    (tmp_path / "zz.yaml").write_text("a: [")
    state = State()
    result = compile_directory(tmp_path, {}, state, KEYS, now=NOW)
    assert (result.resources, result.generated, result.state) == ((), {}, state)
    assert [Path(error.origin.file).name for error in result.errors] == ["zz.yaml"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_a_broken_state_file_is_never_replaced_silently(tmp_path: Path, content: str) -> None:
    path = tmp_path / "compiler.json"
    path.write_text(content)
    with pytest.raises(StateError, match=r"compiler\.json"):
        load_state(path)
    assert path.read_text() == content
