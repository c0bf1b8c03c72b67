"""What holds for every command: where output goes, errors and exit codes, colours, start-up, completion."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest
from cli_session import type_command

from adapterhub import errors
from adapterhub.cli import list as list_command
from adapterhub.cli.application import COMMANDS, PROGRAM, application
from adapterhub.cli.help import TOPICS, exit_codes

pytestmark = pytest.mark.usefixtures("clean")

COMMAND = [sys.executable, "-m", "adapterhub.cli"]


def commands(
    group: click.Command = application, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that is no group, with the words that call it."""
    if not isinstance(group, click.Group):
        yield words, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, (*words, name))


ALL = dict(commands())
ERRORS = [
    errors.AdapterHubError("it failed", hint="try again"),
    errors.UsageError("it failed", hint="try again"),
    errors.NotFoundError("it failed", hint="try again"),
    errors.AuthenticationError("it failed", hint="try again"),
    errors.DigestError("it", expected="sha256:0", actual="sha256:1"),
    errors.FormatError("it failed", faults=["a", "b"], hint="try again"),
    errors.BaseMismatchError("it failed", hint="try again"),
    errors.SchemaError("it", ["a: is wrong"]),
    errors.UnsupportedError("it failed", hint="try again"),
    errors.OfflineError("it failed", hint="try again"),
    errors.StateError("it failed"),
]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `adapterhub list` raise."""

    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(list_command, "print_entries", fail)


# Help


def test_help_loads_click_and_nothing_else() -> None:
    code = (
        "import click, sys; before = set(sys.modules)\n"
        "import adapterhub.cli.application as a; a.run(['--help'])\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = {name for name in done.stderr.split() if not name.startswith("adapterhub")}
    assert others <= {
        "_locale",
        "click._textwrap",
        "locale",
        "shutil",
        "textwrap",
        "bz2",
        "lzma",
        "zlib",
        "fnmatch",
        "_bz2",
        "_lzma",
        "_compression",
        "pwd",
        "grp",
    }
    own = {name for name in done.stderr.split() if name.startswith("adapterhub.")}
    assert own == {
        "adapterhub.cli",
        "adapterhub.cli.application",
        "adapterhub.cli.command",
        "adapterhub.cli.output",
        "adapterhub.errors",
    }


def test_help_lists_every_command_with_the_text_of_the_command_itself() -> None:
    context = click.Context(application)
    for name, text in COMMANDS.items():
        command = application.get_command(context, name)
        assert command is not None
        assert command.short_help == text
        assert re.search(rf"^  {name} +{re.escape(text)}$", type_command("--help").out, re.MULTILINE), name


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_json_quiet_and_help_and_explains_its_options(words: tuple[str, ...]) -> None:
    options = {name: option for option in ALL[words].params for name in option.opts}
    assert {"--json", "--quiet", "-q"} <= options.keys()
    assert all(option.help for option in options.values() if isinstance(option, click.Option))
    typed = type_command(*words, "-h")
    assert (typed.status, typed.err) == (0, "")
    assert typed.out == type_command("help", *words).out
    assert typed.out.startswith(f"Usage: {' '.join([PROGRAM, *words])} ")


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"adapterhub \d+\.\d+\.\d+\S*\n", type_command("--version").out)


def test_without_a_command_the_help_is_printed_and_the_status_is_that_of_wrong_usage() -> None:
    typed = type_command()
    assert (typed.status, typed.out) == (2, "")
    assert typed.err.startswith("Usage: adapterhub ")
    assert type_command("index").status == 2


def test_an_index_command_alone_explains_itself_as_json_too() -> None:
    typed = type_command("index", "add", "--json")
    assert (typed.status, typed.error["code"]) == (2, "E_USAGE")


def test_the_exit_codes_are_those_of_the_error_classes() -> None:
    listed = {code for _, codes, _ in exit_codes() for code in codes}
    assert listed >= {type(error).code for error in ERRORS}
    assert [status for status, _, _ in exit_codes()] == [0, 1, 2, 3, 4, 5, 6, 7, 130, 141]
    typed = type_command("help", "exit-codes")
    assert (
        "5    what was read is not what it claims to be (E_INTEGRITY, E_DIGEST, E_FORMAT, E_BASE_MISMATCH)\n"
        in typed.out
    )


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_are_explained(topic: str) -> None:
    assert type_command("help", topic).status == 0
    assert type_command("help", topic, "--json").json["ok"] is True


def test_an_unknown_topic_proposes_the_nearest() -> None:
    typed = type_command("help", "exit-code")
    assert (typed.status, typed.err) == (
        2,
        "error: there is no command or topic 'exit-code'\n  hint: did you mean exit-codes?\n",
    )


# Errors


def test_an_unknown_command_proposes_the_nearest() -> None:
    typed = type_command("pul")
    assert (typed.status, typed.out) == (2, "")
    assert typed.err == "error: no such command 'pul'\n  hint: did you mean pull?\n"


def test_an_unknown_option_proposes_the_nearest() -> None:
    typed = type_command("list", "--registri", "x")
    assert typed.err == "error: no such option '--registri'\n  hint: did you mean --registry?\n"


def test_a_missing_argument_says_where_help_is() -> None:
    typed = type_command("pull")
    assert typed.err == "error: missing argument 'ADAPTER'\n  hint: see `adapterhub pull --help`\n"


@pytest.mark.parametrize("arguments", [["--json", "nonsense"], ["pull", "--json"], ["list", "--nonsense", "--json"]])
def test_wrong_usage_is_json_where_json_is_asked_for(arguments: list[str]) -> None:
    typed = type_command(*arguments)
    assert (typed.status, typed.error["code"], typed.err) == (2, "E_USAGE", "")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_one_line_and_a_hint_on_stderr(
    monkeypatch: pytest.MonkeyPatch, error: errors.AdapterHubError
) -> None:
    failing(monkeypatch, error)
    typed = type_command("list")
    hint = f"  hint: {error.hint}\n" if error.hint else ""
    assert (typed.status, typed.out, typed.err) == (error.exit_code, "", f"error: {error.message}\n{hint}")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_one_object_on_stdout_with_json(
    monkeypatch: pytest.MonkeyPatch, error: errors.AdapterHubError
) -> None:
    failing(monkeypatch, error)
    typed = type_command("list", "--json")
    assert (typed.status, typed.err) == (error.exit_code, "")
    assert typed.error == {"code": error.code, "message": error.message, "hint": error.hint}
    assert typed.out.count("\n") == 1


def test_what_nobody_foresaw_is_one_line_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyError("x"))
    typed = type_command("list")
    assert typed.status == 1
    assert typed.err == "error: internal error: KeyError: 'x'\n  hint: set ADAPTERHUB_DEBUG=1 to see where\n"
    assert type_command("list", "--json").error["code"] == "E_INTERNAL"


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERHUB_DEBUG", "1")
    failing(monkeypatch, errors.StateError("it failed"))
    typed = type_command("list")
    assert typed.err.startswith("Traceback (most recent call last):\n")
    assert typed.err.endswith("error: it failed\n")


def test_an_error_of_the_system_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, PermissionError(13, "Permission denied", "/root/secret"))
    typed = type_command("list")
    assert (typed.status, typed.err) == (1, "error: '/root/secret': Permission denied\n")


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    typed = type_command("list")
    assert (typed.status, typed.err.strip()) == (130, "error: interrupted")
    assert type_command("list", "--json").error["code"] == "E_INTERRUPTED"


def test_the_warnings_of_libraries_are_kept_from_people(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    monkeypatch.setattr(
        list_command, "print_entries", lambda *_: warnings.warn("old", DeprecationWarning, stacklevel=1)
    )
    assert type_command("list").err.endswith("is empty\n") or type_command("list").err == ""
    assert "old" not in type_command("list").err


# Real processes and terminals


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def test_a_real_process_ends_with_130_after_a_signal(registry: Path, base: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny-reviews", "--base", str(base), "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever starts the tests in the background of a shell has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("the film was superb\n")
    process.stdin.flush()
    assert "the film was superb" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "error: interrupted")


def test_a_closed_pipe_ends_quietly() -> None:
    process = subprocess.Popen([*COMMAND, "help", "exit-codes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_an_encoding_without_our_characters_is_no_reason_to_fail() -> None:
    done = subprocess.run(
        [*COMMAND, "train", "--help"], capture_output=True, env=environment(PYTHONIOENCODING="latin-1"), check=True
    )
    assert b"A,B,?" in done.stdout


def on_a_terminal(*arguments: str, **more: str) -> str:
    """Return what a command prints on a terminal of 80 columns."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environment(**{"COLUMNS": "80", "TERM": "xterm", **more}),
    )
    os.close(side)
    seen = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    process.wait(timeout=60)
    return seen.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_fitting_lines() -> None:
    assert on_a_terminal("pull", "nosuch").startswith("\x1b[31m\x1b[1merror:\x1b[0m ")
    assert max(map(len, on_a_terminal("help", "exit-codes").splitlines())) <= 80


def test_a_line_shows_how_far_a_large_index_is_prepared(clean: None, tmp_path: Path) -> None:
    artifact = {"base": {"id": "a/b", "architecture": "bert"}, "method": "seq_bn", "format": "native", "url": "a"}
    files = [{"path": "x", "digest": f"sha256:{'0' * 64}", "size": 1}]
    release = {"published": "2026-01-01", "artifacts": [{**artifact, "files": files}]}
    entry = {"summary": "x" * 500, "versions": {"1.0.0": release}}
    document = {"format": 1, "adapters": {f"adapter-{i}": entry for i in range(1500)}}
    (tmp_path / "index.json").write_text(json.dumps(document))
    asked = ("search", "adapter-7", "-q", "--limit", "1", "--registry", str(tmp_path))
    assert "preparing the index" not in on_a_terminal(*asked)  # -q
    (tmp_path / "index.json").write_text(json.dumps({**document, "$schema": "other"}))
    seen = on_a_terminal(*asked[:2], *asked[3:])
    assert seen.startswith("\r\x1b[Kpreparing the index")
    assert "adapter-7" in seen.rpartition("\r\x1b[K")[2]
    assert "preparing" not in on_a_terminal(*asked)
    (tmp_path / "index.json").write_text(json.dumps({**document, "$schema": "another"}))
    done = subprocess.run([*COMMAND, *asked], capture_output=True, check=True)
    assert (done.stdout, done.stderr.startswith(b"there are more")) == (b"adapter-7\n", False)


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_switched_off(setting: dict[str, str]) -> None:
    seen = on_a_terminal("pull", "nosuch", **setting)
    assert "\x1b" not in seen
    assert seen.startswith("error: ")


def test_json_on_a_terminal_is_indented_and_in_a_pipe_one_line() -> None:
    assert on_a_terminal("list", "--json").startswith('{\n  "ok": true,\n')
    assert type_command("list", "--json").out.count("\n") == 1


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_script_for_each_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = type_command("completion", shell)
    assert "_ADAPTERHUB_COMPLETE" in typed.out
    assert type_command("completion", shell, "--json").json["script"] in typed.out
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert type_command("completion").out == typed.out


def test_an_unknown_shell_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    typed = type_command("completion")
    assert typed.err == "error: there is no completion for the shell 'tcsh'\n  hint: name one of bash, zsh, fish\n"


def completions(line: str) -> list[str]:
    """Return what bash is offered for the last word of a line."""
    words = line.split(" ")
    variables = {"_ADAPTERHUB_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from adapterhub.cli import main; main()"],
        capture_output=True,
        text=True,
        env=environment(**variables),
        check=False,
    )
    assert done.stderr == ""
    return [item.split(",", 1)[1] for item in done.stdout.split()]


def test_commands_and_adapters_are_completed(registry: Path) -> None:
    assert completions("adapterhub ve") == ["verify"]
    assert completions("adapterhub show ti") == ["tiny-reviews"]
    assert completions(f"adapterhub show --registry {registry} t") == ["tiny-reviews"]
    assert completions("adapterhub index a") == ["add"]


def test_a_registry_that_cannot_be_read_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", "/nowhere")
    assert completions("adapterhub show t") == []


def test_bash_accepts_the_script(tmp_path: Path) -> None:
    script = tmp_path / "adapterhub.bash"
    script.write_text(type_command("completion", "bash").out)
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
