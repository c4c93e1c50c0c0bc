/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools with damaged metadata whose checksums are nevertheless right (or not): mounting, reading
 * and changing them, and fsck. The result of fsck -y must be clean, and complete except for what
 * depended on the damaged blocks. What depends on a block is found by making it unreadable and
 * trying to read everything.
 *
 * Blocks are selected by their headers and nothing else, so new kinds are included automatically.
 * The pool is "wide" of the crash tests, or the one that UMBRA_FUZZ_POOL names.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "edit.h"
#include "heal/check_int.h"
#include "tree.h"

#define EDITS_MAX 4u

static struct image image;
static uint8_t *golden;
static struct tree base; /* everything there is before any damage */
static uint8_t **
	hangs; /* by LBA: for each of base's inodes, whether it depends on the block; NULL: unknown */
static struct {
	uint64_t mounted, refused, checked, repaired, unrepairable, journal;
} count;

/* ---- what hangs on a block ---------------------------------------------------------------------------- */

static int mount(struct umbra_fs **out)
{
	struct umbra_options opt = {.atime = UMBRA_NOATIME, .shadow_mem = 1 << 20};

	um_reaper_manual = true;
	return umbra_open_image(image.base, POOL_SIZE, &opt, out);
}

static void spoil(uint64_t lba)
{
	uint8_t spoiled[64];
	unsigned i;

	memcpy(spoiled, image.base + lba * B + 2048, sizeof(spoiled));
	for (i = 0; i < sizeof(spoiled); i++)
		spoiled[i] ^= 0xff;
	image_set(&image, image.base, lba * B + 2048, spoiled, sizeof(spoiled));
}

static uint8_t *find_out(const struct block *block)
{
	uint8_t *hang = xalloc(base.n + 1);
	size_t mark = image_mark(&image), i;
	struct umbra_fs *fs;

	spoil(block->lba);
	if (block->mirror)
		spoil(block->mirror);
	if (mount(&fs)) {
		memset(hang, 1, base.n);
	} else {
		for (i = 0; i < base.n; i++) {
			uint64_t sum;

			hang[i] = !tree_sum(fs, base.file[i].ino, &sum) || sum != base.file[i].sum;
		}
		umbra_abandon(fs);
	}
	image_rollback(&image, mark);
	return hang;
}

static const uint8_t *hangs_on(const struct block *block)
{
	/* On the original pool: nothing is edited yet. */
	if (!hangs[block->lba])
		hangs[block->lba] = find_out(block);
	return hangs[block->lba];
}

/* ---- using a damaged pool ------------------------------------------------------------------------------ */

static int write_some(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len)
{
	static uint8_t bytes[3 * B];
	uint64_t at;
	ssize_t done = umbra_write(fs, ino, bytes, len, off, 0, &at);

	return done < 0 ? (int)done : 0;
}

/* Some of every operation; the results on a damaged pool are undefined. */
static void change(struct umbra_fs *fs, struct input *in)
{
	static const struct umbra_cred cred = {.umask = 022};
	uint64_t ino = base.file[take_16(in) % base.n].ino, made;
	struct umbra_attr attr, size = {.st.st_size = take_16(in)};

	if (!umbra_mknod(fs, UM_ROOT_INO, "made", S_IFREG | 0600, 0, &cred, &attr)) {
		made = attr.st.st_ino;
		umbra_clone(fs, ino, made);
		write_some(fs, made, 3000, 5000);
		umbra_clone_range(fs, ino, 0, B, made, 8 * B);
		umbra_forget(fs, made, 1);
	}
	write_some(fs, ino, take_16(in), 2 * B);
	umbra_setattr(fs, ino, &size, UMBRA_SET_SIZE, &attr);
	umbra_fallocate(fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * B);
	umbra_setxattr(fs, ino, "user.fuzz", "value", 5, 0, false);
	umbra_mknod(fs, ino, "below", S_IFDIR | 0700, 0, &cred, &attr);
	umbra_rename(fs, UM_ROOT_INO, "big", UM_ROOT_INO, "foo", 0);
	umbra_unlink(fs, UM_ROOT_INO, "bigc");
	umbra_unlink(fs, UM_ROOT_INO, "bar");
	umbra_rmdir(fs, UM_ROOT_INO, "B");
	um_reaper_run(fs);
}

static void use(struct input *in)
{
	struct umbra_fs *fs;
	struct tree seen = {0};

	if (mount(&fs)) {
		count.refused++;
		return;
	}
	count.mounted++;
	tree_walk(fs, &seen);
	change(fs, in);
	tree_free(&seen);
	tree_walk(fs, &seen);
	tree_free(&seen);
	if (take_8(in) & 1)
		umbra_close(fs);
	else
		umbra_abandon(fs);
}

/* ---- fsck ------------------------------------------------------------------------------------------------- */

static void ignore(void *arg, const char *code, bool repaired, const char *text)
{
	(void)arg;
	if (getenv("UMBRA_FUZZ_LOG"))
		fprintf(stderr, "  fsck: %s%s: %s\n", code, repaired ? "*" : "", text);
}

static int repair(struct umbra_check_report *report)
{
	return umbra_check_image(image.base, POOL_SIZE, UMBRA_CHECK_REPAIR, ignore, NULL, report);
}

/* Undamaged files must exist, under some name, unchanged. */
static void compare(struct umbra_fs *fs, const struct edits *edits, unsigned data)
{
	struct tree now = {0};
	size_t i, e;

	tree_walk(fs, &now);
	if (now.errors && !data)
		fuzz_fail("after fsck -y %u things cannot be read", now.errors);
	for (i = 0; i < base.n; i++) {
		const struct file *was = &base.file[i], *is = tree_find(&now, was->ino);
		bool may = edits->all;

		for (e = 0; e < edits->n && !may; e++)
			may = edits->lost[e] && edits->hang[e][i];
		if (may)
			continue;
		if (!is)
			fuzz_fail("after fsck -y inode %llu is gone", (unsigned long long)was->ino);
		if (is->sum != was->sum)
			fuzz_fail("after fsck -y inode %llu is not what it was",
				(unsigned long long)was->ino);
	}
	tree_free(&now);
}

static void check(struct input *in, const struct edits *edits)
{
	struct umbra_check_report report;
	struct umbra_fs *fs;
	unsigned data = 0;
	int ret = repair(&report);

	count.checked++;
	if (ret) {
		count.unrepairable++;
		if (!edits->super)
			fuzz_fail("fsck -y: %s", strerror(-ret));
		return;
	}
	count.repaired += report.problems > 0;
	ret = base_check(&image, true, &data);
	if (ret)
		fuzz_fail("after fsck -y, fsck -n finds %d problems", ret);
	ret = mount(&fs);
	if (ret)
		fuzz_fail("after fsck -y: mount: %s", strerror(-ret));
	compare(fs, edits, data);
	change(fs, in);
	ret = umbra_close(fs);
	if (ret)
		fuzz_fail("after fsck -y: close: %s", strerror(-ret));
	ret = base_check(&image, true, &data);
	if (ret)
		fuzz_fail("after fsck -y and some changes, fsck -n finds %d problems", ret);
}

/* ---- an input ------------------------------------------------------------------------------------------------ */

static void one(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	uint8_t how = take_8(&in);
	struct edits edits = {0};
	unsigned i, n = 1 + (how >> 1) % EDITS_MAX;

	edits_plan(&in, n, &edits);
	for (i = 0; i < edits.n; i++)
		edits.hang[i] = how & 1 ? hangs_on(edits.block[i]) : NULL;
	edits_do(&image, &edits);
	count.journal += edits.all;
	if (how & 1)
		check(&in, &edits);
	else
		use(&in);
	image_rollback(&image, 0);
}

static void start(void)
{
	const char *pool = getenv("UMBRA_FUZZ_POOL");
	struct umbra_fs *fs;

	base_make(&image, pool ? pool : "wide");
	golden = xalloc(POOL_SIZE);
	memcpy(golden, image.base, POOL_SIZE);
	hangs = xalloc(POOL_SIZE / B * sizeof(*hangs));
	if (mount(&fs))
		die("the pool cannot be mounted");
	tree_walk(fs, &base);
	if (base.errors)
		die("the pool cannot be read");
	umbra_abandon(fs);
	image_rollback(&image, 0);
	edits_open(golden, &base);
}

/* Nothing was stored that nobody knows of. */
static void reset(void)
{
	if (memcmp(image.base, golden, POOL_SIZE))
		fuzz_fail("something stored to the pool behind the back of its operations");
}

static void end(void)
{
	size_t i;

	for (i = 0; i < POOL_SIZE / B; i++)
		free(hangs[i]);
	free(hangs);
	free(golden);
	tree_free(&base);
	edits_close();
	image_close(&image);
}

static void report(void)
{
	printf("  %llu pools mounted, %llu refused; %llu through fsck -y, %llu of them with "
	       "problems, %llu with "
	       "superblocks past repair; %llu with a record in the journal\n",
		(unsigned long long)count.mounted, (unsigned long long)count.refused,
		(unsigned long long)count.checked, (unsigned long long)count.repaired,
		(unsigned long long)count.unrepairable, (unsigned long long)count.journal);
}

const struct fuzz_target fuzz_target = {.name = "pool",
	.max_len = 192,
	.inputs_per_reset = 32,
	.start = start,
	.one = one,
	.reset = reset,
	.end = end,
	.report = report};
