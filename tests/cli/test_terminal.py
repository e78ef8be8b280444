"""Progress on a real terminal: a pseudo-terminal of some width."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

STUBBORN = """
import signal, time
from localhpo.reporter import report
signal.signal(signal.SIGTERM, signal.SIG_IGN)
report(step=1, val_loss=0.5)
time.sleep(60)
"""

QUICK = """
from localhpo.reporter import report
report(step=1, val_loss=0.5)
"""

TASK = """
[task]
name = "tiny"
command = ["python", "train.py"]
metric = "val_loss"
direction = "minimize"

[space]
lr = { type = "float", low = 1e-3, high = 1.0, log = true }

[budget]
trials = 2
grace_s = 600

[creator]
name = "random"
"""


class Terminal:
    """A process whose standard error is a terminal."""

    def __init__(self, folder, width):
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "localhpo", "run", "task.toml"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1"},
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, text):
        while text not in self.shown:
            try:
                self.shown += os.read(self._screen, 4096).decode(errors="replace")
            except OSError:  # the process has ended
                return

    def close(self):
        self.process.kill()
        self.process.communicate()
        os.close(self._screen)


@pytest.fixture
def start(tmp_path):
    terminals = []

    def begin(script, width=60):
        (tmp_path / "train.py").write_text(script)
        (tmp_path / "task.toml").write_text(TASK)
        terminals.append(Terminal(tmp_path, width))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("width", [60, 110])
def test_rows_scroll_by_and_no_color_is_used(start, width):
    terminal = start(QUICK, width)
    out, _ = terminal.process.communicate(timeout=60)
    terminal.read_until("never shown")
    assert terminal.process.returncode == 0
    assert out.startswith("tiny/main   2 of 2 trials: 2 complete")
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.shown)
    assert re.findall(r"(\d) [* ] complete", text) == ["0", "1"]
    assert not re.search(r"\x1b\[(?:\d+;)*3\d", terminal.shown)


def test_the_first_ctrl_c_stops_and_the_second_kills(start):
    terminal = start(STUBBORN)
    terminal.read_until("step 1")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("stopping 1 trial; press Ctrl-C again to kill it")
    terminal.process.send_signal(signal.SIGINT)
    terminal.process.communicate(timeout=60)
    terminal.read_until("run the same command again to continue")
    assert "run the same command again to continue" in terminal.shown
    assert terminal.process.returncode == 130
