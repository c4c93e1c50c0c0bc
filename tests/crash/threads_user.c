/* SPDX-License-Identifier: BSD-3-Clause */
/* What one of the threads does, and what its files are to be then. */
#include <errno.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "threads.h"

static const struct umbra_cred cred = {.umask = 022};

void user_file_name(char name[16], unsigned user, unsigned file)
{
	snprintf(name, 16, "t%uf%u", user, file);
}

static uint32_t below(struct user *u, uint32_t n)
{
	return (uint32_t)rnd_below(&u->chance, n);
}

/* ---- notes ------------------------------------------------------------------------------------- */

static void add_note(struct user *u, unsigned touched, struct model *saved)
{
	grow(&u->note, u->nnote, &u->cap_note, sizeof(*u->note));
	u->note[u->nnote++] =
		(struct note){.at = record_length(), .touched = touched, .saved = saved};
}

static void touch(struct user *u, unsigned file)
{
	add_note(u, 1u << file, NULL);
}

/* True: it was done. Without space nothing was. */
static bool done(struct user *u, const char *what, int64_t ret)
{
	if (ret < 0 && ret != -ENOSPC && !u->bad[0])
		snprintf(u->bad, sizeof(u->bad), "thread %u: %s: %s", u->number, what,
			strerror((int)-ret));
	return ret >= 0;
}

/* ---- operations ---------------------------------------------------------------------------------- */

static void make(struct user *u, unsigned f)
{
	struct umbra_attr attr;
	char name[16];

	user_file_name(name, u->number, f);
	touch(u, f);
	if (!done(u, "mknod",
		    umbra_mknod(u->fs, UM_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &attr)))
		return;
	u->ino[f] = attr.st.st_ino;
	memset(&u->file[f], 0, sizeof(u->file[f]));
	u->file[f].exists = true;
}

/* Each word names the thread: another one's data would show. */
static void put(struct user *u, unsigned f, uint32_t off, uint32_t len, unsigned flags)
{
	static _Thread_local uint64_t words[FILE_MAX / 8];
	struct model *m = &u->file[f];
	uint64_t at;
	ssize_t n;

	u->version++;
	for (uint32_t i = 0; i < len / 8; i++)
		words[i] = (uint64_t)(TAG_BASE | u->number) << 24 | (u->version & 0xffffff);
	touch(u, f);
	n = umbra_write(u->fs, u->ino[f], words, len, off, flags, &at);
	if (!done(u, "write", n))
		return;
	memcpy(m->data + off, words, (size_t)n);
	if (off + n > m->size)
		m->size = off + (uint32_t)n;
}

static void put_anywhere(struct user *u, unsigned f)
{
	uint32_t off = below(u, FILE_MAX / GRAIN) * GRAIN;
	uint32_t len = (1 + below(u, below(u, 2) ? 4 : 40)) * GRAIN;

	if (below(u, 2)) {
		off &= ~(uint32_t)(B - 1);
		len = (len + B - 1) & ~(uint32_t)(B - 1);
	}
	put(u, f, off, len < FILE_MAX - off ? len : FILE_MAX - off, 0);
}

static void append(struct user *u, unsigned f)
{
	uint32_t size = u->file[f].size, len = (1 + below(u, 12)) * GRAIN;

	/* Of unknown size it might grow beyond what we look at. */
	if (size + len <= FILE_MAX && !u->file[f].unknown)
		put(u, f, size, len, UMBRA_WRITE_APPEND);
}

static void truncate_to(struct user *u, unsigned f)
{
	uint32_t size = below(u, FILE_MAX / GRAIN + 1) * GRAIN;
	struct umbra_attr attr = {.st.st_size = size};
	struct model *m = &u->file[f];

	touch(u, f);
	if (!done(u, "truncate", umbra_setattr(u->fs, u->ino[f], &attr, UMBRA_SET_SIZE, &attr)))
		return;
	if (size < m->size)
		memset(m->data + size, 0, m->size - size);
	m->size = size;
}

static void clone_to(struct user *u, unsigned f, unsigned g)
{
	struct model *m = &u->file[f], *to = &u->file[g];
	int ret;

	if (!to->exists || (!m->size && !m->unknown))
		return;
	touch(u, g);
	ret = umbra_clone(u->fs, u->ino[f], u->ino[g]);
	if (ret == -EINVAL) /* part of a block would replace what follows it */
		return;
	if (!done(u, "clone", ret))
		return;
	memcpy(to->data, m->data, m->size);
	if (m->size > to->size)
		to->size = m->size;
	to->unknown |= m->unknown;
}

static void drop(struct user *u, unsigned f)
{
	char name[16];

	user_file_name(name, u->number, f);
	touch(u, f);
	if (!done(u, "unlink", umbra_unlink(u->fs, UM_ROOT_INO, name)))
		return;
	umbra_forget(u->fs, u->ino[f], 1);
	memset(&u->file[f], 0, sizeof(u->file[f]));
}

static void rename_over(struct user *u, unsigned f, unsigned g)
{
	char name[16], to[16];

	if (!u->file[g].exists)
		return;
	user_file_name(name, u->number, f);
	user_file_name(to, u->number, g);
	add_note(u, 1u << f | 1u << g, NULL);
	if (!done(u, "rename", umbra_rename(u->fs, UM_ROOT_INO, name, UM_ROOT_INO, to, 0)))
		return;
	umbra_forget(u->fs, u->ino[g], 1);
	u->ino[g] = u->ino[f];
	u->file[g] = u->file[f];
	memset(&u->file[f], 0, sizeof(u->file[f]));
}

static void allocate(struct user *u, unsigned f, int mode)
{
	uint32_t off = below(u, FILE_MAX / GRAIN) * GRAIN, len = (1 + below(u, 30)) * GRAIN;
	struct model *m = &u->file[f];

	if (len > FILE_MAX - off)
		len = FILE_MAX - off;
	touch(u, f);
	if (!done(u, "fallocate", umbra_fallocate(u->fs, u->ino[f], mode, off, len))) {
		m->unknown = true; /* it goes in steps, and some may have been made */
		return;
	}
	if (mode)
		memset(m->data + off, 0, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > m->size)
		m->size = off + len;
}

static void sync_file(struct user *u, unsigned f)
{
	struct model *saved;

	if (!done(u, "fsync", umbra_fsync(u->fs, u->ino[f], false)))
		return;
	saved = xalloc(sizeof(u->file));
	memcpy(saved, u->file, sizeof(u->file));
	add_note(u, 0, saved); /* a commit covers all files */
}

static void look(struct user *u, unsigned f)
{
	static _Thread_local uint8_t buf[FILE_MAX];
	struct model *m = &u->file[f];
	ssize_t n;

	if (!m->exists || m->unknown)
		return;
	n = umbra_read(u->fs, u->ino[f], buf, FILE_MAX, 0);
	if (!u->bad[0] && (n != (ssize_t)m->size || memcmp(buf, m->data, (size_t)n)))
		snprintf(u->bad, sizeof(u->bad), "t%uf%u does not read back, without any cut",
			u->number, f);
}

static void operate(struct user *u)
{
	unsigned f = below(u, FILES), g = (f + 1 + below(u, FILES - 1)) % FILES;
	unsigned what = below(u, 100);

	if (!u->file[f].exists)
		make(u, f);
	if (!u->file[f].exists)
		return;
	if (what < 30)
		put_anywhere(u, f);
	else if (what < 50)
		append(u, f);
	else if (what < 60)
		truncate_to(u, f);
	else if (what < 70)
		clone_to(u, f, g);
	else if (what < 78)
		drop(u, f);
	else if (what < 84)
		allocate(u, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	else if (what < 88)
		allocate(u, f, below(u, 2) ? 0 : FALLOC_FL_ZERO_RANGE);
	else if (what < 90)
		rename_over(u, f, g);
	else
		sync_file(u, f);
	if (!below(u, 8))
		look(u, f);
}

void user_run(struct user *u, unsigned operations)
{
	while (operations-- && !u->bad[0])
		operate(u);
}
