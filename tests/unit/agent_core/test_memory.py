"""What a long life leaves behind in the heaps of a process."""

import subprocess
import sys

import pytest

LIFE = """
import sys, threading
from agent.base.memory import few_heaps

if sys.argv[1] == "few":
    few_heaps()

THREADS, ROUNDS = 6, 8
kept = [sys.intern(f"kept {each}") for each in range(35_000)]
turn, told = 0, threading.Condition()
rest, sizes = [], []

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

def live(own):
    global turn
    for _ in range(ROUNDS):
        with told:
            told.wait_for(lambda: turn % THREADS == own)
            for each in range(12_000):
                sys.intern(f"passing {turn} {each}")
            rest.append([bytes(200 + each) for each in range(300)])
            del rest[:-6]
            sizes.append(rss())
            turn += 1
            told.notify_all()

threads = [threading.Thread(target=live, args=(each,)) for each in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sizes[-1] - sizes[THREADS // 2])
"""


def growth(heaps):
    """MB that a process of several threads grows by whose interned strings come and go."""
    answer = subprocess.run([sys.executable, "-c", LIFE, heaps], stdout=subprocess.PIPE, check=True, timeout=60)
    return float(answer.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library's heaps")
def test_strings_that_come_and_go_in_many_threads_leave_no_holes():
    few, many = growth("few"), growth("many")
    assert few < 2 < many
