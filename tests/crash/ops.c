/* SPDX-License-Identifier: BSD-3-Clause */
/* The operations of which short workloads are made, by name, and the pools they begin with. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "crash.h"

#define FILE_MODE (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)
#define MKFILE(path)                                                                               \
	{                                                                                          \
		.kind = CALL_MKNOD, .a = path, .flags = FILE_MODE                                  \
	}
#define MKDIR(path)                                                                                \
	{                                                                                          \
		.kind = CALL_MKNOD, .a = path, .flags = DIR_MODE                                   \
	}
#define TWO(k, x, y)                                                                               \
	{                                                                                          \
		.kind = k, .a = x, .b = y                                                          \
	}
#define ONE(k, x)                                                                                  \
	{                                                                                          \
		.kind = k, .a = x                                                                  \
	}
#define RENAME(x, y, how)                                                                          \
	{                                                                                          \
		.kind = CALL_RENAME, .a = x, .b = y, .flags = how                                  \
	}
#define WRITE(path, at, n)                                                                         \
	{                                                                                          \
		.kind = CALL_WRITE, .a = path, .off = at, .len = n                                 \
	}
#define TRUNCATE(path, n)                                                                          \
	{                                                                                          \
		.kind = CALL_TRUNCATE, .a = path, .len = n                                         \
	}
#define FALLOCATE(path, how, at, n)                                                                \
	{                                                                                          \
		.kind = CALL_FALLOCATE, .a = path, .flags = how, .off = at, .len = n               \
	}
#define XATTR(path, name, n, how)                                                                  \
	{                                                                                          \
		.kind = CALL_SETXATTR, .a = path, .b = name, .len = n, .flags = how                \
	}
#define RANGE(k, from, at, n, onto, there)                                                         \
	{                                                                                          \
		.kind = k, .a = from, .off = at, .len = n, .b = onto, .to = there                  \
	}

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO FALLOC_FL_ZERO_RANGE
#define KEEP FALLOC_FL_KEEP_SIZE
#define LEAVE_FREE 12u /* blocks of the config "full" */

/*
 * On these: foo, 10000 bytes, and A/foo, a whole clone of it; bar, 100 bytes in its record, with
 * A/bar a link to it; own, 5000 bytes; big, 40 extents in a node, bigc its clone, big2 with content
 * of its own; A/x with xattrs; same1 and same2, equal and not shared; sym, a symlink; B, empty.
 */
const struct op crash_ops[] = {
	{"create", {MKFILE("new")}},
	{"create_A", {MKFILE("A/new")}},
	{"create_B", {MKFILE("B/new")}},
	{"mkdir", {MKDIR("D")}},
	{"mkdir_A", {MKDIR("A/D")}},
	{"mkfifo", {{.kind = CALL_MKNOD, .a = "A/fifo", .flags = S_IFIFO | 0600}}},
	{"mknod", {{.kind = CALL_MKNOD, .a = "chr", .flags = S_IFCHR | 0600}}},
	{"symlink", {{.kind = CALL_SYMLINK, .a = "A/short", .len = 20}}},
	{"symlink_long", {{.kind = CALL_SYMLINK, .a = "long", .len = 599}}},
	{"link", {TWO(CALL_LINK, "foo", "B/foo")}},
	{"link_bar", {TWO(CALL_LINK, "bar", "new")}},
	{"unlink_foo", {ONE(CALL_UNLINK, "foo")}},
	{"unlink_bar", {ONE(CALL_UNLINK, "bar")}},
	{"unlink_A_bar", {ONE(CALL_UNLINK, "A/bar")}},
	{"unlink_A_foo", {ONE(CALL_UNLINK, "A/foo")}},
	{"unlink_big", {ONE(CALL_UNLINK, "big")}},
	{"unlink_bigc", {ONE(CALL_UNLINK, "bigc")}},
	{"unlink_big2", {ONE(CALL_UNLINK, "big2")}},
	{"unlink_sharers", {ONE(CALL_UNLINK, "big"), ONE(CALL_UNLINK, "bigc")}},
	{"unlink_sharer_write",
		{ONE(CALL_UNLINK, "big"), {.kind = CALL_REAP}, WRITE("bigc", 8192, 4096)}},
	{"reuse", {ONE(CALL_UNLINK, "big2"), {.kind = CALL_REAP}, WRITE("own", 8192, 65536)}},
	{"unshare_write", {TRUNCATE("A/foo", 0), WRITE("foo", 4096, 100)}},
	{"unshare_truncate",
		{ONE(CALL_UNLINK, "A/foo"), {.kind = CALL_REAP}, TRUNCATE("foo", 5000)}},
	{"unlink_x", {ONE(CALL_UNLINK, "A/x")}},
	{"unlink_sym", {ONE(CALL_UNLINK, "sym")}},
	{"unlink_open", {ONE(CALL_OPEN, "foo"), ONE(CALL_UNLINK, "foo"),
				{.kind = CALL_WRITE_OPEN, .off = 0, .len = 5000},
				{.kind = CALL_TRUNCATE_OPEN, .len = 100}, {.kind = CALL_RELEASE}}},
	{"rmdir", {ONE(CALL_RMDIR, "B")}},
	{"rmdir_full", {ONE(CALL_RMDIR, "A")}},
	{"rename", {RENAME("foo", "foo2", 0)}},
	{"rename_into", {RENAME("foo", "B/foo", 0)}},
	{"rename_out", {RENAME("A/foo", "out", 0)}},
	{"rename_replace", {RENAME("foo", "bar", 0)}},
	{"rename_replace_last", {RENAME("bar", "foo", 0)}},
	{"rename_replace_A", {RENAME("big", "A/foo", 0)}},
	{"rename_links", {RENAME("bar", "A/bar", 0)}},
	{"rename_noreplace", {RENAME("foo", "new", RENAME_NOREPLACE)}},
	{"rename_exists", {RENAME("foo", "bar", RENAME_NOREPLACE)}},
	{"exchange", {RENAME("foo", "A/x", RENAME_EXCHANGE)}},
	{"exchange_dir", {RENAME("A", "bar", RENAME_EXCHANGE)}},
	{"rename_dir", {RENAME("A", "B/A", 0)}},
	{"rename_dir_replace", {RENAME("A", "B", 0)}},
	{"rename_dir_in", {RENAME("B", "A/B", 0)}},
	{"tmpfile", {ONE(CALL_TMPFILE, ""), {.kind = CALL_RELEASE}}},
	{"tmpfile_link", {ONE(CALL_TMPFILE, "A"), {.kind = CALL_WRITE_OPEN, .len = 6000},
				 {.kind = CALL_LINK_OPEN, .b = "A/tmp"}, {.kind = CALL_RELEASE}}},
	{"write_inside", {WRITE("foo", 100, 50)}},
	{"write_block", {WRITE("foo", 4096, 4096)}},
	{"write_blocks", {WRITE("foo", 2000, 5000)}},
	{"write_own", {WRITE("big2", 8192 + 100, 3000)}},
	{"write_own_block", {WRITE("big2", 16384, 4096)}},
	{"write_own_blocks", {WRITE("big2", 100, 20000)}},
	{"write_hole", {WRITE("big2", 5 * 4096, 4096)}},
	{"append", {{.kind = CALL_APPEND, .a = "foo", .len = 300}}},
	{"append_blocks", {{.kind = CALL_APPEND, .a = "foo", .len = 9000}}},
	{"append_small", {{.kind = CALL_APPEND, .a = "bar", .len = 50}}},
	{"append_two", {ONE(CALL_OPEN, "bar"),
			       {.kind = CALL_WRITE_OPEN, .len = 700, .flags = UMBRA_WRITE_APPEND},
			       {.kind = CALL_APPEND, .a = "A/bar", .len = 4000},
			       {.kind = CALL_WRITE_OPEN, .len = 60, .flags = UMBRA_WRITE_APPEND},
			       {.kind = CALL_RELEASE}}},
	{"write_beyond", {WRITE("foo", 20000, 100)}},
	{"append_own", {{.kind = CALL_APPEND, .a = "own", .len = 300}}},
	{"append_own_blocks", {{.kind = CALL_APPEND, .a = "own", .len = 9000}}},
	{"write_own_beyond", {WRITE("own", 7000, 500)}},
	{"truncate_own_up", {TRUNCATE("own", 8192)}},
	{"truncate_own_down", {TRUNCATE("own", 4100)}},
	{"write_inline", {WRITE("bar", 10, 20)}},
	{"write_uninline", {WRITE("bar", 50, 5000)}},
	{"write_uninline_hole", {WRITE("bar", 9000, 10)}},
	{"write_clone", {WRITE("A/foo", 0, 4096)}},
	{"write_clone_tail", {WRITE("A/foo", 9000, 3000)}},
	{"write_bigc", {WRITE("bigc", 16 * 4096 + 10, 200)}},
	{"write_big", {WRITE("big", 0, 12288)}},
	{"truncate_0", {TRUNCATE("foo", 0)}},
	{"truncate_tail", {TRUNCATE("foo", 5000)}},
	{"truncate_block", {TRUNCATE("A/foo", 4096)}},
	{"truncate_up", {TRUNCATE("foo", 20001)}},
	{"truncate_inline", {TRUNCATE("bar", 10)}},
	{"truncate_inline_up", {TRUNCATE("bar", 5000)}},
	{"truncate_own", {TRUNCATE("big2", 8192 + 77)}},
	{"truncate_big", {TRUNCATE("big", 40 * 4096 + 5)}},
	{"truncate_bigc_0", {TRUNCATE("bigc", 0)}},
	{"truncate_up_down", {TRUNCATE("big2", 400000), TRUNCATE("big2", 100)}},
	{"fallocate", {FALLOCATE("foo", 0, 8192, 16384)}},
	{"fallocate_keep", {FALLOCATE("foo", KEEP, 12288, 8192)}},
	{"fallocate_inline", {FALLOCATE("bar", 0, 0, 10000)}},
	{"fallocate_holes", {FALLOCATE("big2", 0, 0, 40960)}},
	{"fallocate_write", {FALLOCATE("big2", KEEP, 4096, 4096), WRITE("big2", 4096, 4096)}},
	{"punch", {FALLOCATE("foo", PUNCH, 4096, 4096)}},
	{"punch_ragged", {FALLOCATE("big2", PUNCH, 100, 9000)}},
	{"punch_shared", {FALLOCATE("bigc", PUNCH, 20 * 4096, 8192)}},
	{"punch_all", {FALLOCATE("A/foo", PUNCH, 0, 20000)}},
	{"zero_range", {FALLOCATE("foo", ZERO, 1000, 6000)}},
	{"zero_range_own", {FALLOCATE("big2", ZERO, 4096, 8192)}},
	{"zero_range_up", {FALLOCATE("big2", ZERO, 70 * 4096, 81920)}},
	{"zero_range_keep", {FALLOCATE("foo", ZERO | KEEP, 8192, 8192)}},
	{"setxattr", {XATTR("bar", "user.new", 40, 0)}},
	{"setxattr_large", {XATTR("bar", "user.large", 3000, 0)}},
	{"setxattr_huge", {XATTR("foo", "user.huge", 30000, XATTR_CREATE)}},
	{"setxattr_replace", {XATTR("A/x", "user.small", 33, 0)}},
	{"setxattr_grow", {XATTR("A/x", "user.small", 2000, XATTR_REPLACE)}},
	{"setxattr_shrink", {XATTR("A/x", "user.large", 5, 0)}},
	{"setxattr_exists", {XATTR("A/x", "user.large", 5, XATTR_CREATE)}},
	{"setxattr_dir", {XATTR("A", "user.dir", 500, 0)}},
	{"removexattr", {TWO(CALL_REMOVEXATTR, "A/x", "user.small")}},
	{"removexattr_large", {TWO(CALL_REMOVEXATTR, "A/x", "user.large")}},
	{"chmod", {{.kind = CALL_CHMOD, .a = "foo", .flags = 0600}}},
	{"chmod_dir", {{.kind = CALL_CHMOD, .a = "A", .flags = 01777}}},
	{"chown", {{.kind = CALL_CHOWN, .a = "A/foo", .off = 5, .len = 6}}},
	{"utimens", {{.kind = CALL_UTIMENS, .a = "bar", .off = 5, .len = 600}}},
	{"chattr", {{.kind = CALL_FLAGS, .a = "foo", .flags = FS_NODUMP_FL}}},
	{"chattr_i", {{.kind = CALL_FLAGS, .a = "foo", .flags = FS_IMMUTABLE_FL}}},
	{"clone_foo", {MKFILE("new"), TWO(CALL_CLONE, "foo", "new")}},
	{"clone_bar", {MKFILE("new"), TWO(CALL_CLONE, "bar", "new")}},
	{"clone_big", {MKFILE("new"), TWO(CALL_CLONE, "big", "new")}},
	{"clone_over", {TWO(CALL_CLONE, "big", "foo")}},
	{"clone_over_own", {TWO(CALL_CLONE, "foo", "big2")}},
	{"clone_again", {TWO(CALL_CLONE, "bigc", "big")}},
	{"clone_write", {MKFILE("new"), TWO(CALL_CLONE, "big2", "new"), WRITE("new", 8192, 4096),
				WRITE("big2", 8192, 100)}},
	{"clone_at_foo", {TWO(CALL_CLONE_AT, "foo", "new")}},
	{"clone_at_bar", {TWO(CALL_CLONE_AT, "bar", "A/new")}},
	{"clone_at_big", {TWO(CALL_CLONE_AT, "big2", "B/new"), WRITE("B/new", 8192, 4096)}},
	{"clone_at_x", {TWO(CALL_CLONE_AT, "A/x", "x")}},
	{"clone_at_sym", {TWO(CALL_CLONE_AT, "sym", "B/sym")}},
	{"clone_at_exists", {TWO(CALL_CLONE_AT, "foo", "bar")}},
	{"clone_block", {RANGE(CALL_CLONE_RANGE, "foo", 4096, 4096, "big2", 8192)}},
	{"clone_range", {RANGE(CALL_CLONE_RANGE, "big2", 0, 32768, "foo", 4096)}},
	{"clone_range_end", {RANGE(CALL_CLONE_RANGE, "foo", 4096, 0, "bar", 4096)}},
	{"clone_range_self", {RANGE(CALL_CLONE_RANGE, "big2", 0, 8192, "big2", 40960)}},
	{"copy_range", {RANGE(CALL_COPY_RANGE, "foo", 4096, 5904, "bar", 4096)}},
	{"copy_ragged", {RANGE(CALL_COPY_RANGE, "foo", 100, 6000, "big2", 200)}},
	{"dedupe", {RANGE(CALL_DEDUPE, "same1", 0, 8192, "same2", 0)}},
	{"dedupe_block", {RANGE(CALL_DEDUPE, "same1", 4096, 4096, "same2", 4096)}},
	{"sync", {{.kind = CALL_SYNC}}},
	/* The second sync of a row needs no barrier of its own for what it lists: pool/rests.h. */
	{"sync_overwrite", {{.kind = CALL_SYNC}, WRITE("big2", 5 * 4096, 4096), {.kind = CALL_SYNC},
				   WRITE("big2", 5 * 4096 + 600, 2000)}},
	{"sync_append",
		{{.kind = CALL_SYNC}, {.kind = CALL_APPEND, .a = "own", .len = 9000},
			{.kind = CALL_SYNC}, {.kind = CALL_APPEND, .a = "own", .len = 700},
			{.kind = CALL_SYNC}, {.kind = CALL_APPEND, .a = "own", .len = 700}}},
	{"sync_large", {{.kind = CALL_SYNC}, WRITE("own", 8192, 70000), {.kind = CALL_SYNC}}},
	{"sync_reuse",
		{{.kind = CALL_SYNC}, WRITE("own", 8192, 8192), TRUNCATE("own", 5000),
			{.kind = CALL_SYNC}, {.kind = CALL_REAP}, WRITE("big2", 5 * 4096, 8192)}},
	{"grow", {{.kind = CALL_GROW}, WRITE("own", 8192, 65536)}},
};
const unsigned crash_nops = sizeof(crash_ops) / sizeof(crash_ops[0]);

int op_find(const char *name)
{
	unsigned i;

	for (i = 0; i < crash_nops; i++)
		if (!strcmp(crash_ops[i].name, name))
			return (int)i;
	return -1;
}

/* ---- the pools ------------------------------------------------------------------------------------------ */

static void must(struct world *w, struct call call)
{
	int ret = call_run(w, &call);

	if (ret)
		die("setup: call %d on %s: %s", call.kind, call.a ? call.a : "-", strerror(-ret));
}

static void fill_standard(struct world *w)
{
	unsigned i;

	must(w, (struct call)MKDIR("A"));
	must(w, (struct call)MKDIR("B"));
	must(w, (struct call)MKFILE("foo"));
	must(w, (struct call)WRITE("foo", 0, 10000));
	must(w, (struct call)MKFILE("A/foo"));
	must(w, (struct call)TWO(CALL_CLONE, "foo", "A/foo"));
	must(w, (struct call)MKFILE("bar"));
	must(w, (struct call)WRITE("bar", 0, 100));
	must(w, (struct call)TWO(CALL_LINK, "bar", "A/bar"));
	must(w, (struct call)MKFILE("own"));
	must(w, (struct call)WRITE("own", 0, 5000));
	must(w, (struct call)MKFILE("big"));
	must(w, (struct call)MKFILE("big2"));
	for (i = 0; i < 40; i++) {
		must(w, (struct call)WRITE("big", 2 * i * B, B));
		must(w, (struct call)WRITE("big2", 2 * i * B, B));
	}
	must(w, (struct call)MKFILE("bigc"));
	must(w, (struct call)TWO(CALL_CLONE, "big", "bigc"));
	must(w, (struct call)MKFILE("A/x"));
	must(w, (struct call)XATTR("A/x", "user.small", 33, 0));
	must(w, (struct call)XATTR("A/x", "user.large", 3000, 0));
	for (i = 0; i < 2; i++) {
		const char *name = i ? "same2" : "same1";

		must(w, (struct call)MKFILE(name));
		must(w, (struct call){.kind = CALL_WRITE, .a = name, .len = 8192, .to = 7});
	}
	must(w, (struct call){.kind = CALL_SYMLINK, .a = "sym", .len = 3});
}

/* Directories with nodes that are full, or nearly: names come and go with splits and merges. */
static void fill_wide(struct world *w)
{
	char path[256];
	unsigned i;

	fill_standard(w);
	for (i = 0; i < 130; i++) {
		snprintf(path, sizeof(path), "%s/a-name-of-no-great-length-%03u", i & 1 ? "A" : "B",
			i);
		must(w, (struct call)MKFILE(path));
	}
	for (i = 0; i < 12; i++) {
		snprintf(path, sizeof(path), "entry-%u", i);
		must(w, (struct call)MKFILE(path));
	}
}

/* Little is left: what is freed is reused at once, and operations fail half-way. */
static void fill_full(struct world *w)
{
	struct statvfs st;

	fill_standard(w);
	must(w, (struct call)MKFILE("fill"));
	if (umbra_statfs(w->fs, &st))
		die("setup: statfs");
	/* Behind the end of the file, so that nobody has to read it. */
	if (st.f_bavail > LEAVE_FREE)
		must(w, (struct call)FALLOCATE("fill", KEEP, 0, (st.f_bavail - LEAVE_FREE) * B));
}

const struct config crash_configs[] = {
	{"standard", 2, true, UMBRA_DATA_ATOMIC, fill_standard, 0},
	{"file", 2, false, UMBRA_DATA_ATOMIC, fill_standard, 0},
	{"wide", 2, true, UMBRA_DATA_ATOMIC, fill_wide, 0},
	{"full", 2, true, UMBRA_DATA_ATOMIC, fill_full, 0},
	{"file_full", 2, false, UMBRA_DATA_ATOMIC, fill_full, 0},
	{"single", 1, true, UMBRA_DATA_ATOMIC, fill_standard, 0},
	{"inplace", 2, true, UMBRA_DATA_INPLACE, fill_standard, 0},
	{"parity", 2, true, UMBRA_DATA_ATOMIC, fill_standard, CRASH_CSUM | CRASH_PARITY},
	{"file_parity", 2, false, UMBRA_DATA_ATOMIC, fill_standard, CRASH_CSUM | CRASH_PARITY},
};
const unsigned crash_nconfigs = sizeof(crash_configs) / sizeof(crash_configs[0]);

int config_mount(const struct config *config, struct image *img, struct umbra_fs **out)
{
	struct umbra_options opt = {
		.data = config->data, .atime = UMBRA_NOATIME, .shadow_mem = 64 << 10};

	um_reaper_manual = true;
	return umbra_open_image(img->base, POOL_SIZE, &opt, out);
}

void config_make(const struct config *config, struct image *img)
{
	static const uint8_t uuid[16] = "crash machine  ";
	struct umbra_mkfs_options opt = {.copies = config->copies,
		.data_csum = config->features & CRASH_CSUM,
		.parity = config->features & CRASH_PARITY,
		.uuid = uuid,
		.hash_seed = 12345,
		.made_sec = 1700000000};
	struct world w = {0};
	int ret;

	/* Memory that was never written is not zero either. */
	memset(img->base, 0xe5, POOL_SIZE);
	if (img->file)
		memset(img->file, 0xe5, POOL_SIZE);
	ret = umbra_mkfs_image(img->base, MADE_SIZE, &opt);
	if (!ret)
		ret = config_mount(config, img, &w.fs);
	if (ret)
		die("config %s: %s", config->name, strerror(-ret));
	config->fill(&w);
	world_end(&w);
	ret = umbra_close(w.fs);
	if (ret)
		die("config %s: close: %s", config->name, strerror(-ret));
	image_keep(img);
}
