/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The body of a node, or of an embedded root, as a container in memory: slots in key order, values
 * behind. Independent of transactions and blocks.
 *
 * Contents may come from a hostile pool. Functions that return an error check what they access;
 * those that do not require a body that passed um_body_safe() (or um_body_check()).
 */
#ifndef UM_BTREE_BODY_H
#define UM_BTREE_BODY_H

#include <stdbool.h>

#include "pool/format.h"

/* Maximum number of records in a body: with all values empty. */
#define UM_BODY_NREC_MAX ((UM_NODE_BODY - sizeof(struct um_body_head)) / sizeof(struct um_slot))

static inline const struct um_body_head *um_body_head(const void *body)
{
	return body;
}

void um_body_init(void *body, uint16_t cap);
/* Checks what the memory safety of the functions below requires; cheaper than um_body_check.
 * -EUCLEAN. */
int um_body_safe(const void *body, uint16_t cap);
/* First position whose key is not below `key`; *out_exact: it is equal. -EUCLEAN: bad head. */
int um_body_search(
	const void *body, uint16_t cap, uint64_t key, unsigned *out_pos, bool *out_exact);
/* Record i, bounds checked. */
int um_body_get(const void *body, uint16_t cap, unsigned i, uint64_t *out_key, const void **out_val,
	uint16_t *out_len);
/* Bytes in use: head, slots, live values. */
unsigned um_body_used(const void *body, uint16_t cap);

/* -ENOSPC if it does not fit even after compaction. val must not point into the body. */
int um_body_insert(
	void *body, uint16_t cap, unsigned pos, uint64_t key, const void *val, uint16_t len);
/* The same; on -ENOSPC the old value is gone (the caller then deletes the record). */
int um_body_replace(void *body, uint16_t cap, unsigned pos, const void *val, uint16_t len);
void um_body_delete(void *body, uint16_t cap, unsigned pos);
/* Drops the records from pos on. */
void um_body_cut(void *body, uint16_t cap, unsigned pos);
void um_body_set_key(void *body, unsigned pos, uint64_t key);
/* Appends records [from, nrec) of src to dst; they must fit. */
void um_body_append(void *dst, uint16_t dst_cap, const void *src, unsigned from);
/*
 * Where to split a full body into which a record of len value bytes is to be inserted at pos:
 * *out_from is the first record that moves to the right body, *out_left whether the new one goes
 * left. Ascending inserts leave the left body full.
 */
void um_body_split_point(
	const void *body, unsigned pos, uint16_t len, unsigned *out_from, bool *out_left);

#endif
