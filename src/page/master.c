/* SPDX-License-Identifier: BSD-3-Clause */
/* Masters: from an LBA to its shadows. */
#include "page/table.h"

struct gather {
	um_lba_t first, end;
	struct um_shadow *out;
	unsigned n, max;
	uint64_t all;
};

/* Collects the shadows that begin in one window of LBAs. They are neighbours in the chain. */
static void gather_window(struct um_page *p, uint64_t window, struct gather *g)
{
	uint32_t bucket = um_master_bucket(p, window * UM_PAGE_WINDOW);
	struct um_stripe *stripe = um_stripe_of(p->mstripe, bucket);
	uint32_t at;

	pthread_mutex_lock(&stripe->lock);
	at = um_head(&p->master[bucket]);
	while (at && um_page_lba(p, at) / UM_PAGE_WINDOW != window)
		at = UM_NODE_ID(um_head(&p->links[at].mnext));
	while (at) {
		struct um_shadow s = um_page_shadow(p, at);
		uint32_t next = um_head(&p->links[at].mnext);

		if (s.lba < g->end && s.lba + s.len > g->first) {
			if (g->n < g->max)
				g->out[g->n++] = s;
			g->all++;
		}
		at = next & UM_NODE_SAME ? UM_NODE_ID(next) : 0;
	}
	pthread_mutex_unlock(&stripe->lock);
}

unsigned um_master_shadows(struct um_page *p, um_lba_t lba, uint32_t n, struct um_shadow *out,
	unsigned max, uint64_t *out_all)
{
	struct gather g = {.first = lba, .end = lba + n, .out = out, .max = max};
	uint64_t window = lba / UM_PAGE_WINDOW, last = (lba + n - 1) / UM_PAGE_WINDOW;

	*out_all = 0;
	if (!p || !p->cap || !n || n > UM_PAGE_WINDOW)
		return 0;
	/* A shadow that covers the block may begin in the window before. */
	for (window -= window != 0; window <= last; window++)
		gather_window(p, window, &g);
	*out_all = g.all;
	return g.n;
}

uint64_t um_master_count(struct um_page *p, um_lba_t lba)
{
	uint64_t all;

	um_master_shadows(p, lba, 1, NULL, 0, &all);
	return all;
}

/* Is the node the only one of its master? Links are only meaningful in the chain, under its
 * lock. */
static bool is_sole(struct um_page *p, uint32_t id, struct um_shadow *out)
{
	uint32_t bucket = um_master_bucket(p, um_page_lba(p, id)), at;
	struct um_stripe *stripe = um_stripe_of(p->mstripe, bucket);
	bool sole;

	pthread_mutex_lock(&stripe->lock);
	at = um_head(&p->master[bucket]);
	while (at && at != id)
		at = UM_NODE_ID(um_head(&p->links[at].mnext));
	sole = at &&
	       !((um_head(&p->links[at].mprev) | um_head(&p->links[at].mnext)) & UM_NODE_SAME);
	if (sole)
		*out = um_page_shadow(p, at);
	pthread_mutex_unlock(&stripe->lock);
	return sole;
}

unsigned um_master_sole(struct um_page *p, unsigned look, struct um_shadow *out, unsigned max)
{
	unsigned n = 0;

	if (!um_page_on(p) || !atomic_load_explicit(&p->count, memory_order_relaxed))
		return 0;
	for (; look && n < max; look--) {
		uint32_t hand = atomic_fetch_add_explicit(&p->sole_hand, 1, memory_order_relaxed);
		uint32_t id = hand % um_head(&p->fresh);

		if (um_word(&p->ident[id].w2) & UM_W2_LIVE && is_sole(p, id, &out[n]))
			n++;
	}
	return n;
}
