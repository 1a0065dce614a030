"""The cases of attention/FFN disaggregation: number, title, points (of no machine), remark.

Numbers are 100 + n of case AFD-n in facts/afd.md section 2. docs/afd-timing.md says what each shows.
"""

from lpu.validate.cases.afd import ascend_910c, fastafd, step3, step3_tables, sweeps
from lpu.validate.cases.suite import Case, Suite

CASES = (
    Case(
        number=step3.RATE_CASE,
        title="Step-3: link rate of an FFN device",
        points=lambda _: step3.rate_points(),
        remark="arithmetic on published numbers; the text's 91 us for both directions contradicts its table",
    ),
    Case(
        number=step3_tables.CASE,
        title="Step-3: KV bytes and attention of a token at 8K",
        points=lambda _: step3_tables.points(),
        remark="arithmetic on published geometries; the published figures are recalled, not looked up",
    ),
    Case(
        number=step3.SPARSITY_CASE,
        title="Step-3: least sparsity that a network feeds",
        points=lambda _: step3.sparsity_points(),
        remark="datasheets in the paper's formula; that Net is a server's NICs was found from these figures",
    ),
    Case(
        number=step3.DEVICE_CASE,
        title="Step-3: context that an L20 holds",
        points=lambda _: step3.device_points(),
        remark="arithmetic on published numbers",
    ),
    Case(
        number=fastafd.CASE,
        title="FastAFD identity, GB200 NVL72",
        points=lambda _: fastafd.points(),
        remark="shares, batch ratio and A:F ratio are the paper's; the identity is a limit of the schedule",
    ),
    Case(
        number=sweeps.MEGASCALE_CASE,
        title="MegaScale-Infer: more micro-batches",
        points=lambda _: sweeps.megascale_points(),
        remark="bounds from above; t_c / T_f of the models is not published, so the last three "
        "are solved for",
    ),
    Case(
        number=ascend_910c.CASE,
        title="DeepSeek-V3.2 on Ascend 910C, AFD against EP64",
        points=lambda _: ascend_910c.points(),
        remark=(
            "sign and order only, for links of 335 to 380 us (sourced: 365, at another batch); with fast "
            "links AFD wins at both ratios; rates at 16K are 1.3 to 1.5 times too high"
        ),
    ),
    Case(
        number=sweeps.PARITY_CASE,
        title="Qwen3.5-122B 4A4F over PCIe",
        points=lambda _: sweeps.parity_points(),
        remark="shown only: no stage time is published, and an equal split can at best draw",
    ),
    Case(
        number=fastafd.PROJECTION_CASE,
        title="projection: FastAFD on Rubin with LPX",
        points=lambda _: fastafd.projections(),
        remark="a projection against a projection: no system of GPU and LPX has been measured in public",
    ),
)

SUITE = Suite(cases=CASES, machine=lambda: None, sources=lambda _: ())
