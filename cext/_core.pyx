"""The door between Python and C: checks, releases the GIL, turns outcomes into results. No arithmetic happens here.

For chaos.network and the engine-facing helpers beside it; users go through `chaos`.
"""
import enum
import os
import sys
import threading
from array import array
from itertools import zip_longest

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

from door.bench cimport *
from door.clock cimport *
from door.engine cimport *
from door.exchange cimport *
from door.kinds cimport *
from door.plan cimport *
from door.replay cimport *

include "door/names.pxi"
include "door/plan.pxi"
include "door/engine.pxi"
include "door/replay.pxi"
include "door/exchange.pxi"
include "door/bench.pxi"
include "door/clock.pxi"
