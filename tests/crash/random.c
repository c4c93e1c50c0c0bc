/* SPDX-License-Identifier: BSD-3-Clause */
/* Random calls, for long workloads. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "crash.h"

#define SIZE_MAX_RANDOM (96u * 1024)
#define NODES_MAX 60u /* from here on more is removed than created */

struct chooser {
	const struct snapshot *tree;
	uint64_t *rng;
};

/* Any path, or one of those of a type; NULL when there is none. */
static const char *pick(struct chooser *c, mode_t type)
{
	size_t i, start = rnd_below(c->rng, c->tree->n);

	for (i = 0; i < c->tree->n; i++) {
		const struct node *node = &c->tree->node[(start + i) % c->tree->n];

		if (!type || (node->mode & S_IFMT) == type)
			return intern(c->tree->text + node->path);
	}
	return "";
}

static const char *new_path(struct chooser *c)
{
	static const char *const name[] = {"n0", "n1", "n2", "n3", "n4", "n5",
		"a-longer-name-that-takes-more-room-in-a-leaf-than-the-others"};
	const char *dir = pick(c, S_IFDIR);
	char path[512];

	/* Not too deep, so that paths stay short. */
	if (strlen(dir) > 100)
		dir = "";
	snprintf(path, sizeof(path), "%s%s%s", dir, dir[0] ? "/" : "",
		name[rnd_below(c->rng, sizeof(name) / sizeof(name[0]))]);
	return intern(path);
}

static uint64_t offset(struct chooser *c)
{
	uint64_t off = rnd_below(c->rng, SIZE_MAX_RANDOM);

	return rnd_below(c->rng, 2) ? off & ~(uint64_t)(B - 1) : off;
}

static uint64_t length(struct chooser *c)
{
	static const uint32_t max[] = {64, 600, B, 3 * B, 12 * B};
	uint64_t len = 1 + rnd_below(c->rng, max[rnd_below(c->rng, 5)]);

	return rnd_below(c->rng, 3) ? len : (len + B - 1) & ~(uint64_t)(B - 1);
}

static void make_names(struct chooser *c, struct call *out)
{
	switch (rnd_below(c->rng, 5)) {
	case 0:
		*out = (struct call){CALL_MKNOD, new_path(c), NULL, 0, 0, 0, S_IFDIR | 0755};
		break;
	case 1:
		*out = (struct call){
			CALL_SYMLINK, new_path(c), NULL, 0, 1 + rnd_below(c->rng, 599), 0, 0};
		break;
	case 2:
		*out = (struct call){CALL_LINK, pick(c, S_IFREG), new_path(c), 0, 0, 0, 0};
		break;
	default:
		*out = (struct call){CALL_MKNOD, new_path(c), NULL, 0, 0, 0, S_IFREG | 0644};
		break;
	}
}

static void change_names(struct chooser *c, struct call *out)
{
	static const unsigned how[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};

	switch (rnd_below(c->rng, 4)) {
	case 0:
		*out = (struct call){CALL_UNLINK, pick(c, 0), NULL, 0, 0, 0, 0};
		break;
	case 1:
		*out = (struct call){CALL_RMDIR, pick(c, S_IFDIR), NULL, 0, 0, 0, 0};
		break;
	default:
		*out = (struct call){CALL_RENAME, pick(c, 0),
			rnd_below(c->rng, 2) ? new_path(c) : pick(c, 0), 0, 0, 0,
			how[rnd_below(c->rng, 4)]};
		break;
	}
}

static void change_open(struct world *w, struct chooser *c, struct call *out)
{
	uint64_t which = rnd_below(c->rng, 6);

	*out = (struct call){.kind = CALL_OPEN, .a = pick(c, S_IFREG)};
	if (!w->open && which < 2)
		*out = (struct call){.kind = CALL_TMPFILE, .a = pick(c, S_IFDIR)};
	if (!w->open)
		return;
	switch (which) {
	case 0:
		*out = (struct call){.kind = CALL_RELEASE};
		break;
	case 1:
		*out = (struct call){.kind = CALL_LINK_OPEN, .b = new_path(c)};
		break;
	case 2:
		*out = (struct call){.kind = CALL_TRUNCATE_OPEN, .len = offset(c)};
		break;
	default:
		*out = (struct call){.kind = CALL_WRITE_OPEN, .off = offset(c), .len = length(c)};
		break;
	}
}

static void change_data(struct chooser *c, struct call *out)
{
	static const unsigned how[] = {0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	const char *path = pick(c, S_IFREG);

	switch (rnd_below(c->rng, 6)) {
	case 0:
		*out = (struct call){.kind = CALL_APPEND, .a = path, .len = length(c)};
		break;
	case 1:
		*out = (struct call){.kind = CALL_TRUNCATE,
			.a = path,
			.len = rnd_below(c->rng, 4) ? offset(c) : 0};
		break;
	case 2:
		*out = (struct call){.kind = CALL_FALLOCATE,
			.a = path,
			.off = offset(c),
			.len = length(c),
			.flags = how[rnd_below(c->rng, 5)]};
		break;
	default:
		*out = (struct call){
			.kind = CALL_WRITE, .a = path, .off = offset(c), .len = length(c)};
		break;
	}
}

static void change_sharing(struct chooser *c, struct call *out)
{
	uint64_t which = rnd_below(c->rng, 5), mask = ~(uint64_t)(B - 1);

	*out = (struct call){.kind = CALL_CLONE, .a = pick(c, S_IFREG), .b = pick(c, S_IFREG)};
	if (which < 2)
		return;
	out->kind = which == 2 ? CALL_CLONE_RANGE : which == 3 ? CALL_COPY_RANGE : CALL_DEDUPE;
	out->off = offset(c);
	out->to = offset(c);
	out->len = rnd_below(c->rng, 3) ? (length(c) + B) & mask : 0;
	if (which == 3)
		out->len = length(c);
	else
		out->off &= mask, out->to &= mask;
}

static void change_attributes(struct chooser *c, struct call *out)
{
	static const char *const name[] = {"user.a", "user.b", "user.c"};
	const char *path = pick(c, 0), *xattr = name[rnd_below(c->rng, 3)];

	switch (rnd_below(c->rng, 5)) {
	case 0:
		*out = (struct call){.kind = CALL_CHMOD,
			.a = path,
			.flags = 0600 + (unsigned)rnd_below(c->rng, 64)};
		break;
	case 1:
		*out = (struct call){
			.kind = CALL_CHOWN, .a = path, .off = rnd_below(c->rng, 9), .len = 5};
		break;
	case 2:
		*out = (struct call){.kind = CALL_REMOVEXATTR, .a = path, .b = xattr};
		break;
	default:
		*out = (struct call){.kind = CALL_SETXATTR, .a = path, .b = xattr};
		out->len = rnd_below(c->rng, 4) ? rnd_below(c->rng, 300) : rnd_below(c->rng, 9000);
		break;
	}
}

void random_call(struct world *w, const struct snapshot *tree, uint64_t *rng, struct call *out)
{
	struct chooser c = {tree, rng};
	uint64_t which = rnd_below(rng, 100);

	if (which < 15 && tree->n < NODES_MAX)
		make_names(&c, out);
	else if (which < 30)
		change_names(&c, out);
	else if (which < 40)
		change_open(w, &c, out);
	else if (which < 65)
		change_data(&c, out);
	else if (which < 82)
		change_sharing(&c, out);
	else if (which < 92)
		change_attributes(&c, out);
	else
		*out = (struct call){.kind = which < 95   ? CALL_SYNC
					     : which < 97 ? CALL_CHECKPOINT
							  : CALL_REAP};
}
