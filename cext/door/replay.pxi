# Events in numbers and words; see cext/engine/event.h.

EVENTS = ("", "step", "copy", "forward", "backward", "publish", "postpone", "lane", "reduce", "arrive",
          "exchange", "leave", "read", "piece")


def event(kind, worker, what):
    """An event's code: worker | kind << 16 | what << 32."""
    return worker | EVENTS.index(kind) << 16 | what << 32


def event_text(uint64_t code):
    """An event in words."""
    kind = code >> 16 & 0xffff
    return f"worker {code & 0xffff}: {EVENTS[kind] if 0 < kind < EVENT_KINDS else f'kind {kind}'} {code >> 32}"
