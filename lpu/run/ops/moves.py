"""Rows that compute nothing and so are no items: they say where lines and KV come from and go to.

SEND and FORWARD are resolved by the linker: who reads a copy reads the line that was sent. TAKE and GIVE name
the lines of a hop's message and answer (`lpu/run/hop.py`), KVIN and KVOUT tokens of a KV region
(`lpu/run/handed/handover.py`). LOAD brings the weights of another program, which no step of this one reads.
"""

from compiler.program.isa import Op
from lpu.run.ops.items import Executed

_MOVES = (Op.SEND, Op.FORWARD, Op.TAKE, Op.GIVE, Op.KVIN, Op.KVOUT, Op.LOAD)
EXECUTED = tuple(Executed(op=op) for op in _MOVES)
