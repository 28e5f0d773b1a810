import subprocess
import sys

# Sleeps in C with the interpreter's lock held, as a library does whose call hangs.
_HANGS = """
import ctypes
from tablehouse.kafka.faust_worker import _end_after
_end_after(0.5)
ctypes.PyDLL(None).sleep(600)
"""


def test_a_process_that_hangs_with_the_interpreter_s_lock_ends_at_its_deadline_and_shows_where() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert 'File "<string>", line 5 in <module>' in ended.stderr
