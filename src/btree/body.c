/* SPDX-License-Identifier: BSD-3-Clause */
/* Slotted bodies of tree nodes: search, insert, replace, delete, split, check. */
#include <errno.h>
#include <string.h>

#include "btree/body.h"
#include "btree/btree.h"

#define HEAD ((unsigned)sizeof(struct um_body_head))
#define SLOT ((unsigned)sizeof(struct um_slot))

static struct um_body_head *head_of(void *body)
{
	return body;
}

static struct um_slot *slots_of(void *body)
{
	return (struct um_slot *)((uint8_t *)body + HEAD);
}

static const struct um_slot *const_slots_of(const void *body)
{
	return (const struct um_slot *)((const uint8_t *)body + HEAD);
}

/* The slots must lie inside the body, below the values. */
static bool head_ok(const void *body, uint16_t cap)
{
	const struct um_body_head *h = um_body_head(body);

	return h->heap <= cap && HEAD + SLOT * (unsigned)h->nrec <= h->heap;
}

/* An empty value occupies no space: its offset only has to be inside the body. */
static bool slot_ok(const struct um_slot *slot, uint16_t heap, uint16_t cap)
{
	return (slot->off >= heap || !slot->len) && slot->len <= UM_VALUE_MAX &&
	       (unsigned)slot->off + slot->len <= cap;
}

void um_body_init(void *body, uint16_t cap)
{
	*head_of(body) = (struct um_body_head){.heap = cap};
}

uint16_t um_body_nrec(const void *body)
{
	return um_body_head(body)->nrec;
}

int um_body_safe(const void *body, uint16_t cap)
{
	const struct um_body_head *h = um_body_head(body);
	const struct um_slot *slots = const_slots_of(body);
	unsigned live = 0;

	if (cap < HEAD || !head_ok(body, cap))
		return -EUCLEAN;
	for (unsigned i = 0; i < h->nrec; i++) {
		if (!slot_ok(&slots[i], h->heap, cap) || (i && slots[i].key <= slots[i - 1].key))
			return -EUCLEAN;
		live += slots[i].len;
	}
	/* Compaction and the remaining room are computed from this. */
	return live + h->dead == (unsigned)cap - h->heap ? 0 : -EUCLEAN;
}

int um_body_check(const void *body, uint16_t cap)
{
	const struct um_slot *slots = const_slots_of(body);
	uint8_t taken[UM_NODE_BODY] = {0};

	if (cap > UM_NODE_BODY || um_body_safe(body, cap) || um_body_head(body)->pad)
		return -EUCLEAN;
	for (unsigned i = 0; i < um_body_nrec(body); i++) {
		if (memchr(taken + slots[i].off, 1, slots[i].len))
			return -EUCLEAN;
		memset(taken + slots[i].off, 1, slots[i].len);
	}
	return 0;
}

void um_body_slot(
	const void *body, unsigned i, uint64_t *out_key, const void **out_val, uint16_t *out_len)
{
	const struct um_slot *slot = &const_slots_of(body)[i];

	*out_key = slot->key;
	*out_val = (const uint8_t *)body + slot->off;
	*out_len = slot->len;
}

int um_body_get(const void *body, uint16_t cap, unsigned i, uint64_t *out_key, const void **out_val,
	uint16_t *out_len)
{
	const struct um_body_head *h = um_body_head(body);

	if (!head_ok(body, cap) || i >= h->nrec || !slot_ok(&const_slots_of(body)[i], h->heap, cap))
		return -EUCLEAN;
	um_body_slot(body, i, out_key, out_val, out_len);
	return 0;
}

int um_body_search(const void *body, uint16_t cap, uint64_t key, unsigned *out_pos, bool *out_exact)
{
	const struct um_slot *slots = const_slots_of(body);
	unsigned lo = 0, n = um_body_nrec(body);

	if (!head_ok(body, cap))
		return -EUCLEAN;
	while (n) {
		unsigned half = n / 2;

		if (slots[lo + half].key < key) {
			lo += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	*out_pos = lo;
	*out_exact = lo < um_body_nrec(body) && slots[lo].key == key;
	return 0;
}

unsigned um_body_used(const void *body, uint16_t cap)
{
	const struct um_body_head *h = um_body_head(body);

	return HEAD + SLOT * h->nrec + (cap - h->heap) - h->dead;
}

/* Moves the values to the end, so that all free bytes are between slots and values. */
static void compact(void *body, uint16_t cap)
{
	struct um_body_head *h = head_of(body);
	struct um_slot *slots = slots_of(body);
	uint8_t old[UM_NODE_BODY];
	unsigned heap = cap;

	memcpy(old + h->heap, (uint8_t *)body + h->heap, cap - h->heap);
	for (unsigned i = 0; i < h->nrec; i++) {
		heap -= slots[i].len;
		memcpy((uint8_t *)body + heap, old + slots[i].off, slots[i].len);
		slots[i].off = heap;
	}
	h->heap = heap;
	h->dead = 0;
}

/* Allocates len bytes for a value if `slots` more slots are to follow; returns their offset. */
static int take_value(void *body, uint16_t cap, unsigned slots, uint16_t len, uint16_t *out_off)
{
	struct um_body_head *h = head_of(body);
	unsigned need = HEAD + SLOT * (h->nrec + slots) + len;

	if (need > (unsigned)h->heap + h->dead)
		return -ENOSPC;
	if (need > h->heap)
		compact(body, cap);
	h->heap -= len;
	*out_off = h->heap;
	return 0;
}

static void give_value(void *body, struct um_slot *slot)
{
	struct um_body_head *h = head_of(body);

	if (slot->off == h->heap)
		h->heap += slot->len;
	else
		h->dead += slot->len;
	slot->off = h->heap;
	slot->len = 0;
}

int um_body_insert(
	void *body, uint16_t cap, unsigned pos, uint64_t key, const void *val, uint16_t len)
{
	struct um_body_head *h = head_of(body);
	struct um_slot *slots = slots_of(body);
	uint16_t off;
	int err = take_value(body, cap, 1, len, &off);

	if (err)
		return err;
	memmove(&slots[pos + 1], &slots[pos], sizeof(*slots) * (h->nrec - pos));
	slots[pos] = (struct um_slot){.key = key, .off = off, .len = len};
	h->nrec++;
	if (len)
		memcpy((uint8_t *)body + off, val, len);
	return 0;
}

int um_body_replace(void *body, uint16_t cap, unsigned pos, const void *val, uint16_t len)
{
	struct um_slot *slot = &slots_of(body)[pos];
	uint16_t off;
	int err;

	if (len <= slot->len) {
		head_of(body)->dead += slot->len - len;
		slot->len = len;
	} else {
		give_value(body, slot);
		err = take_value(body, cap, 0, len, &off);
		if (err)
			return err;
		slot->off = off;
		slot->len = len;
	}
	if (len)
		memcpy((uint8_t *)body + slot->off, val, len);
	return 0;
}

void um_body_delete(void *body, uint16_t cap, unsigned pos)
{
	struct um_body_head *h = head_of(body);
	struct um_slot *slots = slots_of(body);

	give_value(body, &slots[pos]);
	memmove(&slots[pos], &slots[pos + 1], sizeof(*slots) * (h->nrec - pos - 1));
	h->nrec--;
	if (!h->nrec)
		um_body_init(body, cap);
}

void um_body_cut(void *body, uint16_t cap, unsigned pos)
{
	while (um_body_nrec(body) > pos)
		um_body_delete(body, cap, um_body_nrec(body) - 1);
}

void um_body_set_key(void *body, unsigned pos, uint64_t key)
{
	slots_of(body)[pos].key = key;
}

void um_body_append(void *dst, uint16_t dst_cap, const void *src, unsigned from)
{
	for (unsigned i = from; i < um_body_nrec(src); i++) {
		uint64_t key;
		const void *val;
		uint16_t len;

		um_body_slot(src, i, &key, &val, &len);
		um_body_insert(dst, dst_cap, um_body_nrec(dst), key, val, len);
	}
}

void um_body_split_point(
	const void *body, unsigned pos, uint16_t len, unsigned *out_from, bool *out_left)
{
	const struct um_slot *slots = const_slots_of(body);
	unsigned nrec = um_body_nrec(body), total = SLOT + len, sum = 0, left = 0;

	*out_from = nrec;
	*out_left = false;
	if (pos == nrec)
		return;
	for (unsigned i = 0; i < nrec; i++)
		total += SLOT + slots[i].len;
	/*
	 * Records in order, including the new one: the left body takes them until it has half of
	 * all bytes. The right one then gets at most half plus one record, which is known to fit.
	 */
	while (sum < total / 2 && left < nrec) {
		sum += SLOT + (left == pos ? len : slots[left < pos ? left : left - 1].len);
		left++;
	}
	*out_left = pos < left;
	*out_from = *out_left ? left - 1 : left;
}
