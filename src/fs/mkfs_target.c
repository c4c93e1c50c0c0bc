/* SPDX-License-Identifier: BSD-3-Clause */
/* The work of mkfs around the pool itself: examines the target's contents, refuses to destroy what
 * it should not, creates or extends a plain file, wipes foreign signatures. */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/mkfs_int.h"
#include "pool/log.h"

struct target {
	const char *path;
	enum umbra_pool_kind kind;
	bool created;  /* by us: removed again if mkfs fails */
	bool absent;   /* dry run, and there is no such file */
	uint64_t have; /* bytes before we began */
	uint64_t size; /* of the pool, whole chunks */
};

/* ---- what is there already ------------------------------------------------------------------- */

/* Whatever is here may have, or have had, a pool in a file: the sound superblocks of that one are at
 * other addresses than they say. */
static bool is_super(struct um_pool *pool, um_lba_t lba, char label[65])
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE];
	const struct um_super *super = (const struct um_super *)block;

	um_guard_check();
	memcpy(block, um_pool_ptr(pool, lba), sizeof(block));
	if (um_guard_check() || super->hdr.magic != UM_MAGIC(UM_KIND_SUPER) ||
		memcmp(super->magic, UM_POOL_MAGIC, sizeof(super->magic)))
		return false;
	if (lba && um_block_csum(block) == super->hdr.csum && um_super_second(super) != lba)
		return false;
	memcpy(label, super->label, sizeof(super->label));
	label[64] = 0;
	return true;
}

/* Does the target have an umbrafs superblock, in the first place, in a backup, or where the second
 * copy of a smaller pool would be (the start of some chunk)? Also returns the label. */
static bool holds_pool(struct um_pool *pool, char label[65])
{
	uint64_t chunks = pool->nchunks <= UM_AG_CHUNKS ? pool->nchunks : UM_AG_CHUNKS + 1;

	label[0] = 0;
	for (uint64_t i = 0; i < chunks; i++)
		if (is_super(pool, i * UM_CHUNK_BLOCKS, label))
			return true;
	return false;
}

static int open_probe(int fd, blkid_probe *out)
{
	blkid_probe probe = blkid_new_probe();

	if (!probe)
		return -ENOMEM;
	if (blkid_probe_set_device(probe, fd, 0, 0)) {
		blkid_free_probe(probe);
		return -EIO;
	}
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(
		probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(probe, 1);
	blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC);
	*out = probe;
	return 0;
}

/* -EEXIST and a log line if libblkid finds something on the target. */
static int refuse_foreign(const char *path, int fd)
{
	const char *what = NULL;
	blkid_probe probe;
	int found, ret = open_probe(fd, &probe);

	if (ret)
		return ret;
	found = blkid_do_fullprobe(probe);
	if (found == 0 && !blkid_probe_lookup_value(probe, "TYPE", &what, NULL)) {
		um_err("%s holds a signature of %s; use -f to overwrite it", path, what);
		ret = -EEXIST;
	} else if (found == 0 && !blkid_probe_lookup_value(probe, "PTTYPE", &what, NULL)) {
		um_err("%s holds a partition table (%s); use -f to overwrite it", path, what);
		ret = -EEXIST;
	} else if (found == -2) {
		um_err("%s holds more than one signature; use -f to overwrite them", path);
		ret = -EEXIST;
	} else if (found < 0) {
		um_err("%s: cannot be read for signatures: %s", path,
			strerror(errno ? errno : EIO));
		ret = -EIO;
	}
	blkid_free_probe(probe);
	return ret;
}

/* Signatures in places where a pool writes nothing would survive, and mislead others. */
static int wipe_foreign(const char *path, int fd)
{
	blkid_probe probe = NULL;
	unsigned limit = 64; /* of signatures; more means that wiping has no effect */
	int ret = open_probe(fd, &probe);

	while (!ret && limit-- && blkid_do_probe(probe) == 0)
		if (blkid_do_wipe(probe, 0))
			ret = -EIO;
	if (ret)
		um_err("%s: cannot wipe old signatures", path);
	blkid_free_probe(probe);
	return ret;
}

static bool can_probe(enum umbra_pool_kind kind)
{
	return kind != UMBRA_POOL_DEVDAX && kind != UMBRA_POOL_MEMORY;
}

/*
 * What the target knows to be bad. A note is there when an mkfs was cut: of the pool that it was
 * about to replace there may be pieces, which are not asked if the first superblock is gone. If it
 * is there but the pool cannot be read, the note is sufficient.
 */
static int load_bad(const char *path, struct um_pool *pool, bool held, struct um_badset *bad)
{
	char label[65];
	int ret = um_badnote_load(pool, bad);
	bool noted = !ret;

	if (ret == -ENOMEM)
		return ret;
	if (ret == -EUCLEAN)
		um_warn("%s: what an mkfs that did not come to its end has noted of bad blocks "
			"cannot be read",
			path);
	if (noted)
		um_info("%s: an mkfs did not come to its end here; its list of %zu bad blocks is "
			"kept to",
			path, bad->n);
	if (!held || (noted && !is_super(pool, 0, label)))
		return 0;
	ret = um_badset_load(path, bad);
	if (!ret || ret == -ENOMEM)
		return ret;
	if (noted) {
		um_warn("%s: the pool that it holds cannot be asked for its bad blocks (%s): what "
			"it found after that mkfs is not known",
			path, strerror(-ret));
		return 0;
	}
	um_err("%s: the list of bad blocks of the pool that it holds cannot be read (%s): "
	       "repair that pool "
	       "with fsck.umbrafs -y first, or give the list up with --forget-bad",
		path, strerror(-ret));
	return -EUCLEAN;
}

/* 0: it may be overwritten; *bad: blocks of it that must not be used. */
static int check_content(const struct target *target, struct um_pool *pool,
	const struct umbra_mkfs_options *opt, struct um_badset *bad)
{
	char label[65];
	bool held;
	int ret;

	*bad = (struct um_badset){0};
	if (target->created)
		return 0;
	held = holds_pool(pool, label);
	if (held && !opt->force) {
		um_err("%s holds an umbrafs pool (label \"%s\"); use -f to overwrite it",
			target->path, label);
		return -EEXIST;
	}
	if (!opt->force && can_probe(target->kind)) {
		ret = refuse_foreign(target->path, pool->fd);
		if (ret)
			return ret;
	}
	return opt->forget_bad ? 0 : load_bad(target->path, pool, held, bad);
}

/* ---- size -------------------------------------------------------------------------------------- */

static int choose_size(struct target *target, const struct umbra_mkfs_options *opt)
{
	uint64_t want = opt->size ? opt->size : target->have;

	if (!want) {
		um_err("%s is empty: say how large the pool shall be (-s SIZE)", target->path);
		return -EINVAL;
	}
	if (want > target->have && target->kind != UMBRA_POOL_FILE &&
		target->kind != UMBRA_POOL_FSDAX) {
		um_err("%s has %llu bytes, less than the %llu asked for", target->path,
			(unsigned long long)target->have, (unsigned long long)want);
		return -ENOSPC;
	}
	if (want < UM_POOL_MIN_SIZE) {
		um_err("%s: a pool needs at least %llu MiB, not %llu bytes", target->path,
			(unsigned long long)(UM_POOL_MIN_SIZE >> 20), (unsigned long long)want);
		return -ENOSPC;
	}
	if (want > (1ull << UM_LBA_BITS) * UM_BLOCK_SIZE) {
		um_err("%s: a pool cannot be larger than 1 EiB", target->path);
		return -EFBIG;
	}
	target->size = want - want % UM_CHUNK_SIZE;
	return 0;
}

/* Creates or extends a plain file to the pool's size, and allocates it unless it is to be
 * sparse. */
static int grow_file(const struct target *target, const struct umbra_mkfs_options *opt)
{
	int fd, ret = 0;

	if (target->kind != UMBRA_POOL_FILE && target->kind != UMBRA_POOL_FSDAX)
		return 0;
	fd = open(target->path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (target->have < target->size && ftruncate(fd, (off_t)target->size))
		ret = -errno;
	if (!ret && !opt->sparse && fallocate(fd, 0, 0, (off_t)target->size)) {
		if (errno != EOPNOTSUPP && errno != ENOSYS)
			ret = -errno;
		else
			um_warn("%s: the filesystem below cannot allocate ahead: the file is "
				"sparse",
				target->path);
	}
	close(fd);
	if (ret)
		um_err("%s: cannot make it %llu bytes long: %s", target->path,
			(unsigned long long)target->size, strerror(-ret));
	return ret;
}

static int create_file(struct target *target, const struct umbra_mkfs_options *opt)
{
	int fd;

	if (!opt->size) {
		um_err("%s does not exist: say how large a pool to make (-s SIZE)", target->path);
		return -ENOENT;
	}
	target->kind = UMBRA_POOL_FILE;
	if (opt->dry_run) {
		target->absent = true;
		return 0;
	}
	fd = open(target->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		int err = -errno;

		um_err("%s: cannot create it: %s", target->path, strerror(-err));
		return err;
	}
	close(fd);
	target->created = true;
	/* Now that it exists its kind is known: a file on a DAX filesystem is not a plain one. */
	return um_pool_probe(target->path, &target->have, &target->kind);
}

static int find_target(struct target *target, const struct umbra_mkfs_options *opt)
{
	struct stat st;
	int ret;

	if (stat(target->path, &st)) {
		ret = -errno;
		if (ret == -ENOENT)
			return create_file(target, opt);
		um_err("%s: %s", target->path, strerror(-ret));
		return ret;
	}
	ret = um_pool_probe(target->path, &target->have, &target->kind);
	if (ret)
		um_err("%s: is neither a file, a block device nor a DAX device", target->path);
	return ret;
}

/* The content of an existing file is examined, under the pool's lock, before anything about the
 * file changes, including its size. A file too short to be a pool cannot be in use as one. */
static int check_before(const struct target *target, const struct umbra_mkfs_options *opt)
{
	uint64_t size = target->have - target->have % UM_CHUNK_SIZE;
	struct um_badset bad;
	struct um_pool *pool;
	int fd, ret;

	if (target->created || target->absent || !target->have)
		return 0;
	if (size >= UM_POOL_MIN_SIZE) {
		ret = um_pool_open(target->path, UM_POOL_EXCL | UM_POOL_NOSUPER, size, &pool);
		if (ret)
			return ret;
		ret = check_content(target, pool, opt, &bad);
		um_badset_free(&bad);
		um_pool_close(pool);
		return ret;
	}
	if (opt->force)
		return 0;
	fd = open(target->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = refuse_foreign(target->path, fd);
	close(fd);
	return ret;
}

/* ---- all together --------------------------------------------------------------------------------- */

static void fill_info(
	const struct target *target, const struct umbra_mkfs_options *opt, struct umbra_info *out)
{
	static const char *const kinds[] = {"file", "block", "fsdax", "devdax", "memory"};
	uint64_t nchunks;

	memset(out, 0, sizeof(*out));
	um_pool_groups(target->size / UM_CHUNK_SIZE, &nchunks);
	snprintf(out->path, sizeof(out->path), "%s", target->path);
	snprintf(out->label, sizeof(out->label), "%s", opt->label ? opt->label : "");
	snprintf(out->kind, sizeof(out->kind), "%s", kinds[target->kind]);
	out->size = nchunks * UM_CHUNK_SIZE;
	out->total_blocks = nchunks * UM_CHUNK_BLOCKS;
	out->version = UM_FORMAT_VERSION;
	out->copies = opt->copies ? opt->copies : 2;
	out->data_csum = opt->data_csum;
	out->parity = opt->parity;
	out->journal_bytes = um_mkfs_journal_bytes(out->size);
	out->inodes = 1;
	out->clean = true;
}

static int make_pool(const struct target *target, const struct umbra_mkfs_options *opt)
{
	struct um_badset bad;
	struct um_pool *pool;
	int ret = um_pool_open(target->path, UM_POOL_EXCL | UM_POOL_NOSUPER, target->size, &pool);

	if (ret)
		return ret;
	/* Again, now that the lock will be held to the end: it was free in between. */
	ret = check_content(target, pool, opt, &bad);
	if (!ret && can_probe(target->kind) && !target->created)
		ret = wipe_foreign(target->path, pool->fd);
	if (!ret)
		ret = um_mkfs_write(pool, opt, &bad);
	um_badset_free(&bad);
	um_pool_close(pool);
	return ret;
}

int umbra_mkfs(const char *path, const struct umbra_mkfs_options *opt, struct umbra_info *out)
{
	static const struct umbra_mkfs_options defaults;
	struct target target = {.path = path};
	int ret;

	if (!opt)
		opt = &defaults;
	ret = um_mkfs_check_options(opt);
	if (!ret)
		ret = find_target(&target, opt);
	if (!ret)
		ret = choose_size(&target, opt);
	if (!ret)
		ret = check_before(&target, opt);
	if (!ret && out)
		fill_info(&target, opt, out);
	if (!ret && !opt->dry_run)
		ret = grow_file(&target, opt);
	if (!ret && !opt->dry_run)
		ret = make_pool(&target, opt);
	if (!ret && out && !opt->dry_run)
		ret = umbra_info_pool(path, out);
	if (ret && target.created)
		unlink(path);
	return ret;
}
