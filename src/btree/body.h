/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The body of a node, or of an embedded root, as a container in memory: slots in key order, values
 * behind. Knows neither transactions nor blocks.
 *
 * Contents may come from a hostile pool. Functions that return an error check what they touch;
 * those that do not are for bodies that passed um_body_safe() (or um_body_check()).
 */
#ifndef UM_BTREE_BODY_H
#define UM_BTREE_BODY_H

#include <stdbool.h>

#include "pool/format.h"

/* Most records a body can hold: all values empty. */
#define UM_BODY_NREC_MAX ((UM_NODE_BODY - sizeof(struct um_body_head)) / sizeof(struct um_slot))

static inline const struct um_body_head *um_body_head(const void *body)
{
	return body;
}

void um_body_init(void *body, uint16_t cap);
/* What memory safety of the functions below needs: cheaper than um_body_check. -EUCLEAN. */
int um_body_safe(const void *body, uint16_t cap);
/* First position whose key is not below `key`; *out_exact: it is equal. -EUCLEAN: bad head. */
int um_body_search(
	const void *body, uint16_t cap, uint64_t key, unsigned *out_pos, bool *out_exact);
/* Record i, bounds checked. */
int um_body_get(const void *body, uint16_t cap, unsigned i, uint64_t *out_key, const void **out_val,
	uint16_t *out_len);
/* Bytes in use: head, slots, live values. */
unsigned um_body_used(const void *body, uint16_t cap);

/* -ENOSPC when it does not fit even after compaction. val must not point into the body. */
int um_body_insert(
	void *body, uint16_t cap, unsigned pos, uint64_t key, const void *val, uint16_t len);
/* The same; the old value is gone when it fails with -ENOSPC (delete the record then). */
int um_body_replace(void *body, uint16_t cap, unsigned pos, const void *val, uint16_t len);
void um_body_delete(void *body, uint16_t cap, unsigned pos);
/* Drops the records from pos on. */
void um_body_cut(void *body, uint16_t cap, unsigned pos);
void um_body_set_key(void *body, unsigned pos, uint64_t key);
/* Puts records [from, nrec) of src behind the last of dst; they must fit. */
void um_body_append(void *dst, uint16_t dst_cap, const void *src, unsigned from);
/*
 * Where to split a full body that a record of len value bytes is to enter at pos: *out_from is the
 * first record that moves to the right body, *out_left whether the new one goes left. Ascending
 * inserts leave the left body full.
 */
void um_body_split_point(
	const void *body, unsigned pos, uint16_t len, unsigned *out_from, bool *out_left);

#endif
