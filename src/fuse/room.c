/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/room.h"

#include <errno.h>
#include <stdlib.h>

#include "fuse/door.h"
#include "fuse/late.h"
#include "fuse/seam.h"

struct growth {
	struct um_mount *m;
	fuse_req_t req;
	struct um_ioc_grow io;
};

static void grow(void *arg)
{
	struct growth *g = arg;
	uint64_t was, size;
	int err = umbra_grow(g->m->fs, g->io.size, g->io.sparse, &was, &size);

	if (!err) {
		g->io.was = was;
		g->io.size = size;
		fuse_reply_ioctl(g->req, 0, &g->io, sizeof(g->io));
	} else {
		fuse_reply_err(g->req, -err);
	}
	free(g);
}

void um_room_grow(struct um_mount *m, fuse_req_t req, const struct um_ioc_grow *want)
{
	struct growth *g = malloc(sizeof(*g));

	if (!g) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*g = (struct growth){m, req, *want};
	um_late(m, grow, g);
}

/* ---- trim ------------------------------------------------------------------------------------------- */

struct trimming {
	struct um_mount *m;
	fuse_req_t req;
	uint64_t unique; /* the request's number */
	struct fstrim_range range;
};

static bool stops(const struct trimming *t)
{
	return fuse_session_exited(t->m->se) || um_door_interrupted(t->m->door, t->unique);
}

/* In bounded pieces, so that it can be interrupted. */
static void trim(void *arg)
{
	struct trimming *t = arg;
	struct umbra_trim now = {
		.start = t->range.start, .len = t->range.len, .min = t->range.minlen};
	int err = 0;

	while (!err && !now.done && !stops(t))
		err = umbra_trim(t->m->fs, &now);
	t->range.len = now.bytes;
	if (!err && !now.done)
		err = -EINTR;
	if (err)
		fuse_reply_err(t->req, -err);
	else
		fuse_reply_ioctl(t->req, 0, &t->range, sizeof(t->range));
	free(t);
}

void um_room_trim(struct um_mount *m, fuse_req_t req, const struct fstrim_range *range)
{
	struct trimming *t = malloc(sizeof(*t));

	if (!t) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*t = (struct trimming){m, req, um_facts.unique, *range};
	um_late(m, trim, t);
}
