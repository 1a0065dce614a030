"""The cases of attention/FFN disaggregation: number, title, points (of no machine), remark.

Numbers are 100 + n of case AFD-n in facts/afd.md section 2. docs/afd-timing.md says what each shows.
"""

from collections.abc import Callable
from typing import Any

from lpu.validation import afd_910c, afd_fastafd, afd_step3, afd_sweeps
from lpu.validation.point import Point

AFD_CASES: tuple[tuple[int, str, Callable[[Any], tuple[Point, ...]], str], ...] = (
    (
        afd_step3.RATE_CASE,
        "Step-3: link rate of an FFN device",
        lambda _: afd_step3.rate_points(),
        "arithmetic on published numbers; the text's 91 us for both directions contradicts its table",
    ),
    (
        afd_step3.SPARSITY_CASE,
        "Step-3: least sparsity that a network feeds",
        lambda _: afd_step3.sparsity_points(),
        "datasheets in the paper's formula; that Net is a server's NICs was found from these figures",
    ),
    (
        afd_step3.DEVICE_CASE,
        "Step-3: context that an L20 holds",
        lambda _: afd_step3.device_points(),
        "arithmetic on published numbers",
    ),
    (
        afd_fastafd.CASE,
        "FastAFD identity, GB200 NVL72",
        lambda _: afd_fastafd.points(),
        "shares, batch ratio and A:F ratio are the paper's; the identity is a limit of the schedule",
    ),
    (
        afd_sweeps.MEGASCALE_CASE,
        "MegaScale-Infer: more micro-batches",
        lambda _: afd_sweeps.megascale_points(),
        "bounds from above; t_c / T_f of the models is not published, so the last three are solved for",
    ),
    (
        afd_910c.CASE,
        "DeepSeek-V3.2 on Ascend 910C, AFD against EP64",
        lambda _: afd_910c.points(),
        "sign and order only, for links of 335 to 380 us (sourced: 365, at another batch); with fast links "
        "AFD wins at both ratios; rates at 16K are 1.3 to 1.5 times too high",
    ),
    (
        afd_sweeps.PARITY_CASE,
        "Qwen3.5-122B 4A4F over PCIe",
        lambda _: afd_sweeps.parity_points(),
        "shown only: no stage time is published, and an equal split can at best draw",
    ),
    (
        afd_fastafd.PROJECTION_CASE,
        "projection: FastAFD on Rubin with LPX",
        lambda _: afd_fastafd.projections(),
        "a projection against a projection: no system of GPU and LPX has been measured in public",
    ),
)
