"""What is shown: hostile text, narrow and wide terminals, pipes, readers that leave, stores that are not there."""

from __future__ import annotations

import fcntl
import inspect
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tests.e2e.cli.conftest import Shell
from tests.e2e.cli.floor import HOSTILE

from surefoot.cli.exits import WrongUsage
from surefoot.cli.inputs import arguments_of
from surefoot.cli.words import clean, moment, one_line, shorten, span_words

STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""What Rich may send to a terminal: bold, dim, a colour, and their end. Nothing else."""

FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff]")


def stage(shell: Shell) -> None:
    """Make a store with hostile text in every place that is shown."""
    shell.here("run", "floor:label_parcel", "A", "--id", "l-1", "--store", shell.url)
    shell.here("run", "floor:break_parcel", "[red]B\x1b[31m", "--id", BAD, "--store", shell.url)
    shell.here("run", "floor:pay_parcel", "P", "--id", "p-1", "--store", shell.url)
    shell.here("run", "floor:pay_parcel", f"P {HOSTILE}", "--id", DOUBTFUL, "--store", shell.url)


BAD = "[bold]f-1\u202e\x1b[2J"
DOUBTFUL = f"p-2 {HOSTILE}"
VIEWS = (
    ["runs"], ["show", "l-1"], ["show", "l-1", "--full"], ["show", BAD], ["show", DOUBTFUL], ["show", "l-1", "--json"],
    ["effects"], ["effects", "--id", "1"], ["effects", "--id", "2"], ["effects", "--id", "3"], ["unknowns"],
    ["signal", BAD, "go"], ["cancel", "nobody\x1b[2J", "--reason", "x"],
)  # fmt: skip


def test_text_from_tools_is_data(shell: Shell) -> None:
    """Catches escape sequences, hidden characters and markup of a tool's answer that reach the terminal."""
    stage(shell)
    for words in VIEWS:
        done = shell.here(*words)
        for text in (done.out, done.err):
            assert not FORBIDDEN.search(text), (words, FORBIDDEN.search(text))
    shown = shell.here("show", "l-1").out
    assert "[bold red]refunded[/]" in shown
    assert "[link=http://x.example]x[/link]" in shown
    assert "\\u001b]0;owned" in shown
    ran = shell.here("run", "floor:label_parcel", "A", "--id", "l-1")
    assert "[bold red]refunded[/]" in ran.out
    assert not FORBIDDEN.search(ran.out)


def on_terminal(shell: Shell, columns: int, *words: str) -> str:
    """Return what a terminal of this width is sent."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = shell.start(*words, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait()
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [36, 80])
def test_terminals_of_all_widths(shell: Shell, columns: int) -> None:
    """Catches lines that run over a terminal's edge, and more than styles being sent to it."""
    stage(shell)
    shown = on_terminal(shell, columns, "unknowns") if columns == 36 else on_terminal(shell, columns, "effects")
    assert STYLE.search(shown)
    plain = STYLE.sub("", shown)
    assert not FORBIDDEN.search(plain)
    assert all(len(row) <= columns for row in plain.splitlines() if "surefoot resolve" not in row), plain
    assert "pay" in plain


def test_into_a_pipe_nothing_is_styled_cut_or_padded(shell: Shell) -> None:
    """Catches colours and shortened rows in what another program reads."""
    name = "a-run-with-a-very-long-name-" + "x" * 150
    shell.submit("ask_parcel", "A", id=name)
    done = shell.type("runs")
    assert name in done.out
    assert "\x1b" not in done.out
    assert done.err == ""
    assert all(row == row.rstrip() for row in done.out.splitlines())


def test_a_reader_that_has_left(shell: Shell) -> None:
    """Catches a traceback, or the interpreter's complaint, when `head` has seen enough."""
    shell.submit("ask_parcel", "A", id="a-1")
    reading, writing = os.pipe()
    os.close(reading)
    started = [shell.start(*words, stdout=writing) for words in (["runs"], ["runs", "--json"], ["--help"])]
    os.close(writing)
    for process in started:
        _, err = process.communicate()
        assert (process.returncode, err) == (141, ""), process.args


def test_nobody_listens_to_the_words(shell: Shell) -> None:
    """Catches a run that ends, or a result that is lost, because stderr was closed."""
    reading, writing = os.pipe()
    os.close(reading)
    process = shell.start("run", "floor:label_parcel", "A", "--id", "l-1", "--store", shell.url, stderr=writing)
    os.close(writing)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert "refunded" in out


@pytest.mark.parametrize("words", [["runs"], ["runs", "--json"], ["show", "a-1"], ["--help"], ["doctor"]])
def test_output_that_cannot_be_written(shell: Shell, words: list[str]) -> None:
    """Catches "please report this bug" for a full disk, and a failure where the output was closed on purpose."""
    shell.submit("ask_parcel", "A", id="a-1")
    command = shlex.join([sys.executable, "-m", "surefoot", *words])
    full = subprocess.run(["sh", "-c", f"{command} >/dev/full"], capture_output=True, text=True, check=False)
    assert full.returncode == 74
    assert full.stderr.startswith("error: the output could not be written: No space left on device\n")
    closed = subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], capture_output=True, check=False)
    assert closed.returncode == 0


def test_a_result_that_cannot_be_written(shell: Shell) -> None:
    """Catches a run that is not ended, or is told as failed, because nobody could write down what it returned."""
    words = ["run", "floor:label_parcel", "A", "--id", "l-1", "--store", shell.url]
    command = shlex.join([sys.executable, "-m", "surefoot", *words])
    deaf = subprocess.run(["sh", "-c", f"{command} >/dev/full 2>/dev/full"], check=False)
    assert deaf.returncode == 74
    assert shell.state("l-1") == "completed"


def test_arguments_that_are_no_text(shell: Shell) -> None:
    """Catches a traceback for an id in another encoding than the locale's."""
    shell.submit("ask_parcel", "A", id="a-1")
    for words in (["show", "a-\udcff"], ["run", "floor:ask_parcel", "\udcff", "--id", "x", "--store", shell.url]):
        done = shell.here(*words)
        assert done.code == 2
        assert "is no text in this locale's encoding" in done.err
        assert "LC_ALL=C.UTF-8" in done.err


def test_an_id_that_is_none(shell: Shell) -> None:
    """Catches an empty id that is told as a run that failed."""
    assert shell.here("run", "floor:ask_parcel", "A", "--id", "", "--store", shell.url).code == 2


def test_words_that_can_not_be_kept(shell: Shell) -> None:
    """Catches a traceback, or an error that is told as a run that failed, for what was typed wrong."""
    run = ("run", "floor:ask_parcel", "A", "--id", "x", "--store", shell.url)
    shell.submit("ask_parcel", "A", id="a-1")
    for words, said in (
        ((*run, "--deadline", "inf"), "--deadline inf: deadline_s=inf leads to no time of the calendar"),
        (("cancel", "a-1", "--reason", " ", "--store", shell.url), "reason=' ' is empty"),
        (
            ("cancel", "a-1", "--reason", "x", "--by", "y" * 513, "--store", shell.url),
            "by=a text of 513 characters is too",
        ),
        (("signal", "a-1", "s" * 513, "--store", shell.url), "signal=a text of 513 characters is too long"),
        (("signal", "a-1", "", "--store", shell.url), "signal='' is empty"),
        (("signal", "a-1", "$cancel", "--store", shell.url), "signal '$cancel': a signal has a name, without $"),
        (("signal", "a-1", "go", '"\\ud800"', "--store", shell.url), "is no JSON"),
    ):
        done = shell.here(*words)
        assert (done.code, said in done.err) == (2, True), done.err


def test_a_duration_that_is_none(shell: Shell) -> None:
    """Catches a mistyped option that is told as something that failed, and a store that is opened for it."""
    done = shell.here("gc", "--older-than", "90", "--store", shell.url)
    assert done.code == 2
    assert "'90' is not a duration" in done.err


def test_the_help_cuts_no_sentence(shell: Shell) -> None:
    """Catches a list of commands in which a reader must guess the end."""
    assert "..." not in shell.here("--help").out.split("Exit codes")[0].replace("[ARGS]...", "")


def test_through_head(shell: Shell) -> None:
    """Catches noise in the most common pipe of all."""
    for number in range(3):
        shell.submit("ask_parcel", "A", id=f"a-{number}")
    writer = shell.start("runs")
    head = subprocess.run(["head", "-1"], stdin=writer.stdout, capture_output=True, text=True, check=True)
    assert writer.stderr is not None
    assert head.stdout.startswith("run")
    assert writer.stderr.read() == ""


def test_a_store_that_is_not_there_is_not_made(shell: Shell) -> None:
    """Catches a command that only looks and leaves an empty store behind."""
    resolve = ["resolve", "1", "--done", "--by", "a", "--reason", "b"]
    cancel = ["cancel", "x", "--reason", "y"]
    for words in (["runs"], ["show", "x"], ["effects"], ["unknowns"], ["signal", "x", "y"], cancel, resolve):
        bare, named = shell.here(*words), shell.here(*words, "--store", "sqlite:///other.db")
        assert (bare.code, named.code) == (5, 5), words
        assert "SUREFOOT_URL" in bare.err
        assert "other.db" in named.err
    assert sorted(path.name for path in Path().iterdir()) == ["floor.py"]
    assert shell.here("runs", "--store", "mysql://x").code == 5
    Path("agents.db").write_text("this is no database, it only has its name" * 100)
    damaged = shell.here("runs")
    assert damaged.code == 5
    assert "Traceback" not in damaged.err


def test_a_store_that_does_not_answer(shell: Shell) -> None:
    """Catches a command that waits in silence, for ever, or can't be left, while a stopped process holds the store."""
    shell.submit("ask_parcel", "A", id="a-1")
    with Path("agents.db-desk").open() as desk:
        fcntl.flock(desk, fcntl.LOCK_EX)  # what a process stopped in the middle of a transaction holds
        left = shell.start("runs")
        assert left.stderr is not None
        assert left.stderr.readline().startswith("waiting for the store")
        left.send_signal(signal.SIGINT)
        assert left.wait() == 130
        impatient = "from surefoot.cli import main, place; place.LIMIT_S = 0.1; main(['runs'])"
        given_up = subprocess.run([sys.executable, "-c", impatient], capture_output=True, text=True, check=False)
    assert given_up.returncode == 5
    assert "another process holds its write lock" in given_up.stderr


def test_the_environment_names_the_store(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches suggested commands that would look into another store than the one that was asked."""
    shell.submit("ask_parcel", "A", id="a-1")
    Path("agents.db").rename("moved.db")
    assert "--store sqlite:///moved.db" in shell.here("show", "a-1", "--store", "sqlite:///moved.db").out
    monkeypatch.setenv("SUREFOOT_URL", "sqlite:///moved.db")
    shown = shell.here("show", "a-1")
    assert shown.code == 0
    assert "--store" not in shown.out


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("run", "floor:send_parcel", "--id", "x", "--input", '{"order": "A" "amount": 1}'), "column 15\n"),
        (("run", "floor:send_parcel", "--id", "x", "--input", '{"order":\n  nope}'), "line 2, column 3\n"),
        (("run", "floor:send_parcel", "--id", "x", "--input", '{"order": 1}'), "order: "),
        (("run", "floor:send_parcel", "--id", "x", "--input", '{"order": "A", "tags": ["a", 2]}'), "tags.1: "),
        (("run", "floor:send_parcel", "--id", "x", "--input", '{"order": "A", "many": 1}'), "'many'"),
        (("run", "floor:send_parcel", "--id", "x", "--input", '"A"'), "neither an object nor an array"),
        (("run", "floor:send_parcel", "--id", "x", "--input", "[NaN]"), "NaN"),
        (("run", "floor:send_parcel", "--id", "x", "--input", '{"order": "A", "order": "B"}'), "'order' twice"),
        (("run", "floor:send_parcel", "--id", "x", "--input", '["A", {"a": [{"b": 1, "b": 1}]}]'), "'b' twice"),
        (("signal", "x", "go", '{"yes": true, "yes": false}'), "the payload has 'yes' twice"),
        (("run", "floor:send_parcel", "--id", "x", "--input", "@missing.json"), "missing.json"),
        (("run", "floor:send_parcel", "--id", "x", "--input", "[]", "A"), "both given"),
        (("run", "floor:send_parcel", "--id", "x", "A", "many"), "amount: "),
        (("run", "floor:send_parcel", "--id", "x"), "missing a required argument: 'order'"),
        (("run", "floor:send_parcel", "--id", "x", "1", "2", "[]", "4"), "4 arguments for 3 parameters"),
        (("run", ":send_parcel", "--id", "x", "A"), "'' is no name of a module\nhint: the form is"),
        (("run", ".floor:send_parcel", "--id", "x", "A"), "'.floor' is no name of a module\nhint: the form is"),
        (("worker", "floor..jobs"), "'floor..jobs' is no name of a module\nhint: the form is"),
        (("signal", "x", "go", "[1, 2"), "column 6\n"),
        (("signal", "x", "wake", "1"), "takes no payload"),
    ],
)
def test_wrong_input_shows_its_place(shell: Shell, words: tuple[str, ...], place: str) -> None:
    """Catches an error that leaves the person looking for the comma, and a run started on a guess."""
    done = shell.here(*words, "--store", shell.url)
    assert done.code == 2
    assert place in done.err, done.err
    assert "Traceback" not in done.err
    assert not Path("agents.db").exists()


def test_a_typed_word_that_says_one_thing_twice_is_refused() -> None:
    """Would catch an argument of which one half counts, when it is typed as a word and not with --input."""

    def book(order: dict[str, int], note: str = "") -> None: ...

    signature = inspect.signature(book)
    assert arguments_of(book, signature, typed=['{"a": 1, "b": 1}', '{"a": 1, "a": 2}'], given=None) == (
        [{"a": 1, "b": 1}, '{"a": 1, "a": 2}'],
        {},
    )
    with pytest.raises(WrongUsage, match="order has 'a' twice"):
        arguments_of(book, signature, typed=['{"a": 1, "a": 2}'], given=None)


def test_words() -> None:
    """Catches characters that slip through, and times and lengths that read wrongly."""
    assert clean("a\x1b[31mb\x9b\u202e\u2028\ud800 c\nd\te") == "a\\u001b[31mb\\u009b\\u202e\\u2028\\ud800 c\nd  e"
    assert one_line(" a\n\n b ") == "a b"
    assert shorten("x" * 10, 4) == "xxxx… (10 characters)"
    assert shorten("x" * 10, None) == "x" * 10
    assert [span_words(ms) for ms in (-5, 900, 119_000, 120_000, 7_200_000, 90_000_000, 864_000_000)] == [
        "0 s", "1 s", "119 s", "2 min", "2 h", "25 h", "10 d"]  # fmt: skip
    assert moment(0) == "1970-01-01T00:00:00.000Z"
    assert moment(None) is None
    assert moment(10**17) == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "--limit"),
        ("effects", "--id"),
        ("approvals", "--id"),
        ("resolve", "--done", "--by", "ann", "--reason", "saw it"),
        ("approve", "--by", "ann", "--reason", "fine"),
        ("discard", "--group", "mail", "--reason", "old"),
        ("restore", "copy.db", "--to", "sqlite:///new.db", "--incarnation"),
    ],
)
def test_a_number_that_no_store_can_hold(shell: Shell, words: tuple[str, ...]) -> None:
    """Catches a traceback, and a plea to report it, for a number that was typed with some digits too many."""
    shell.submit("ask_parcel", "A", id="a-1")
    done = shell.here(*words, str(2**64))
    assert done.code == 2, done.err
    assert "more than any store has counted to" in " ".join(done.err.split())
    assert "Traceback" not in done.err
