/* SPDX-License-Identifier: BSD-3-Clause */
/* The operations of the kill test: derived from numbers, applied to a state, done on the mount. */
#include "writers.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "fuse/clone.h"

static const char *const kinds[OP_KINDS] = {"create", "write", "append", "truncate", "punch",
	"rename", "exchange", "link", "unlink", "mkdir", "rmdir", "rename of a directory",
	"setxattr", "chmod", "copy", "clone", "dedupe"};

const char *op_name(const struct op *op)
{
	static char text[120];

	snprintf(text, sizeof(text), "%s %d %d, blocks %u+%u", kinds[op->kind], op->a, op->b,
		op->block, op->len);
	return text;
}

static uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void state_init(struct state *state)
{
	memset(state, 0, sizeof(*state));
	for (int i = 0; i < NAMES; i++)
		state->name[i] = -1;
}

void op_make(uint64_t seed, uint64_t n, struct op *out)
{
	static const enum kind likely[] = {OP_CREATE, OP_CREATE, OP_WRITE, OP_WRITE, OP_WRITE,
		OP_WRITE, OP_APPEND, OP_APPEND, OP_TRUNCATE, OP_PUNCH, OP_RENAME, OP_RENAME,
		OP_EXCHANGE, OP_LINK, OP_UNLINK, OP_MKDIR, OP_MKDIR, OP_RMDIR, OP_RENAME_DIR,
		OP_XATTR, OP_CHMOD, OP_COPY, OP_COPY, OP_CLONE, OP_CLONE, OP_CLONE, OP_DEDUPE};
	uint64_t r = mix(mix(seed) ^ n);
	bool dirs;

	out->kind = likely[r % (sizeof(likely) / sizeof(likely[0]))];
	r = mix(r);
	dirs = out->kind == OP_MKDIR || out->kind == OP_RMDIR || out->kind == OP_RENAME_DIR;
	out->a = (int)(r % (dirs ? NDIR : NAMES));
	out->b = (int)((r >> 16) % (dirs ? NDIR : NAMES));
	out->block = (unsigned)((r >> 32) % FBLOCKS);
	out->len = 1 + (unsigned)((r >> 48) % ((r >> 60) ? 6 : FBLOCKS));
	if (out->len > FBLOCKS - out->block)
		out->len = FBLOCKS - out->block;
	out->tag = mix(r) | 1;
}

static bool parent_exists(const struct state *s, int name)
{
	return name < NTOP || s->dir[(name - NTOP) / NPER];
}

static bool dir_empty(const struct state *s, int d)
{
	for (int i = 0; i < NPER; i++)
		if (s->name[NTOP + d * NPER + i] >= 0)
			return false;
	return true;
}

bool op_valid(const struct state *s, const struct op *op)
{
	bool a_there;

	switch (op->kind) {
	case OP_MKDIR:
		return !s->dir[op->a];
	case OP_RMDIR:
		return s->dir[op->a] && dir_empty(s, op->a);
	case OP_RENAME_DIR:
		return op->a != op->b && s->dir[op->a] && (!s->dir[op->b] || dir_empty(s, op->b));
	default:
		break;
	}
	a_there = s->name[op->a] >= 0;
	switch (op->kind) {
	case OP_CREATE:
		return !a_there && parent_exists(s, op->a);
	case OP_RENAME:
		return a_there && parent_exists(s, op->b) && op->a != op->b &&
		       s->name[op->a] != s->name[op->b];
	case OP_EXCHANGE:
		return a_there && s->name[op->b] >= 0 && s->name[op->a] != s->name[op->b];
	case OP_LINK:
		return a_there && parent_exists(s, op->b) && s->name[op->b] < 0;
	case OP_COPY:
	case OP_CLONE:
	case OP_DEDUPE:
		return a_there && s->name[op->b] >= 0 && s->name[op->a] != s->name[op->b] &&
		       s->file[s->name[op->a]].nblocks;
	case OP_APPEND:
		return a_there && s->file[s->name[op->a]].nblocks + op->len <= FBLOCKS;
	default:
		return a_there;
	}
}

static void drop_name(struct state *s, int name)
{
	s->file[s->name[name]].nlink--;
	s->name[name] = -1;
}

static void set_blocks(struct file *f, unsigned block, unsigned len, uint64_t tag)
{
	for (unsigned b = f->nblocks; b < block; b++)
		f->tag[b] = 0;
	for (unsigned b = block; b < block + len; b++)
		f->tag[b] = tag + b;
	if (f->nblocks < block + len)
		f->nblocks = block + len;
}

static void apply_create(struct state *s, const struct op *op)
{
	int n = 0;

	while (s->file[n].nlink)
		n++;
	memset(&s->file[n], 0, sizeof(s->file[n]));
	s->file[n].nlink = 1;
	s->file[n].mode = 0600 | (unsigned)(op->tag >> 8 & 077);
	s->name[op->a] = n;
}

static void apply_rename_dir(struct state *s, int from, int to)
{
	s->dir[from] = false;
	s->dir[to] = true;
	for (int i = 0; i < NPER; i++) {
		s->name[NTOP + to * NPER + i] = s->name[NTOP + from * NPER + i];
		s->name[NTOP + from * NPER + i] = -1;
	}
}

static void apply_names(struct state *s, const struct op *op)
{
	int was;

	switch (op->kind) {
	case OP_RENAME:
		if (s->name[op->b] >= 0)
			drop_name(s, op->b);
		s->name[op->b] = s->name[op->a];
		s->name[op->a] = -1;
		break;
	case OP_EXCHANGE:
		was = s->name[op->a];
		s->name[op->a] = s->name[op->b];
		s->name[op->b] = was;
		break;
	case OP_LINK:
		s->name[op->b] = s->name[op->a];
		s->file[s->name[op->a]].nlink++;
		break;
	default:
		drop_name(s, op->a);
	}
}

static void apply_data(struct state *s, const struct op *op)
{
	struct file *f = &s->file[s->name[op->a]], *to;

	switch (op->kind) {
	case OP_WRITE:
		set_blocks(f, op->block, op->len, op->tag);
		break;
	case OP_APPEND:
		set_blocks(f, f->nblocks, op->len, op->tag);
		break;
	case OP_TRUNCATE:
		for (unsigned b = f->nblocks; b < op->block; b++)
			f->tag[b] = 0;
		f->nblocks = op->block;
		break;
	case OP_PUNCH:
		for (unsigned b = op->block; b < op->block + op->len && b < f->nblocks; b++)
			f->tag[b] = 0;
		break;
	case OP_XATTR:
		f->xtag = op->len % 4 ? op->tag : 0;
		break;
	case OP_CHMOD:
		f->mode = 0600 | (unsigned)(op->tag >> 8 & 077);
		break;
	default:
		to = &s->file[s->name[op->b]];
		memcpy(to->tag, f->tag, f->nblocks * sizeof(f->tag[0]));
		if (to->nblocks < f->nblocks)
			to->nblocks = f->nblocks;
	}
}

void op_apply(struct state *s, const struct op *op)
{
	switch (op->kind) {
	case OP_CREATE:
		apply_create(s, op);
		break;
	case OP_MKDIR:
	case OP_RMDIR:
		s->dir[op->a] = op->kind == OP_MKDIR;
		break;
	case OP_RENAME_DIR:
		apply_rename_dir(s, op->a, op->b);
		break;
	case OP_RENAME:
	case OP_EXCHANGE:
	case OP_LINK:
	case OP_UNLINK:
		apply_names(s, op);
		break;
	default:
		apply_data(s, op);
	}
}

int op_in_pieces(const struct state *after, const struct op *op)
{
	if (op->kind == OP_WRITE || op->kind == OP_APPEND)
		return after->name[op->a];
	if (op->kind == OP_COPY || op->kind == OP_DEDUPE)
		return after->name[op->b];
	/* A whole clone replaces all there is, at once, unless the destination was longer. */
	if (op->kind == OP_CLONE &&
		after->file[after->name[op->b]].nblocks > after->file[after->name[op->a]].nblocks)
		return after->name[op->b];
	return -1;
}

size_t xattr_value(uint64_t tag, unsigned char out[XATTR_MAX])
{
	size_t len = 8 + (tag >> 20) % ((tag >> 40) % 4 ? 200 : XATTR_MAX - 8);

	memset(out, (int)(tag >> 3), len);
	memcpy(out, &tag, 8);
	return len;
}

/* ---- on the mount --------------------------------------------------------------------------------- */

void name_path(int name, char path[32])
{
	if (name < NTOP)
		snprintf(path, 32, "n%d", name);
	else
		snprintf(path, 32, "d%d/n%d", (name - NTOP) / NPER, (name - NTOP) % NPER);
}

static int write_blocks(int fd, unsigned block, unsigned len, uint64_t tag, bool append)
{
	static uint64_t buf[FBLOCKS * BLOCK / 8];
	size_t bytes = (size_t)len * BLOCK;
	ssize_t n;

	for (size_t i = 0; i < bytes / 8; i++)
		buf[i] = tag + block + i / (BLOCK / 8);
	n = append ? write(fd, buf, bytes) : pwrite(fd, buf, bytes, (off_t)block * BLOCK);
	if (n < 0)
		return -errno;
	return n == (ssize_t)bytes ? 0 : -EIO;
}

static int do_copy(int from, int root, const char *to, unsigned nblocks)
{
	loff_t a = 0, b = 0, end = (loff_t)nblocks * BLOCK;
	int rc = 0, fd = openat(root, to, O_WRONLY);

	if (fd < 0)
		return -errno;
	while (!rc && a < end) {
		ssize_t n = copy_file_range(from, &a, fd, &b, (size_t)(end - a), 0);

		if (n <= 0)
			rc = n ? -errno : -EIO;
	}
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

/* By the door that FICLONE and FIDEDUPERANGE take under umbractl exec. */
static int share(int from, int to, unsigned nblocks, bool dedupe)
{
	struct um_ioc_clone clone = {.op = UM_CLONE_DEDUPE, .len = (uint64_t)nblocks * BLOCK};
	struct um_ioc_token token;
	uint64_t done;

	if (!dedupe)
		return um_ioc_clone(from, 0, 0, to, 0, &done);
	if (ioctl(from, UM_IOC_TOKEN, &token))
		return -errno;
	memcpy(clone.token, token.token, sizeof(clone.token));
	if (ioctl(to, UM_IOC_CLONE, &clone))
		return -errno;
	return clone.status != FILE_DEDUPE_RANGE_SAME ? -EUCLEAN : 0;
}

/* What the file has is written to the other one, and then shared. */
static int copy_and_dedupe(int from, int to, unsigned nblocks)
{
	static char buf[FBLOCKS * BLOCK];
	ssize_t len = (ssize_t)nblocks * BLOCK;

	if (pread(from, buf, (size_t)len, 0) != len || pwrite(to, buf, (size_t)len, 0) != len)
		return errno ? -errno : -EIO;
	return share(from, to, nblocks, true);
}

static int do_share(int from, int root, const char *to, unsigned nblocks, bool dedupe)
{
	int rc, fd = openat(root, to, O_RDWR);

	if (fd < 0)
		return -errno;
	errno = 0;
	rc = dedupe ? copy_and_dedupe(from, fd, nblocks) : share(from, fd, nblocks, false);
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

static int do_xattr(int fd, const struct op *op)
{
	unsigned char value[XATTR_MAX];

	if (op->len % 4 == 0)
		return fremovexattr(fd, "user.tag") && errno != ENODATA ? -errno : 0;
	return fsetxattr(fd, "user.tag", value, xattr_value(op->tag, value), 0) ? -errno : 0;
}

static int do_on_file(int root, const struct state *s, const struct op *op)
{
	const struct file *f = &s->file[s->name[op->a]];
	char path[32], other[32];
	int rc, fd;

	name_path(op->a, path);
	name_path(op->b, other);
	fd = openat(root, path, O_RDWR | (op->kind == OP_APPEND ? O_APPEND : 0));
	if (fd < 0)
		return -errno;
	switch (op->kind) {
	case OP_WRITE:
		rc = write_blocks(fd, op->block, op->len, op->tag, false);
		break;
	case OP_APPEND:
		rc = write_blocks(fd, f->nblocks, op->len, op->tag, true);
		break;
	case OP_TRUNCATE:
		rc = ftruncate(fd, (off_t)op->block * BLOCK) ? -errno : 0;
		break;
	case OP_PUNCH:
		rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)op->block * BLOCK, (off_t)op->len * BLOCK);
		rc = rc ? -errno : 0;
		break;
	case OP_XATTR:
		rc = do_xattr(fd, op);
		break;
	case OP_CHMOD:
		rc = fchmod(fd, 0600 | (unsigned)(op->tag >> 8 & 077)) ? -errno : 0;
		break;
	case OP_CLONE:
	case OP_DEDUPE:
		rc = do_share(fd, root, other, f->nblocks, op->kind == OP_DEDUPE);
		break;
	default:
		rc = do_copy(fd, root, other, f->nblocks);
	}
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

static int do_on_dir(int root, const struct op *op)
{
	char a[32], b[32];

	snprintf(a, sizeof(a), "d%d", op->a);
	snprintf(b, sizeof(b), "d%d", op->b);
	if (op->kind == OP_MKDIR)
		return mkdirat(root, a, 0755) ? -errno : 0;
	if (op->kind == OP_RMDIR)
		return unlinkat(root, a, AT_REMOVEDIR) ? -errno : 0;
	return renameat(root, a, root, b) ? -errno : 0;
}

int op_do(int root, const struct state *s, const struct op *op)
{
	char a[32], b[32];
	int fd;

	name_path(op->a, a);
	name_path(op->b, b);
	switch (op->kind) {
	case OP_MKDIR:
	case OP_RMDIR:
	case OP_RENAME_DIR:
		return do_on_dir(root, op);
	case OP_CREATE:
		fd = openat(
			root, a, O_RDWR | O_CREAT | O_EXCL, 0600 | (unsigned)(op->tag >> 8 & 077));
		return fd < 0 || close(fd) ? -errno : 0;
	case OP_RENAME:
		return renameat(root, a, root, b) ? -errno : 0;
	case OP_EXCHANGE:
		return renameat2(root, a, root, b, RENAME_EXCHANGE) ? -errno : 0;
	case OP_LINK:
		return linkat(root, a, root, b, 0) ? -errno : 0;
	case OP_UNLINK:
		return unlinkat(root, a, 0) ? -errno : 0;
	default:
		return do_on_file(root, s, op);
	}
}
