"""Map calls: what a map step does word by word, with its locks, sections, pages and TLB flushes.

Which words there are is in `tables.word`; which of them a step gets, in the CALLS of allocators and arenas. Words that
work add up time (ctx.EXTRA); it passes before the next word that takes or gives anything back, so that a section lasts
as long as what is in it.

Half of what a page costs (costs.PAGE) is taken to be its allocation, half its entry in the page tables: an ASSUMPTION.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Lock, Memory, Ns, Registers, Words
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.locks import GRANTED, WAITS, acquire, release
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import FAST, LOG_PAGES, LOG_SHOOTDOWN, WOULD_PANIC
from kmemexp.sim.engine.memory import NORMAL, class_in_place, class_of, give_pages, take_pages, wait_for_memory
from kmemexp.sim.engine.sections import burst, entered, left
from kmemexp.sim.engine.shootdown import answered, shot_down
from kmemexp.sim.engine.sleeping import may_sleep
from kmemexp.sim.engine.tables import cpu, ctx, glob, kmap, lock, route, seen, stage, word, zone
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.slots import (
    ATTR_SORT,
    ATTR_WIRED,
    FAILED,
    MAP_ALLOC,
    MAP_FREE,
    NO_PAGES,
    PAGE_SHIFT,
    REFUSED_LOCK,
    WIRE,
)
from kmemexp.sim.tables import flag, regs, tally

HELD = word.HOLDS_MAP | word.HOLDS_OBJECT | word.HOLDS_CPU | word.HOLDS_SECTION  # what a tail gives back
FLUSH_CEILING = 33  # pages beyond which x86 flushes a TLB whole (tlb_single_page_flush_ceiling)


@kernel
def begin_call(m: Memory, reg: Registers, x: Ctx) -> bool:
    """Begin with the map call that a step has asked for. True: what the step was under goes on."""
    which = reg[m[x + ctx.NUMBER], regs.CALL]
    if which < 0:
        which = m[x + ctx.ANSWER] - MAP_ALLOC
    call = m[m[glob.ROUTE] + m[x + ctx.SERVER] * route.COLUMNS + route.CALL + which]
    m[x + ctx.CALL] = call
    m[x + ctx.AT] = call + word.FIRST
    m[x + ctx.NEED] = 0
    m[x + ctx.AREA] = -1 if m[x + ctx.ANSWER] == MAP_ALLOC else reg[m[x + ctx.NUMBER], regs.BASE]
    m[x + ctx.STAGE] = stage.CALL
    keeps = m[call + word.KEEPS]
    if keeps == word.KEEPS_LOCK and m[m[x + ctx.LOCK] + lock.KIND] != lock.SECTION:
        m[x + ctx.HOLDS] |= word.HOLDS_STEP
    return keeps != 0 and m[x + ctx.HOLDS] & (word.HOLDS_SECTION | word.HOLDS_STEP) != 0


@outlined
def carry_on(m: Memory, counters: Words, reg: Registers, x: Ctx) -> bool:
    """Carry out the words of a map call, up to one for the arena. False: `x` uses the CPU, waits, or has left it."""
    while True:
        what = m[m[x + ctx.AT]]
        if what < word.ZONE and (m[x + ctx.HOLDS] >> (what & word.HELD_BY)) & 1 == (what < word.UNLOCK):
            m[x + ctx.AT] += 1  # is held already, or is not
        elif what == word.SKIP:
            end(m, x)
            if m[x + ctx.HOLDS] & HELD == 0:  # the tail has nothing to give back
                return not _pauses(m, x) and _ended(m, x)
        elif what == word.SPACE or what == word.UNDO:
            m[x + ctx.AT] += 1
            m[x + ctx.STAGE] = stage.MAP
            if what == word.UNDO:
                m[x + ctx.ANSWER] = MAP_FREE
            return True
        elif what > word.SPACE and what <= word.GRAB:
            if not _work(m, counters, reg, x, what):
                return False
        elif _pauses(m, x):
            return False
        elif what == word.SECTION:
            m[x + ctx.AT] += 1
            entered(m, x)
        elif what == word.LEAVE:
            m[x + ctx.AT] += 1
            if not left(m, x):
                return False
        elif what == word.END:
            return _ended(m, x)
        elif not _hold(m, reg, x, what):
            return False


@kernel
def _pauses(m: Memory, x: Ctx) -> bool:
    """Before something is taken or given back: whether time passes first, or a CPU has yet to answer."""
    return burst(m, x, 0, stage.CALL) or (m[x + ctx.SHOT] and not answered(m, x))


@kernel
def _ended(m: Memory, x: Ctx) -> bool:
    """The call has ended: on with the next step. True."""
    m[x + ctx.STAGE] = stage.STEP if m[x + ctx.HOLDS] else stage.LOCK
    m[x + ctx.HOLDS] &= ~word.HOLDS_STEP
    return True


@kernel
def end(m: Memory, x: Ctx) -> None:
    """Go on with the call's tail, which gives back what is held."""
    m[x + ctx.AT] = m[x + ctx.CALL] + m[m[x + ctx.CALL] + word.TAIL]


@kernel
def _runs(m: Memory, x: Ctx) -> bool:
    """Whether `x` has its CPU still."""
    return m[m[x + ctx.CPU] + cpu.TOP] == x


@outlined
def _hold(m: Memory, reg: Registers, x: Ctx, what: int) -> bool:
    """Take a lock or give it back. False: `x` waits for it, or has been preempted."""
    m[x + ctx.AT] += 1
    bit = 1 << (what & word.HELD_BY)
    l = _lock(m, reg, x, bit)
    if what >= word.UNLOCK and what <= word.UNCPU:
        m[x + ctx.HOLDS] &= ~bit
        release(m, x, l)
        return _runs(m, x)
    if what == word.CPU and m[l + lock.OWNER] >= 0:
        return True  # a trylock that fails
    if what == word.ZONE:
        if m[x + ctx.WENT] == 0 and m[x + ctx.HOLDS] & word.HOLDS_CPU:
            return True
        m[x + ctx.EXTRA] += m[costs.ITEM] * m[x + ctx.WENT]
    return _ask(m, reg, x, bit, stage.CALL)


@kernel
def _lock(m: Memory, reg: Registers, x: Ctx, bit: int) -> Lock:
    """Place of one of the locks of the map that a step asks for."""
    row = m[glob.MAPS] + reg[m[x + ctx.NUMBER], regs.MAP] * kmap.COLUMNS
    if bit == word.HOLDS_MAP:
        return m[x + ctx.MAP_LOCK]
    if bit == word.HOLDS_OBJECT:
        return m[row + kmap.OBJECT]
    return m[row + kmap.CPU] + m[m[x + ctx.CPU] + cpu.NUMBER] * lock.COLUMNS


@kernel
def _map_lock(m: Memory, reg: Registers, x: Ctx) -> Lock:
    """Place of the map's lock that a step needs: in a direct map with zones, of the zone of what it works on."""
    map_no = reg[m[x + ctx.NUMBER], regs.MAP]
    if map_no == m[glob.DIRECT_MAP] and m[glob.ZONES]:
        return _zone_lock(m, x)
    return m[m[glob.MAPS] + map_no * kmap.COLUMNS + kmap.LOCK]


@outlined
def _zone_lock(m: Memory, x: Ctx) -> Lock:
    """Place of the lock of the zone where the arena works; of the one that the CPU asks first, if that is not known."""
    addr, z = m[x + ctx.AREA], m[glob.ZONE0]
    for _ in range(m[glob.ZONES]):
        if m[z + zone.FIRST] <= addr < m[z + zone.END]:
            return m[z + zone.LOCK]
        z += zone.COLUMNS
    return m[m[x + ctx.CPU] + cpu.ZONE]


@kernel
def _ask(m: Memory, reg: Registers, x: Ctx, bit: int, then: int) -> bool:
    """Take one of the map's locks. False: `x` waits for it."""
    if bit == word.HOLDS_MAP:
        m[x + ctx.MAP_LOCK] = _map_lock(m, reg, x)
    m[x + ctx.HOLDS] |= bit
    m[x + ctx.ASKED] = bit
    answer = acquire(m, x, _lock(m, reg, x, bit), then)
    return answer == GRANTED or granted(m, reg, x, answer)


@outlined
def granted(m: Memory, reg: Registers, x: Ctx, answer: int) -> bool:
    """Go on after asking for a lock. False: `x` waits for it. A refused request fails."""
    if answer == GRANTED:
        return True
    if answer == WAITS:
        return False
    if m[x + ctx.STAGE] == stage.CALL or m[x + ctx.STAGE] == stage.RELOCK:
        if m[x + ctx.ANSWER] != MAP_FREE:
            reg[m[x + ctx.NUMBER], regs.BASE] = REFUSED_LOCK
        m[x + ctx.NEED] = 0
        m[x + ctx.HOLDS] &= ~m[x + ctx.ASKED]
        m[x + ctx.STAGE] = stage.CALL
        end(m, x)
    else:
        m[x + ctx.ANSWER] = FAILED
        m[x + ctx.STAGE] = stage.DONE
    return _runs(m, x)


@kernel
def space_done(m: Memory, reg: Registers, x: Ctx, flushes: int) -> bool:
    """The arena has worked; `flushes`: it wants all TLBs flushed. False: `x` has been preempted."""
    m[x + ctx.STAGE] = stage.CALL
    _flush(m, x, flushes, FLUSH_CEILING)
    i, pages = m[x + ctx.NUMBER], _pages(m, reg, x)
    if m[x + ctx.ANSWER] == MAP_FREE:
        return m[x + ctx.NEED] == 0 or _undone(m, reg, x, pages - m[x + ctx.NEED])
    if m[x + ctx.ANSWER] == MAP_ALLOC:
        m[x + ctx.AREA] = reg[i, regs.BASE]
    if reg[i, regs.BASE] < 0 or pages == 0:
        end(m, x)
    else:
        m[x + ctx.NEED] = pages
    return True


@outlined
def _undone(m: Memory, reg: Registers, x: Ctx, pages: int) -> bool:
    """Give back what there was of pages too few. False: `x` has been preempted."""
    i = m[x + ctx.NUMBER]
    m[x + ctx.NEED] = 0
    reg[i, regs.BASE] = NO_PAGES
    if pages > 0:
        _flush(m, x, not _is_lazy(m, reg, i), pages)
        m[x + ctx.EXTRA] += _page_ns(m, reg, i, pages, False) + _page_ns(m, reg, i, pages, True)
        _give(m, x, pages)
    return _runs(m, x)


@kernel
def _pages(m: Memory, reg: Registers, x: Ctx) -> int:
    """Pages that a map step takes or gives back."""
    i = m[x + ctx.NUMBER]
    if m[x + ctx.SERVER] == SERVER_MAP and reg[i, regs.ATTR] & ATTR_SORT != ATTR_WIRED:
        return 0
    return reg[i, regs.BYTES] >> PAGE_SHIFT


@kernel
def _page_ns(m: Memory, reg: Registers, i: int, pages: int, entered: int) -> Ns:
    """What pages cost, apart from or in the page tables. In the direct map these do not change; a block is as one."""
    if reg[i, regs.MAP] == m[glob.DIRECT_MAP]:
        return 0 if entered else m[costs.PAGE] * min(pages, 1)
    whole = m[costs.PAGE] * pages
    return whole >> 1 if entered else whole - (whole >> 1)


@kernel
def _is_lazy(m: Memory, reg: Registers, i: int) -> int:
    """Whether the arena of the map says when TLBs are flushed."""
    return m[m[glob.MAPS] + reg[i, regs.MAP] * kmap.COLUMNS + kmap.LAZY]


@kernel
def _flush(m: Memory, x: Ctx, flushes: int, pages: int) -> None:
    """Let the other CPUs flush their TLBs, where `flushes`."""
    m[x + ctx.EXTRA] += shot_down(m, x, flushes, pages)
    if flushes and m[glob.LOG_ROWS] > 0:
        log(m, x, LOG_SHOOTDOWN, pages, 0)


@outlined
def _work(m: Memory, counters: Words, reg: Registers, x: Ctx, what: int) -> bool:
    """See to pages, page tables or TLBs. False: `x` uses the CPU, sleeps or has been preempted."""
    if (what == word.PAGES or what == word.GRAB) and m[x + ctx.NEED] > 0:
        return _want(m, counters, reg, x, what == word.GRAB)
    m[x + ctx.AT] += 1
    i, pages = m[x + ctx.NUMBER], _pages(m, reg, x)
    if what == word.FLUSH:
        _flush(m, x, 1, 0)
    elif what != word.PAGES and what != word.GRAB:
        m[x + ctx.EXTRA] += _page_ns(m, reg, i, pages, True)
        if what == word.UNMAP:
            _flush(m, x, not _is_lazy(m, reg, i), pages)
    elif m[x + ctx.ANSWER] == MAP_FREE and pages > 0:
        m[x + ctx.EXTRA] += _page_ns(m, reg, i, pages, False)
        _give(m, x, pages)
        return _runs(m, x)
    return True


@kernel
def _give(m: Memory, x: Ctx, pages: int) -> None:
    """Free pages."""
    if m[glob.LOG_ROWS] > 0:
        log(m, x, LOG_PAGES, -pages, 0)
    give_pages(m, pages)


@outlined
def _want(m: Memory, counters: Words, reg: Registers, x: Ctx, grabs: int) -> bool:
    """Take the pages that a request still lacks, as far as there are any, or see what becomes of it without."""
    i = m[x + ctx.NUMBER]
    klass = NORMAL if grabs else class_in_place(m) if m[x + ctx.ANSWER] == WIRE else class_of(m, x, reg[i, regs.FLAGS])
    got = take_pages(m, m[x + ctx.NEED], klass)
    m[x + ctx.NEED] -= got
    m[x + ctx.EXTRA] += _page_ns(m, reg, i, got, False)
    if got > 0 and m[glob.LOG_ROWS] > 0:
        log(m, x, LOG_PAGES, got, 0)
    if m[x + ctx.NEED] == 0:
        m[x + ctx.AT] += 1
        return _runs(m, x)
    if not _runs(m, x) or _pauses(m, x):
        return False
    nowait = reg[i, regs.FLAGS] & flag.NOWAIT and not grabs
    refused = nowait or m[x + ctx.VICTIM] or m[x + ctx.ANSWER] == WIRE
    if not refused and not may_sleep(m, x):
        refused = m[glob.WOULD_SLEEP] == WOULD_PANIC or m[x + ctx.KIND] == FAST
    if refused:
        return _fail(m, counters, reg, x)
    _sleep(m, reg, x)
    return False


@outlined
def _fail(m: Memory, counters: Words, reg: Registers, x: Ctx) -> bool:
    """Without pages enough the range goes back. False: `x` has been preempted."""
    i = m[x + ctx.NUMBER]
    m[x + ctx.VICTIM] = 0
    m[seen.PAGE_FAILURES] += 1
    if m[x + ctx.ANSWER] != WIRE:
        m[x + ctx.AT] = m[x + ctx.CALL] + m[m[x + ctx.CALL] + word.UNDO_AT]
        return True
    counters[tally.HELD] -= reg[i, regs.BYTES]
    reg[i, regs.BASE] = NO_PAGES
    pages = _pages(m, reg, x) - m[x + ctx.NEED]
    m[x + ctx.NEED] = 0
    end(m, x)
    _give(m, x, pages)
    return _runs(m, x)


@outlined
def _sleep(m: Memory, reg: Registers, x: Ctx) -> None:
    """Give the call's locks back and sleep until there are pages (VM_WAIT). The section goes on."""
    m[x + ctx.RETAKE] = 0
    if not m[glob.SLEEP_LOCKED]:
        for bit in (word.HOLDS_OBJECT, word.HOLDS_CPU, word.HOLDS_MAP):
            if m[x + ctx.HOLDS] & bit:
                m[x + ctx.STAGE] = stage.RELOCK
                m[x + ctx.HOLDS] &= ~bit
                m[x + ctx.RETAKE] |= bit
                release(m, x, _lock(m, reg, x, bit))
                if not _runs(m, x):
                    return
    wait_for_memory(m, x, stage.RELOCK if m[x + ctx.RETAKE] else stage.CALL)


@outlined
def retake(m: Memory, reg: Registers, x: Ctx) -> bool:
    """Take the locks again that were given back for a sleep. False: `x` waits for one."""
    for bit in (word.HOLDS_MAP, word.HOLDS_CPU, word.HOLDS_OBJECT):
        if m[x + ctx.RETAKE] & bit:
            m[x + ctx.RETAKE] &= ~bit
            if not _ask(m, reg, x, bit, stage.RELOCK):
                return False
    m[x + ctx.STAGE] = stage.CALL
    return True
