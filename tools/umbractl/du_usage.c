// SPDX-License-Identifier: BSD-3-Clause
/*
 * The computation of umbractl du.
 *
 * Files share trees as well as blocks: a block with one reference may belong to a thousand clones,
 * if a node above it has a thousand parents. So the references are followed as removing the set
 * would: a node goes if all its parents are files of the set, or nodes that go; a block goes if as
 * many nodes that go (or files of the set without nodes) refer to it as it has references. Every
 * node is walked once, whatever the number of files that share it.
 */
#include "du.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "fuse/ioctl.h"

#define BY_FILE UINT32_MAX /* held by a file itself, not by a node */

struct node {
	uint64_t lba;
	uint32_t parents; /* in the pool */
	uint32_t gone;    /* parents that go */
	uint8_t level;    /* 0: leaf */
};

struct edge { /* parent refers to child; both are indexes of nodes */
	uint32_t parent, child;
};

struct run { /* leaf refers to the blocks */
	uint64_t lba;
	uint32_t len, refs, leaf;
};

struct vec {
	void *v;
	size_t n, room;
};

struct um_usage_set {
	struct vec nodes, edges, runs;
	uint32_t *hash; /* of node's lba to index + 1 */
	size_t hash_room;
	struct um_usage_sums sums;
};

static int vec_push(struct vec *vec, const void *item, size_t size)
{
	if (vec->n == vec->room) {
		size_t room = vec->room ? vec->room * 2 : 256;
		void *grown = realloc(vec->v, room * size);

		if (!grown)
			return -ENOMEM;
		vec->v = grown;
		vec->room = room;
	}
	memcpy((char *)vec->v + vec->n++ * size, item, size);
	return 0;
}

struct um_usage_set *um_usage_new(void)
{
	return calloc(1, sizeof(struct um_usage_set));
}

void um_usage_free(struct um_usage_set *set)
{
	free(set->nodes.v);
	free(set->edges.v);
	free(set->runs.v);
	free(set->hash);
	free(set);
}

/* ---- nodes by address ------------------------------------------------------------------------------- */

static struct node *node_at(const struct um_usage_set *set, uint32_t i)
{
	return (struct node *)set->nodes.v + i;
}

static size_t hash_slot(const struct um_usage_set *set, uint64_t lba)
{
	size_t i = (size_t)(lba * 0x9e3779b97f4a7c15ull >> 20) & (set->hash_room - 1);

	while (set->hash[i] && node_at(set, set->hash[i] - 1)->lba != lba)
		i = (i + 1) & (set->hash_room - 1);
	return i;
}

static int hash_grow(struct um_usage_set *set)
{
	size_t room = set->hash_room ? set->hash_room * 2 : 1024, i;
	uint32_t *fresh = calloc(room, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	free(set->hash);
	set->hash = fresh;
	set->hash_room = room;
	for (i = 0; i < set->nodes.n; i++)
		fresh[hash_slot(set, node_at(set, (uint32_t)i)->lba)] = (uint32_t)i + 1;
	return 0;
}

/* Returns the node's index; *out_new if it was not in the set yet. */
static int get_node(struct um_usage_set *set, const struct um_ioc_owner_node *from, unsigned level,
	uint32_t *out, bool *out_new)
{
	struct node fresh = {.lba = from->lba, .parents = from->parents, .level = (uint8_t)level};
	size_t slot;
	int err;

	if (set->nodes.n >= UINT32_MAX - 1)
		return -EOVERFLOW;
	if (set->nodes.n * 2 >= set->hash_room) {
		err = hash_grow(set);
		if (err)
			return err;
	}
	slot = hash_slot(set, from->lba);
	*out_new = !set->hash[slot];
	if (*out_new) {
		err = vec_push(&set->nodes, &fresh, sizeof(fresh));
		if (err)
			return err;
		set->hash[slot] = (uint32_t)set->nodes.n;
	}
	*out = set->hash[slot] - 1;
	return 0;
}

/* ---- collecting ---------------------------------------------------------------------------------------- */

/* The path of the present walk: nodes whose subtree this file walks. */
struct path {
	unsigned n;
	uint32_t node[12];
	uint64_t lba[12];
};

/* Adds the nodes of a path. *next: where to continue if the rest lies below a node that has been
 * walked before; the leaf is then left out. */
static int take_path(struct um_usage_set *set, const struct um_ioc_owners *o, struct path *path,
	bool *known, uint64_t *next)
{
	unsigned i;

	*known = false;
	if (o->nnode > 12)
		return -EPROTO;
	for (i = 0; i < o->nnode && !*known; i++) {
		struct edge edge = {i ? path->node[i - 1] : BY_FILE, 0};
		bool fresh;
		int err;

		if (i < path->n && path->lba[i] == o->node[i].lba)
			continue; /* on it already */
		err = get_node(set, &o->node[i], o->nnode - 1 - i, &edge.child, &fresh);
		if (!err)
			err = vec_push(&set->edges, &edge, sizeof(edge));
		if (err)
			return err;
		path->node[i] = edge.child;
		path->lba[i] = o->node[i].lba;
		path->n = i + 1;
		*known = !fresh;
		*next = o->node[i].end;
	}
	if (*known)
		path->n--; /* never again on it */
	return 0;
}

static int take_runs(struct um_usage_set *set, const struct um_ioc_owners *o, uint32_t leaf)
{
	uint32_t i;

	if (o->nrun > sizeof(o->run) / sizeof(o->run[0]))
		return -EPROTO;
	for (i = 0; i < o->nrun; i++) {
		struct run run = {o->run[i].lba, o->run[i].len, o->run[i].refs, leaf};
		int err = vec_push(&set->runs, &run, sizeof(run));

		if (err)
			return err;
	}
	return 0;
}

int um_usage_add(struct um_usage_set *set, int fd)
{
	struct um_ioc_owners *o = calloc(1, sizeof(*o));
	struct path path = {0};
	uint64_t first = 0;
	bool begun = false, known;
	int err = o ? 0 : -ENOMEM;

	while (!err && first != UINT64_MAX) {
		o->first = first;
		if (ioctl(fd, UM_IOC_OWNERS, o) < 0) {
			err = -errno;
			break;
		}
		if (!begun) {
			set->sums.files++;
			set->sums.inline_bytes += o->inline_bytes;
			set->sums.referenced += o->blocks * 4096 + o->inline_bytes;
			begun = true;
		}
		err = take_path(set, o, &path, &known, &first);
		if (err || known) {
			/* fallthrough to the next subtree, or out */
		} else {
			err = take_runs(set, o, o->nnode ? path.node[o->nnode - 1] : BY_FILE);
			first = o->next;
		}
		if (!err && first != UINT64_MAX && first <= o->first)
			err = -EPROTO; /* would never end */
	}
	free(o);
	return err;
}

/* ---- summing --------------------------------------------------------------------------------------------- */

static bool goes(const struct um_usage_set *set, uint32_t node)
{
	return node == BY_FILE || node_at(set, node)->gone >= node_at(set, node)->parents;
}

/* Parents are decided before their children: level by level, from the top. */
static void decide_nodes(struct um_usage_set *set)
{
	const struct edge *edges = set->edges.v;
	unsigned level;
	size_t i;

	for (level = 12; level-- > 0;)
		for (i = 0; i < set->edges.n; i++)
			if (node_at(set, edges[i].child)->level == level &&
				goes(set, edges[i].parent))
				node_at(set, edges[i].child)->gone++;
}

struct point { /* where runs begin or end */
	uint64_t lba;
	uint32_t refs; /* begin: of the run; end: 0 */
	int8_t all, gone;
};

static int cmp_point(const void *a, const void *b)
{
	const struct point *x = a, *y = b;

	return x->lba < y->lba ? -1 : x->lba > y->lba;
}

/* A sweep over the blocks. All runs that cover a block agree on its references, so the one that
 * began last represents all that overlap it. */
static void sweep(const struct point *p, size_t n, struct um_usage_sums *sums)
{
	int64_t all = 0, gone = 0;
	uint32_t refs = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (i && all > 0) {
			uint64_t bytes = (p[i].lba - p[i - 1].lba) * 4096;

			sums->physical += bytes;
			if (gone >= (int64_t)refs)
				sums->exclusive += bytes;
		}
		all += p[i].all;
		gone += p[i].gone;
		if (p[i].refs)
			refs = p[i].refs;
	}
}

int um_usage_sum(struct um_usage_set *set, struct um_usage_sums *out)
{
	const struct run *runs = set->runs.v;
	struct point *points;
	size_t i;

	decide_nodes(set);
	points = malloc((set->runs.n * 2 + 1) * sizeof(*points));
	if (!points)
		return -ENOMEM;
	for (i = 0; i < set->runs.n; i++) {
		int8_t gone = goes(set, runs[i].leaf);

		points[2 * i] = (struct point){runs[i].lba, runs[i].refs, 1, gone};
		points[2 * i + 1] = (struct point){runs[i].lba + runs[i].len, 0, -1, (int8_t)-gone};
	}
	qsort(points, set->runs.n * 2, sizeof(*points), cmp_point);
	sweep(points, set->runs.n * 2, &set->sums);
	free(points);
	*out = set->sums;
	return 0;
}
