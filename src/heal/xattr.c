/* SPDX-License-Identifier: BSD-3-Clause */
/* Extended attributes, and long symlink targets, which are stored with them: each is a run of
 * pieces that must be complete. A first walk finds incomplete ones, a second one removes them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heal/check_int.h"

#define PIECE_BITS 10
#define PIECE_MASK ((1u << PIECE_BITS) - 1)
#define HASH_SHIFT 14
#define SAME_HASH 16u
#define LINK_GROUP 1u /* key >> PIECE_BITS of a symlink's target */

/* State of the walk over one inode's attributes. */
struct pieces {
	uint64_t link_len; /* expected of a symlink's target; 0: none */
	uint64_t group;    /* key without the piece number; 0: before the first */
	uint32_t total, have;
	unsigned next;   /* piece */
	const char *why; /* the group is bad */
	bool link_seen;
	/* Names of the present hash, to detect duplicates. */
	uint64_t hash;
	unsigned nname;
	uint8_t namelen[SAME_HASH];
	char name[SAME_HASH][256];
	struct um_map *bad; /* groups */
	bool take_out;
};

static uint32_t piece_len(uint32_t total, unsigned i)
{
	uint32_t off = i * UM_XATTR_PIECE;

	if (off >= total)
		return 0;
	return total - off < UM_XATTR_PIECE ? total - off : UM_XATTR_PIECE;
}

static void end_group(struct um_walk *w)
{
	struct pieces *p = w->arg;

	if (!p->group)
		return;
	if (!p->why && p->have != p->total)
		p->why = "pieces are missing";
	if (!p->why)
		return;
	um_problem(w->c, "xattr", UM_CURE_FULL, "inode %llu: %s at %llx: %s",
		(unsigned long long)w->ino,
		p->group == LINK_GROUP ? "symlink target" : "extended attribute",
		(unsigned long long)(p->group << PIECE_BITS), p->why);
	if (um_map_set(p->bad, p->group, 1))
		w->c->err = -ENOMEM;
}

/* Has this name occurred under the same hash already? */
static bool duplicate(struct pieces *p, uint64_t hash, const char *name, uint8_t len)
{
	unsigned i;

	if (p->hash != hash)
		p->nname = 0;
	p->hash = hash;
	for (i = 0; i < p->nname; i++)
		if (p->namelen[i] == len && !memcmp(p->name[i], name, len))
			return true;
	if (p->nname < SAME_HASH) {
		memcpy(p->name[p->nname], name, len);
		p->namelen[p->nname++] = len;
	}
	return false;
}

/* Piece 0 of an attribute; *out_skip: bytes before the value's first. */
static const char *head_fault(
	struct um_walk *w, uint64_t key, const uint8_t *val, uint16_t len, uint32_t *out_skip)
{
	struct pieces *p = w->arg;
	struct um_xattr head;
	const char *name = (const char *)val + sizeof(head);

	if (len <= sizeof(head))
		return "head too short";
	memcpy(&head, val, sizeof(head));
	if (!head.namelen || sizeof(head) + head.namelen > len)
		return "name too long";
	if (head.len > UM_XATTR_VALUE_MAX)
		return "value too long";
	if (memchr(name, 0, head.namelen))
		return "NUL in the name";
	p->total = head.len;
	*out_skip = (uint32_t)sizeof(head) + head.namelen;
	if (um_xattr_key(w->c->pool, name, head.namelen) != key >> HASH_SHIFT << HASH_SHIFT)
		return "name does not match its hash";
	return duplicate(p, key >> HASH_SHIFT, name, head.namelen) ? "duplicate name" : NULL;
}

static void begin_group(struct um_walk *w, uint64_t key)
{
	struct pieces *p = w->arg;

	end_group(w);
	p->group = key >> PIECE_BITS;
	p->total = p->have = 0;
	p->next = 0;
	p->why = NULL;
	if (!p->group) {
		p->group = UINT64_MAX; /* of no key that a group could have */
		p->why = "key of nothing";
	} else if (p->group == LINK_GROUP) {
		p->total = (uint32_t)p->link_len;
		p->link_seen = true;
		if (!p->link_len)
			p->why = "not a symlink";
	} else if (!(key >> HASH_SHIFT)) {
		p->why = "key of nothing";
	}
}

static enum um_verdict piece_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct pieces *p = w->arg;
	uint32_t skip = 0;

	if (p->take_out)
		return um_map_get(p->bad, key >> PIECE_BITS ? key >> PIECE_BITS : UINT64_MAX, NULL)
			       ? UM_DROP
			       : UM_KEEP;
	if ((key >> PIECE_BITS ? key >> PIECE_BITS : UINT64_MAX) != p->group || !p->group)
		begin_group(w, key);
	if (p->why)
		return UM_KEEP;
	if ((key & PIECE_MASK) != p->next) {
		p->why = "pieces are missing";
		return UM_KEEP;
	}
	if (!p->next && p->group != LINK_GROUP)
		p->why = head_fault(w, key, val, *len, &skip);
	if (!p->why && (*len - skip != piece_len(p->total, p->next) || (p->next && *len == skip)))
		p->why = "piece of the wrong length";
	if (!p->why && p->group == LINK_GROUP && memchr(val, 0, *len))
		p->why = "NUL in the target";
	p->have += *len - skip;
	p->next++;
	return UM_KEEP;
}

enum um_verdict um_check_xattrs(
	struct um_check *c, um_ino_t ino, struct um_root *root, uint8_t *embed, uint64_t link_len)
{
	struct um_orphan_info *orphan = um_orphan_find(c, ino);
	struct um_map bad = {0};
	struct pieces p = {.link_len = link_len, .bad = &bad};
	struct um_walk w = {.c = c,
		.kind = UM_KIND_XATTR,
		.ino = ino,
		.count = true,
		.record = piece_record,
		.arg = &p};
	enum um_verdict verdict;

	if (root->format == UM_ROOT_EMPTY && !link_len)
		return UM_KEEP;
	verdict = um_walk_tree(&w, root, embed);
	/* An inode that is being removed may have lost some already. */
	if (orphan && orphan->what != UM_ORPHAN_TRUNCATE)
		return verdict;
	end_group(&w);
	if (bad.n) {
		um_walk_again(c);
		w.count = false;
		p.take_out = true;
		if (um_walk_tree(&w, root, embed) != UM_KEEP)
			verdict = UM_CHANGED;
	}
	if (link_len && (!p.link_seen || um_map_get(&bad, LINK_GROUP, NULL))) {
		um_problem(c, "inode", UM_CURE_FULL, "inode %llu: symlink lost its target",
			(unsigned long long)ino);
		verdict = UM_DROP;
	}
	um_map_clear(&bad);
	return verdict;
}
