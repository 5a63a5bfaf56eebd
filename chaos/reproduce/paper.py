"""What the papers report, with how sure it is. Data only; the performance models are in chaos.perfmodel.papers.

R: stated in publicly readable text of the papers. M+: known second-hand, and confirmed by arithmetic that links it to other
figures of the papers. Other figures are not repeated here."""

MACHINE = "Intel Xeon Phi 7120P (61 cores, 244 hardware threads)"
THREADS = (1, 15, 30, 60, 120, 180, 240, 244)
EPOCHS = {"small": 70, "medium": 70, "large": 15}
LR, LR_DECAY = 0.001, 0.9
# Large, 15 epochs with the validation pass: {threads: (hours, mark)}.
LARGE_HOURS = {1: (295.5, "M+"), 15: (19.7, "M+"), 30: (9.9, "M+"), 60: (5.0, "M+"), 244: (2.86, "M+")}
LARGE_HOURS_E5 = (31.1, "M+")  # one core of an Intel Xeon E5-2695v2
# Over one thread of the same machine, with 244 threads.
SPEEDUP_244 = {"small": (100.4, "R"), "medium": (99.9, "R"), "large": (103.5, "R")}
MARKS = (
    "R: stated in the papers' public text. M+: known second-hand and confirmed by arithmetic from other figures of the "
    "papers."
)


def hours(model: str, threads: int) -> tuple[float, str] | None:
    """(hours, mark) of the paper's whole run, None where it is not known well enough."""
    return LARGE_HOURS.get(threads) if model == "large" else None


def speedup(model: str, threads: int) -> tuple[float, str] | None:
    """(speed-up over one thread, mark), None where it is not known well enough."""
    return SPEEDUP_244[model] if threads == 244 else None
