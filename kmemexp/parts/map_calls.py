"""Map calls: what the driver does for MAP_ALLOC, MAP_FREE and WIRE, written as a text, and read into numbers.

"lock space pages enter unlock" is kmem_malloc() of 2003: it holds the map's lock from the search for space to the last
pmap_enter(). The words are in `sim.engine.tables.word`. Before the call the driver gives the step's lock back, and
after it takes that of the next step, unless the text begins with "keep": then the step's section (spl mask, critical
section) goes on, through the call and into the next step, or until "leave"; with "hold", so does a lock.
"""

from collections.abc import Sequence
from types import ModuleType

from kmemexp.errors import ConfigError
from kmemexp.sim.engine.tables import word

ALLOC, FREE, WIRE = range(3)  # what a step gets that names no call (regs.CALL)
PLAIN = ("lock space pages enter unlock", "lock unmap pages space unlock", "space pages enter")
"""Of a part that has nothing to say."""
MOST = 8  # calls of a part
KEEPS = ("", "keep", "hold")  # first words, by word.KEEPS_*
PAIRS = (("lock", "unlock"), ("object", "unobject"), ("cpu", "uncpu"))
WORKS = {"space": 1, "pages": 1, "grab": 1, "enter": 1, "unmap": 1, "zone": 1}  # how often at most


def calls_of(*given: Sequence[str]) -> tuple[str, ...]:
    """Put a part's calls together: its own, then from the first that it lacks those of the next of `given`; PLAIN."""
    chosen: tuple[str, ...] = ()
    for calls in (*given, PLAIN):
        chosen += tuple(calls[len(chosen) :])
    return chosen


def own_calls(part: ModuleType) -> tuple[str, ...]:
    """What a part says itself. One from outside may have KEEPS in place of CALLS, as all had in version 0.1."""
    calls: tuple[str, ...] = getattr(part, "CALLS", ())
    return calls or tuple(f"keep {text}" for text in PLAIN if getattr(part, "KEEPS", False))


def rows(text: str) -> list[int]:
    """Numbers of a call, in the form that `word` describes. Raises ConfigError, with the word, for what is none."""
    words = text.split()
    keeps = KEEPS.index(words[0]) if words[:1] and words[0] in KEEPS else 0
    body = words[keeps > 0 :]
    check(text, body)
    inside = keeps > 0
    numbers = []
    for name in body:
        inside = {"section": True, "leave": False}.get(name, inside)
        numbers += [word.ZONE, word.UNLOCK] if name == "zone" else [word.WORDS.index(name)]
    if inside and (not keeps or "section" in body):
        raise ConfigError(f'map call {text!r}: "section" without "leave"; only what "keep" keeps may go on')
    if keeps == word.KEEPS_LOCK and not inside:
        raise ConfigError(f'map call {text!r}: "hold" and "leave"; a lock that is held is held into the next step')
    undo = [word.UNOBJECT, word.LOCK, word.UNDO]
    tail = [word.UNOBJECT, word.UNCPU, word.UNLOCK, *([] if inside else [word.LEAVE]), word.END]
    after = word.FIRST + len(numbers) + 1
    return [keeps, after + len(undo), after, *numbers, word.SKIP, *undo, *tail]


def check(text: str, words: Sequence[str]) -> None:
    """Raise ConfigError for words that make no call."""
    if not words:
        raise ConfigError(f"map call {text!r}: says nothing")
    held: set[str] = set()
    for name in words:
        if name not in word.WORDS:
            raise ConfigError(
                f"map call {text!r}: unknown word {name!r}; there are keep, hold, {', '.join(word.WORDS)}"
            )
        for take, give in PAIRS:
            if name == take and take in held:
                raise ConfigError(f"map call {text!r}: {name!r} twice without {give!r}")
            if name == give and take not in held:
                raise ConfigError(f"map call {text!r}: {name!r} without {take!r} before it")
            held = held | {take} if name == take else held - {take} if name == give else held
    for name, most in WORKS.items():
        if words.count(name) > most:
            raise ConfigError(f"map call {text!r}: {name!r} must stand there once")
    if "space" not in words:
        raise ConfigError(f'map call {text!r}: there is no "space", where the map works')
    if held:
        raise ConfigError(f"map call {text!r}: ends with {', '.join(sorted(held))} held")
