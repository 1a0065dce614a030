"""`make acceptance`: whole corpora, for hours. It goes on where it was stopped, and ends with one table.

Each case that is done is a line of OUT/CODE/NAME.jsonl. CODE is a hash of the four packages and of tests/:
after a change of the code all is done anew. Exit 1 if a case fails or too few come to anything.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from corpora import CORPORA
from corpus import Corpus

ROOT = Path(__file__).parents[2]
FOLDERS = ("lpu", "compiler", "fabric", "models", "tests")
CASES_OF_A_PROCESS = 40  # then a fresh one: every shape that XLA compiles stays in memory
Line = dict[str, Any]


def code() -> str:
    """A hash of everything that can change what a case comes to."""
    sha = hashlib.sha256()
    for path in sorted(
        p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".yaml")
    ):
        sha.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return sha.hexdigest()[:12]


def one(asked: tuple[str, int]) -> Line:
    """The line of one case. Whatever is raised is a failure of the case, not of the run."""
    name, case = asked
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    try:
        line: Line = {"case": case, "came_to": CORPORA[name].hold(case)}
    except Exception as error:
        line = {"case": case, "came_to": "FAILED", "error": f"{type(error).__name__}: {error}"[:2000]}
    return line | {"user_seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime - before, 2)}


def done(path: Path) -> dict[int, Line]:
    """The lines of a file by case, without a last line that was cut off while it was written."""
    lines: dict[int, Line] = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines[line["case"]] = line
    return lines


def work(corpus: Corpus, cases: list[int], path: Path, jobs: int) -> dict[int, Line]:
    """Does the cases that the file does not hold, appending each; all lines."""
    lines = done(path)
    todo = [(corpus.name, case) for case in cases if case not in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with path.open("a") as out, context.Pool(jobs, maxtasksperchild=CASES_OF_A_PROCESS) as pool:
        out.write("\n" if lines else "")
        for count, line in enumerate(pool.imap_unordered(one, todo), 1):
            out.write(json.dumps(line) + "\n")
            out.flush()
            lines[line["case"]] = line
            print(f"\r{corpus.name}: {count} of {len(todo)}", end="", file=sys.stderr, flush=True)
    return {case: lines[case] for case in cases}


def row(corpus: Corpus, lines: dict[int, Line]) -> tuple[str, bool]:
    """A row of the table, and whether the corpus passes."""
    words = Counter(line["came_to"] for line in lines.values())
    good = sum(words[word] for word in corpus.good)
    passed = not words["FAILED"] and good >= corpus.least * len(lines)
    seconds = sum(line["user_seconds"] for line in lines.values())
    came = ", ".join(f"{n} {word}" for word, n in words.most_common())
    verdict = "passed" if passed else "FAILED"
    return (
        f"{corpus.name:<28}{len(lines):>7} of {corpus.size:<7}{verdict:<8}{seconds:>9.0f} s  {came}",
        passed,
    )


def kinds(corpus: Corpus, lines: dict[int, Line]) -> list[str]:
    """The table of a corpus by the kind of its cases; none if it has no kinds."""
    if corpus.kind is None:
        return []
    words: dict[str, Counter[str]] = {}
    for case, line in lines.items():
        words.setdefault(corpus.kind(case), Counter())[line["came_to"]] += 1
    rows = [
        f"  {name:<26}{sum(count.values()):>7}  {', '.join(f'{n} {word}' for word, n in count.most_common())}"
        for name, count in words.items()
    ]
    return [f"\n{corpus.name}, by kind", *rows]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CORPORA, action="append", help="a corpus; may be given again")
    parser.add_argument("--cases", type=int, help="the first N cases of each corpus only")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "acceptance")
    args = parser.parse_args(arguments)
    folder = args.out / code()
    rows: list[tuple[str, bool]] = []
    failures: list[str] = []
    tables: list[str] = []
    for corpus in (CORPORA[name] for name in args.only or CORPORA):
        cases = list(range(corpus.size))[: args.cases]
        lines = work(corpus, cases, folder / f"{corpus.name.replace(' ', '-')}.jsonl", args.jobs)
        rows.append(row(corpus, lines))
        tables += kinds(corpus, lines)
        failures += [
            f"{corpus.name}, case {n}: {line['error']}" for n, line in lines.items() if "error" in line
        ]
    print(f"\n{'corpus':<28}{'cases':>7}{'':<11}{'verdict':<8}{'user CPU':>11}  came to")
    print("\n".join(text for text, _ in rows))
    print("\n".join([*tables, *failures[:20]]))
    return 0 if all(passed for _, passed in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
