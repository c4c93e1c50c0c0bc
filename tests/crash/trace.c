/* SPDX-License-Identifier: BSD-3-Clause */
/* What was stored, flushed and drained, in order; and unrecorded stores. */
#include "crash.h"

void trace_clear(struct trace *trace)
{
	trace->n = trace->nbytes = 0;
	trace->bypass[0] = 0;
}

void trace_free(struct trace *trace)
{
	free(trace->event);
	free(trace->bytes);
	memset(trace, 0, sizeof(*trace));
}

void trace_add(struct trace *trace, enum event_kind kind, uint64_t off, const void *src, size_t len)
{
	struct event *event;

	if (kind == EV_DRAIN && trace->moment)
		trace->moment(trace, trace->arg);
	grow(&trace->event, trace->n, &trace->cap, sizeof(*trace->event));
	event = &trace->event[trace->n++];
	*event =
		(struct event){.kind = kind, .off = off, .len = (uint32_t)len, .at = trace->nbytes};
	if (kind != EV_CACHED && kind != EV_NT)
		return;
	grow(&trace->bytes, trace->nbytes + len, &trace->cap_bytes, 1);
	if (src)
		memcpy(trace->bytes + trace->nbytes, src, len);
	else
		memset(trace->bytes + trace->nbytes, 0, len);
	if (trace->shadow)
		memcpy(trace->shadow + off, trace->bytes + trace->nbytes, len);
	trace->nbytes += len;
}

void trace_compare(struct trace *trace, const uint8_t *base)
{
	uint64_t off;
	unsigned i;

	if (trace->bypass[0] || !memcmp(trace->shadow, base, POOL_SIZE))
		return;
	for (off = 0; !memcmp(trace->shadow + off, base + off, B); off += B)
		;
	for (i = 0; trace->shadow[off + i] == base[off + i]; i++)
		;
	snprintf(trace->bypass, sizeof(trace->bypass),
		"block %llu, byte %u: stored without the recorder's knowledge, or not flushed",
		(unsigned long long)(off / B), i);
}
