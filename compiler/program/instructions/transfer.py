"""Transfers: lines from one chip to a neighbour, over lanes of a link."""

from compiler.program.isa import LINK, TRANSIENT, Holds, Instruction, Kernel, Op, Operand, same

INSTRUCTIONS = tuple(
    Instruction(
        op=op,
        name=op.name,
        unit=LINK,
        kernel=Kernel,
        reads=(Operand("src", TRANSIENT, same, Holds.COPY),),
        write=Operand("dst", TRANSIENT, same, Holds.COPY),
        unread=True,
    )
    for op in (Op.SEND, Op.FORWARD)
)
