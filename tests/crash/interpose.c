/* SPDX-License-Identifier: BSD-3-Clause */
/* Replaces functions of libpmem and of the C library: the back end for persistent memory is tested
 * unmodified, and the test controls the time. */
#include <libpmem.h>
#include <time.h>

#include "crash.h"

struct trace *live_trace;
uint8_t *live_base;
uint64_t fake_nsec, fake_step = 1000003; /* all bytes of a time change now and then */

static bool is_live(const void *at)
{
	return live_trace && (const uint8_t *)at >= live_base &&
	       (const uint8_t *)at < live_base + POOL_SIZE;
}

static void stored(const void *at, size_t len, unsigned flags)
{
	uint64_t off = (uint64_t)((const uint8_t *)at - live_base);
	bool nt = flags & PMEM_F_MEM_NONTEMPORAL;

	trace_add(live_trace, nt ? EV_NT : EV_CACHED, off, at, len);
	if (!nt && !(flags & PMEM_F_MEM_NOFLUSH))
		trace_add(live_trace, EV_FLUSH, off, NULL, len);
}

void *pmem_memcpy(void *to, const void *from, size_t len, unsigned flags)
{
	memcpy(to, from, len);
	if (is_live(to))
		stored(to, len, flags);
	if (!(flags & (PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NOFLUSH)))
		pmem_drain();
	return to;
}

void *pmem_memset(void *to, int c, size_t len, unsigned flags)
{
	memset(to, c, len);
	if (is_live(to))
		stored(to, len, flags);
	if (!(flags & (PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NOFLUSH)))
		pmem_drain();
	return to;
}

/* Plain stores in the range since the last look are known from here on; each word is one store. */
void pmem_flush(const void *at, size_t len)
{
	uint64_t off, word;

	if (!is_live(at))
		return;
	off = (uint64_t)((const uint8_t *)at - live_base);
	for (word = off & ~7ull; word < off + len; word += 8)
		if (memcmp(live_trace->shadow + word, live_base + word, 8))
			trace_add(live_trace, EV_CACHED, word, live_base + word, 8);
	trace_add(live_trace, EV_FLUSH, off, NULL, len);
}

void pmem_drain(void)
{
	if (!live_trace)
		return;
	if (live_trace->compare)
		trace_compare(live_trace, live_base);
	trace_add(live_trace, EV_DRAIN, 0, NULL, 0);
}

/* ---- time ------------------------------------------------------------------------------------------ */

int clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	fake_nsec += fake_step;
	ts->tv_sec = (time_t)(1700000000 + fake_nsec / 1000000000);
	ts->tv_nsec = (long)(fake_nsec % 1000000000);
	return 0;
}

time_t time(time_t *out)
{
	time_t now = (time_t)(1700000000 + fake_nsec / 1000000000);

	if (out)
		*out = now;
	return now;
}
