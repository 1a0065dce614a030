"""Compile the module of `parallel.py` for four chips, run it, and compare its bits with plain execution.

From a shell, in this folder: `lpu certify parallel:Parallel --rack quad --context 160`.
"""

from parallel import Parallel

from compiler.options import CompileOptions
from lpu import api
from lpu.certify.equivalence import difference
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import generate

PROMPT = [3, 1, 4, 1, 5]


def main() -> None:
    compiled = api.compile(Parallel, rack="quad", context=[160], options=CompileOptions(tp=2, pp=2))
    run = api.run(compiled, [PROMPT], tokens=8)
    reference = generate(reference_decode(compiled.model), [PROMPT], 8, batch=1)
    wrong = difference(run.generation, reference)
    print(f"program  {compiled.program.manifest.digest[:16]}, {run.cycles[0]:,} cycles a token")
    print(f"tokens   {list(run.generation.tokens[0])}")
    print(f"bits     {wrong or 'equal'}")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
