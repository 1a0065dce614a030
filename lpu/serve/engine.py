"""Tokens of many sequences at once: each in a row of the program's batch, joined and left between steps.

What a row computes does not depend on the others (the numerics contract), so neither do its tokens. Positions
begin at 0 for every sequence: the KV of the one before it is overwritten before it is read.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from compiler.program.program import Program
from lpu.afd.beside import RowSteps, TakenStep
from lpu.decode.decoders import machine_of, restart
from lpu.decode.generate import BatchIds, Decode
from lpu.inputs.model import OpenModel
from lpu.serve.job import Job, Likely, NewToken, synthetic


@runtime_checkable
class TokenSource(Protocol):
    """Whatever takes jobs: it calls `told` of each with every new token."""

    def submit(self, job: Job) -> None:
        """Take a job; there is a slot for it."""

    def known(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that would not be computed."""
        ...

    def stop(self) -> None:
        """End; no job is taken any more."""


@dataclass(slots=True)
class Seat:
    """A row of the batch: its job, and the position that it takes next."""

    job: Job
    at: int = 0


class FedSteps:
    """Steps of a decode program: prompts are fed to it, one token a step."""

    def __init__(self, decode: Decode, batch: int) -> None:
        self._decode, self.batch = decode, batch

    def join(self, row: int, prompt: Sequence[int], scored: bool) -> None:
        """Nothing yet."""

    def known(self, prompt: Sequence[int]) -> int:
        """None: prefixes are not kept."""
        return 0

    def close(self) -> None:
        """Nothing is held."""

    def step(self, tokens: BatchIds, at: BatchIds, more: Sequence[int]) -> TakenStep:
        """A step of the program."""
        del more  # a step gives one token
        logits, likely = self._decode(tokens, at)
        return TakenStep(logits[:, None], likely[:, None])


class BatchEngine:
    """A thread that steps the machine while there is a job."""

    def __init__(self, taking: RowSteps) -> None:
        self._taking = taking
        self._rows: list[Seat | None] = [None] * taking.batch
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self._over = False
        self.steps = 0
        self._thread = threading.Thread(target=self._loop, name="lpu-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """A job for the next free row."""
        with self._wake:
            self._waiting.append(job)
            self._wake.notify()

    def stop(self) -> None:
        """End after the step in progress."""
        with self._wake:
            self._over = True
            self._wake.notify()
        self._thread.join()
        self._taking.close()

    def known(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that would not be computed."""
        return self._taking.known(prompt)

    def held(self) -> int:
        """Rows that have a job."""
        return sum(row is not None for row in self._rows)

    def _loop(self) -> None:
        while self._fill():
            try:
                self._begin()
                self._step()
            except Exception as error:  # whoever waits for a token must hear of it
                for i, row in enumerate(self._rows):
                    if row is not None:
                        row.job.told(error)
                        self._rows[i] = None

    def _fill(self) -> bool:
        """Give free rows to jobs; waits for one. False if it is over."""
        with self._wake:
            while not self._over:
                for i, row in enumerate(self._rows):
                    if row is not None and row.job.cancelled:
                        self._rows[i] = row = None
                    while row is None and self._waiting:
                        job = self._waiting.popleft()
                        if not job.cancelled:
                            self._rows[i] = row = Seat(job)
                if any(row is not None for row in self._rows):
                    return True
                self._wake.wait()
            return False

    def _begin(self) -> None:
        """Prompts of new jobs, where they are not fed token by token."""
        for i, row in enumerate(self._rows):
            if row is None or row.at:
                continue
            job = row.job
            joined = self._taking.join(i, job.prompt, job.echo and job.logprobs is not None)
            if joined is None:
                continue
            row.at, job.cached = joined.tokens - len(joined.logits), joined.cached
            for some in joined.logits:
                if self._took(row, np.asarray(some, np.float32), int(some.argmax())):
                    self._rows[i] = None

    def _step(self) -> None:
        if not any(row is not None for row in self._rows):
            return
        at, tokens = (np.zeros(len(self._rows), np.int32) for _ in range(2))
        more = [0] * len(self._rows)
        for i, row in enumerate(self._rows):
            if row is not None:
                job = row.job
                at[i] = row.at
                tokens[i] = job.prompt[row.at] if row.at < len(job.prompt) else job.tokens[-1]
                more[i] = max(job.most - len(job.tokens) - 1, 0) if row.at >= len(job.prompt) else 0
        found = self._taking.step(tokens, at, more)
        self.steps += 1
        for i, row in enumerate(self._rows):
            if row is not None:
                drafts = found.drafts[i] if found.drafts else ()
                row.job.tick += bool(row.job.tokens)
                row.job.drafted += len(drafts)
                if self._all(row, np.asarray(found.logits[i], np.float32), found.likely[i].tolist(), drafts):
                    self._rows[i] = None

    def _all(self, row: Seat, logits: np.ndarray, likely: list[int], drafts: tuple[int, ...]) -> bool:
        """The token of a step, and those after it as long as what was drafted is what is chosen."""
        for place, wish in enumerate([*drafts, None]):
            if self._took(row, logits[place], likely[place]):
                return True
            if not row.job.tokens or row.job.tokens[-1] != wish:
                return False
        return False

    def _took(self, row: Seat, logits: np.ndarray, likely: int) -> bool:
        """Whether a row's job is over with this step."""
        job = row.job
        row.at += 1
        if row.at < len(job.prompt):
            if job.echo and (known := job.likelihood(logits, job.prompt[row.at])) is not None:
                job.echoed.append(known)
            return False
        if not job.most:  # only the prompt was asked for
            job.told(NewToken(-1, None, "length"))
            return True
        new = job.choose(logits, likely)
        job.told(new)
        return new.finish is not None


class SyntheticEngine:
    """Made-up tokens at once; see `synthetic`."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab

    def submit(self, job: Job) -> None:
        """All tokens of the job."""
        if not job.most:
            job.told(NewToken(-1, None, "length"))
        known = Likely(0.0, ()) if job.logprobs is not None else None
        if job.echo and known is not None:
            job.echoed += [known] * (len(job.prompt) - 1)
        while len(job.tokens) < job.most:
            job.add(synthetic(job.prompt, len(job.tokens), self._vocab))
            job.tick += 1
            finish = job.finish()
            job.told(NewToken(job.tokens[-1], known, finish))
            if finish is not None:
                return

    def known(self, prompt: Sequence[int]) -> int:
        """None is computed."""
        return 0

    def stop(self) -> None:
        """Nothing to end."""


def real_engine(program: Program, model: OpenModel) -> BatchEngine:
    """The linked program with its weights. Raises LinkError, MachineError, FileError."""
    model.need_weights("serve")
    return BatchEngine(FedSteps(restart(machine_of(program, model)), program.manifest.rows))
