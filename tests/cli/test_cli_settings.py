"""server.toml and the flags of `tensorwire serve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tensorwire.manager import ManagerConfig
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.server import ServingConfig
from tensorwire.server.settings import (
    RESTART_KEYS,
    SECTIONS,
    Override,
    Settings,
    applicable,
    assignment,
    changes,
    flat,
    load_settings,
    parse_size,
)

REPO = Override("manager.repository", "/models", "REPO")
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "server.toml"
        path.write_text(text)
        return path

    return write


def test_without_a_file_everything_has_its_default() -> None:
    assert load_settings(None, [REPO]) == Settings(
        manager=ManagerConfig(repository=Path("/models")), serving=ServingConfig()
    )


def test_every_section_is_read(write: Write) -> None:
    settings = load_settings(
        write(
            """
            [serving]
            bind = "ipc:///run/tensorwire.sock"
            max_queued_bytes = "512 MiB"
            grace = 3
            [manager]
            repository = "models"
            ram_budget = "4GiB"
            remove_missing = true
            [log]
            level = "warning"
            """
        )
    )
    assert settings.serving == ServingConfig(
        bind="ipc:///run/tensorwire.sock", max_queued_bytes=512 << 20, grace=3.0
    )
    assert settings.manager.ram_budget == 4 << 30
    assert settings.manager.remove_missing
    assert settings.log.level == "warning"


def test_a_relative_repository_is_beside_the_file(write: Write, tmp_path: Path) -> None:
    assert load_settings(write('[manager]\nrepository = "models"')).manager.repository == tmp_path / "models"


def test_flags_go_before_the_file(write: Write) -> None:
    path = write('[serving]\ngrace = 3\n[manager]\nrepository = "a"\nram_budget = "1GiB"')
    settings = load_settings(
        path,
        [
            REPO,
            Override("manager.ram_budget", "none", "--ram-budget"),
            assignment("serving.bind=tcp://[::1]:1"),
        ],
    )
    assert settings.manager.repository == Path("/models")
    assert settings.manager.ram_budget is None
    assert settings.serving.grace == 3
    assert settings.serving.bind == "tcp://[::1]:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[servin]", "servin: unknown key (did you mean 'serving'?); known keys are log, manager, serving"),
        ("[serving]\nbnd = 1", "serving.bnd: unknown key (did you mean 'bind'?)"),
        ('[serving]\nbind = "0.0.0.0:1"', "serving.bind: found '0.0.0.0:1'; expected tcp://HOST:PORT or ipc"),
        ('[serving]\nbind = "tcp://a:70000"', "serving.bind: found 'tcp://a:70000'; expected tcp"),
        ("[serving]\nbind = 8700", "serving.bind: found 8700; expected a string"),
        ("[serving]\ngrace = nan", "serving.grace: found nan; expected a finite number"),
        ("[serving]\ngrace = -1", "serving.grace: found -1; expected a number >= 0 and <= 3600"),
        ("[serving]\nmax_in_flight = true", "serving.max_in_flight: found True; expected an integer >= 1"),
        ('[manager]\nram_budget = "4 pounds"', "manager.ram_budget: found '4 pounds'; expected bytes as"),
        ('[manager]\nram_budget = "0B"', "manager.ram_budget: found 0; expected an integer > 0"),
        ("[manager]\nrepository = 3", "manager.repository: found 3; expected the path of a directory"),
        ("[manager]\npoll_interval = 0", "manager.poll_interval: found 0; expected a number > 0"),
        ('[log]\nlevel = "loud"', "log.level: found 'loud'; expected one of "),
        ("manager = 3", "manager: found 3; expected a table with the keys repository, "),
        ("[x", "not valid TOML: "),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_what_is_allowed(
    write: Write, text: str, message: str
) -> None:
    path = write(text)
    with pytest.raises(InvalidArgumentError) as caught:
        load_settings(path, [REPO])
    assert caught.value.message.startswith(f"{path}: {message}")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (Override("serving.grace", -1.0, "--grace"), "--grace: serving.grace: found -1.0; expected a number"),
        (
            assignment("serving.max_in_flight=x"),
            "--set: serving.max_in_flight: found 'x'; expected an integer",
        ),
        (assignment("srving.grace=1"), "--set: srving: unknown key (did you mean 'serving'?)"),
        (assignment("serving.grce=1"), "--set: serving.grce: unknown key (did you mean 'grace'?)"),
        (
            Override("manager.ram_budget", "much", "--ram-budget"),
            "--ram-budget: manager.ram_budget: found 'much'",
        ),
    ],
)
def test_a_wrong_flag_is_named(override: Override, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load_settings(None, [REPO, override])
    assert caught.value.message.startswith(message)


def test_a_repository_must_be_named(write: Write) -> None:
    with pytest.raises(InvalidArgumentError, match=r"give it as the argument REPO$"):
        load_settings(None)
    with pytest.raises(InvalidArgumentError, match=r"or as `repository` in \[manager\]"):
        load_settings(write(""))


def test_a_file_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"server\.toml: no such configuration file"):
        load_settings(tmp_path / "server.toml", [REPO])


def test_an_assignment_needs_a_value() -> None:
    with pytest.raises(InvalidArgumentError, match=r"expected SECTION\.KEY=VALUE"):
        assignment("serving.grace")
    assert assignment('serving.bind = "ipc://x"') == Override("serving.bind", "ipc://x", "--set")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7", 7),
        ("7B", 7),
        ("1kB", 1000),
        ("1 KiB", 1024),
        ("1.5GiB", 3 << 29),
        ("2Mi", 2 << 20),
        ("1tb", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("key", text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4G", "1e9", "4 GiBs"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="'512MiB' or '4GiB'"):
        parse_size("key", text)


def test_changes_tell_what_needs_a_restart() -> None:
    old = load_settings(None, [REPO])
    new = load_settings(None, [REPO, assignment("serving.bind=tcp://a:1"), assignment("serving.grace=1")])
    assert [str(change) for change in changes(old, new) if change.restart] == [
        "serving.bind: tcp://127.0.0.1:8700 -> tcp://a:1"
    ]
    applied = applicable(old, new)
    assert applied.serving == msgspec.structs.replace(old.serving, grace=1.0)
    assert changes(old, old) == []


def test_every_key_is_known_to_both_ways_in() -> None:
    keys = set(flat(load_settings(None, [REPO])))
    assert keys == {f"{name}.{field}" for name, cls in SECTIONS.items() for field in cls.__struct_fields__}
    assert keys >= RESTART_KEYS


def test_every_key_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [key for key in flat(load_settings(None, [REPO])) if f"`{key}`" not in text] == []
