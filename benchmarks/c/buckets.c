/*
 * The C twin of replaying a recording on malloc's buckets: the same operations on the same tables, by hand.
 *
 * What it does for each operation is what kmemexp's driver without a clock does for a design whose malloc, zones and
 * mbufs are all `buckets`: the table of objects, the totals, the bucket's list, kmemusage. Pages come from a bump
 * pointer and exact lists of runs, not from a vm_map: the map is not what is compared (0.6 % of the operations).
 */
#include <stdint.h>
#include <stdlib.h>

enum { PAGE_SHIFT = 12, PAGE = 1 << PAGE_SHIFT, MINBUCKET = 4, BUCKETS = 20, MAXALLOCSAVE = 2 * PAGE };
enum { HEAD, TAIL, FREE, TOTAL, ELMPERCL, COULDFREE, CALLS, PAGES };
enum { ADDR, SIZE, GRANTED, KIND };
enum { ALLOCS, FREES, REQUESTED, GRANTED_NOW, REQUESTED_PEAK, HELD, HELD_PEAK, REQUESTED_TOTAL, GRANTED_TOTAL,
       STEPS, MAP_OPS, DIRECT, HELD_AT_PEAK, REQUESTED_AT_PEAK, COUNTERS };
enum { ABSENT = -1, END = -1, COUNT_BITS = 24, COUNT_MASK = (1 << COUNT_BITS) - 1, HIGHWAT = 5 };

struct lane {
	int64_t bucket[BUCKETS][8];
	int64_t index_of[(MAXALLOCSAVE >> MINBUCKET) + 1];
	int32_t *usage;   /* per page */
	int32_t *link;    /* per 16 bytes */
	int64_t *run;     /* first free run of so many pages, and the next of a run at its first page */
	int64_t *next_run;
	int64_t top, pages;
	int64_t *objects; /* four words each */
	int64_t counters[COUNTERS];
};

struct lane *
lane_new(int64_t kva_bytes, int64_t slots)
{
	struct lane *l = calloc(1, sizeof *l);
	l->pages = kva_bytes >> PAGE_SHIFT;
	l->usage = calloc(l->pages, sizeof *l->usage);
	l->link = malloc((kva_bytes >> MINBUCKET) * sizeof *l->link);
	l->run = calloc(l->pages + 1, sizeof *l->run);
	l->next_run = malloc(l->pages * sizeof *l->next_run);
	l->objects = malloc(slots * 4 * sizeof *l->objects);
	for (int64_t i = 0; i < slots; i++) {
		l->objects[4 * i + ADDR] = ABSENT;
		l->objects[4 * i + SIZE] = l->objects[4 * i + GRANTED] = l->objects[4 * i + KIND] = 0;
	}
	for (int b = 0; b < BUCKETS; b++) {
		l->bucket[b][HEAD] = l->bucket[b][TAIL] = END;
		l->bucket[b][ELMPERCL] = (PAGE >> b) > 0 ? PAGE >> b : 1;
	}
	for (int i = 0; i <= MAXALLOCSAVE >> MINBUCKET; i++) {
		int b = MINBUCKET;
		while (16 * i > 1 << b)
			b++;
		l->index_of[i] = b;
	}
	return l;
}

void
lane_free(struct lane *l)
{
	free(l->usage); free(l->link); free(l->run); free(l->next_run); free(l->objects); free(l);
}

const int64_t *
lane_counters(const struct lane *l)
{
	return l->counters;
}

static int64_t
map(struct lane *l, int64_t npages, int account)
{
	int64_t page = l->run[npages] - 1;
	if (page >= 0)
		l->run[npages] = l->next_run[page];
	else {
		if (l->top + npages > l->pages)
			return -1;
		page = l->top;
		l->top += npages;
	}
	l->counters[MAP_OPS]++;
	l->counters[account] += npages << PAGE_SHIFT;
	if (l->counters[HELD] > l->counters[HELD_PEAK]) {
		l->counters[HELD_PEAK] = l->counters[HELD];
		l->counters[REQUESTED_AT_PEAK] = l->counters[REQUESTED];
	}
	return page;
}

static void
unmap(struct lane *l, int64_t page, int64_t npages, int account)
{
	l->next_run[page] = l->run[npages];
	l->run[npages] = page + 1;
	l->counters[MAP_OPS]++;
	l->counters[account] -= npages << PAGE_SHIFT;
}

static int
carve(struct lane *l, int64_t b)
{
	int64_t nbytes = (int64_t)1 << b > PAGE ? (int64_t)1 << b : PAGE;
	int64_t page = map(l, nbytes >> PAGE_SHIFT, HELD);
	if (page < 0)
		return -1;
	int64_t pieces = l->bucket[b][ELMPERCL], piece = page << (PAGE_SHIFT - MINBUCKET);
	l->bucket[b][TAIL] = piece;
	for (int64_t n = 0; n < pieces; n++) {
		l->link[piece] = (int32_t)l->bucket[b][HEAD];
		l->bucket[b][HEAD] = piece;
		piece += (int64_t)1 << (b - MINBUCKET);
	}
	l->bucket[b][FREE] += pieces;
	l->bucket[b][TOTAL] += pieces;
	l->bucket[b][PAGES] += nbytes >> PAGE_SHIFT;
	l->usage[page] = (int32_t)(b << COUNT_BITS | pieces);
	return 0;
}

/* Returns how many operations could not be served. */
int64_t
lane_play(struct lane *l, int64_t n, const uint8_t *op, const int16_t *kind, const int32_t *slot, const int32_t *size,
    const int64_t *by_map)
{
	int64_t refused = 0, *c = l->counters;

	for (int64_t i = 0; i < n; i++) {
		int64_t *o = l->objects + 4 * (int64_t)slot[i];
		if (op[i] == 0) {
			int64_t want = size[i], addr, granted;
			c[STEPS]++;
			if (by_map[kind[i]]) {
				int64_t page = map(l, (want + PAGE - 1) >> PAGE_SHIFT, DIRECT);
				c[STEPS]++;
				if (page < 0) {
					refused++;
					continue;
				}
				o[ADDR] = page << PAGE_SHIFT;
				o[SIZE] = want;
				c[ALLOCS]++;
				continue;
			}
			if (want > MAXALLOCSAVE) {
				int64_t pages = (want + PAGE - 1) >> PAGE_SHIFT, b = MINBUCKET, page = map(l, pages, HELD);
				c[STEPS]++;
				if (page < 0) {
					refused++;
					continue;
				}
				while (b < BUCKETS - 1 && want > (int64_t)1 << b)
					b++;
				l->usage[page] = (int32_t)(b << COUNT_BITS | pages);
				l->bucket[b][TOTAL]++;
				l->bucket[b][CALLS]++;
				l->bucket[b][PAGES] += pages;
				addr = page << PAGE_SHIFT;
				granted = pages << PAGE_SHIFT;
			} else {
				int64_t b = l->index_of[(want + 15) >> MINBUCKET], *k = l->bucket[b];
				if (k[HEAD] == END) {
					c[STEPS]++;
					if (carve(l, b)) {
						refused++;
						continue;
					}
				}
				int64_t chunk = k[HEAD];
				k[HEAD] = l->link[chunk];
				k[FREE]--;
				k[CALLS]++;
				addr = chunk << MINBUCKET;
				l->usage[addr >> PAGE_SHIFT]--;
				granted = (int64_t)1 << b;
			}
			o[ADDR] = addr;
			o[SIZE] = want;
			o[GRANTED] = granted;
			c[ALLOCS]++;
			c[REQUESTED] += want;
			c[GRANTED_NOW] += granted;
			c[REQUESTED_TOTAL] += want;
			c[GRANTED_TOTAL] += granted;
			if (c[REQUESTED] > c[REQUESTED_PEAK]) {
				c[REQUESTED_PEAK] = c[REQUESTED];
				c[HELD_AT_PEAK] = c[HELD];
			}
		} else {
			int64_t addr = o[ADDR];
			if (addr == ABSENT)
				continue;
			c[STEPS]++;
			if (by_map[kind[i]]) {
				unmap(l, addr >> PAGE_SHIFT, (o[SIZE] + PAGE - 1) >> PAGE_SHIFT, DIRECT);
				c[STEPS]++;
			} else {
				int64_t use = l->usage[addr >> PAGE_SHIFT], b = use >> COUNT_BITS, *k = l->bucket[b];
				if ((int64_t)1 << b > MAXALLOCSAVE) {
					int64_t pages = use & COUNT_MASK;
					l->usage[addr >> PAGE_SHIFT] = 0;
					k[TOTAL]--;
					k[PAGES] -= pages;
					unmap(l, addr >> PAGE_SHIFT, pages, HELD);
					c[STEPS]++;
				} else {
					use++;
					l->usage[addr >> PAGE_SHIFT] = (int32_t)use;
					if ((use & COUNT_MASK) >= k[ELMPERCL] && k[FREE] > HIGHWAT * k[ELMPERCL])
						k[COULDFREE]++;
					k[FREE]++;
					int64_t chunk = addr >> MINBUCKET;
					if (k[HEAD] == END)
						k[TAIL] = chunk;
					l->link[chunk] = (int32_t)k[HEAD];
					k[HEAD] = chunk;
				}
				c[REQUESTED] -= o[SIZE];
				c[GRANTED_NOW] -= o[GRANTED];
			}
			o[ADDR] = ABSENT;
			c[FREES]++;
		}
	}
	return refused;
}
