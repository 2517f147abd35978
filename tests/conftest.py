"""One thread for every process of the tests.

Their networks are tiny, and threads that wait for each other on a busy machine take many times as
long as one alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
