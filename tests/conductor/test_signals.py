"""SIGTERM reaches a conductor whose main thread sleeps, whichever of its threads the kernel hands it to."""

from pathlib import Path

from support.house import House

# The thread that takes the signal is not the one that sleeps: libvirt's own threads do that in real life.
TAKEN_BY_ANOTHER_THREAD = """
import pathlib, signal, threading, time
def take():
    while not list(pathlib.Path({run!r}).glob("*.wake")):
        time.sleep(0.05)
    time.sleep(1.0)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=take, daemon=True).start()
"""


def test_a_signal_that_another_thread_takes_ends_a_sleeping_conductor(tmp_path: Path) -> None:
    house = House(tmp_path, conductor={"poll_interval": 60.0, "lease_seconds": 60.0})
    try:
        process = house.start_conductor(TAKEN_BY_ANOTHER_THREAD.format(run=str(tmp_path / "run")))
        assert process.wait(40) == 0, house.logs()
    finally:
        house.close()
