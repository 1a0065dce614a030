"""What `make demo` shows: a model compiled for 256 chips, checked, run, and its bits proven.

The same model twice: on the one chip where a token is fastest, and spread over all 32 trays of the rack. The
cycles differ, the bits must not.
"""

import sys
import time

from compiler.options import CompileOptions
from lpu import api
from lpu.certify.equivalence import difference
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import Generation, generate
from lpu.report.words import kind

MODEL, RACK, PROMPT, TOKENS = "llama-tiny", "lpx", "Hello, deterministic world", 16
WAYS = {
    "fastest token": CompileOptions(),
    "spread over the rack": CompileOptions(tp=16, pp=10, layout="2d", placement="random", seed=7),
}


def main() -> None:
    model = api.open_model(MODEL)
    ids = api.prompt_ids([PROMPT], model, model.vocab)
    begin = time.perf_counter()
    reference = generate(reference_decode(model), ids, TOKENS, batch=1)
    print(f"{MODEL}, seeded weights: {TOKENS} tokens after {PROMPT!r}")
    print(
        f"  reference      one device, no schedule        logits {reference.digest[:16]}  [{seconds(begin)}]"
    )
    equal = [show(name, options, model, reference) for name, options in WAYS.items()]
    if not all(equal):
        print("\nbits DIFFER")
        sys.exit(1)
    print("\nbits equal")


def show(name: str, options: CompileOptions, model: api.OpenModel, reference: Generation) -> bool:
    """Compile, check and run one way; True if every bit of every logit is the reference's."""
    begin = time.perf_counter()
    compiled = api.compile(model, rack=RACK, options=options)
    print(f"\n{name}: compiled for {RACK} [{seconds(begin)}]")
    manifest, chosen = compiled.program.manifest, compiled.program.manifest.options
    groups, split = len(manifest.groups), f"{chosen.layout} split, {chosen.placement} placement"
    print(f"  chips          {groups} group(s) of {chosen.tp}, {split}")
    for report in compiled.reports.values():
        print(f"  {report}")
    begin = time.perf_counter()
    run = api.run(compiled, [PROMPT], tokens=TOKENS)
    wrong = difference(run.generation, reference)
    took = seconds(begin)
    print(
        f"  latency        {run.cycles[0]:,} cycles = {run.microseconds_per_token:.2f} us a token "
        f"({kind(manifest.chip.name)})"
    )
    print(f"  program        {manifest.digest}")
    print(f"  logits         {run.generation.digest}  [{took} here for {run.generation.steps} steps]")
    print(f"  against the reference: {wrong or 'bits equal'}")
    return not wrong


def seconds(since: float) -> str:
    return f"{time.perf_counter() - since:.1f} s"


if __name__ == "__main__":
    main()
