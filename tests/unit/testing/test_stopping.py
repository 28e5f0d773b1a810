import signal
import subprocess
import sys

import pytest

_DEMO = """
import asyncio
from tablehouse.testing.processes import leave_by_ctrl_c
leave_by_ctrl_c()
async def stay():
    print("here", flush=True)
    await asyncio.sleep(600)
try:
    asyncio.run(stay())
except KeyboardInterrupt:
    print("Stopped.")
"""


def started(ignored: str) -> subprocess.Popen[str]:
    """Start a stand-in for the demo by a shell that has it ignore some signals."""
    shell = ["/bin/sh", "-c", f'trap "" {ignored}; exec "$@"', "sh"]
    demo = subprocess.Popen([*shell, sys.executable, "-c", _DEMO], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert demo.stdout.readline() == "here\n"
    return demo


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_script_has_started_in_the_background_leaves_by_sigint_and_sigterm(number: signal.Signals) -> None:
    with started("INT QUIT") as demo:
        demo.send_signal(number)
        assert demo.communicate(timeout=30)[0] == "Stopped.\n"
        assert demo.returncode == 0


def test_under_nohup_a_hangup_is_ignored() -> None:
    with started("HUP") as demo:
        demo.send_signal(signal.SIGHUP)
        demo.send_signal(signal.SIGTERM)
        assert demo.communicate(timeout=30)[0] == "Stopped.\n"
