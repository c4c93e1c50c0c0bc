/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad block lists of the kernel: a sysfs file "badblocks" for each disk and each NVDIMM region. Its
 * lines are "SECTOR COUNT", in sectors of 512 bytes, counted from the start of the disk or region.
 * The lists are short and nearly always empty. They are polled every second, since only some
 * changes of a list wake poll(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"

#define SECTOR 512u
#define LIST_MAX 4096u /* the most that sysfs returns */
#define EXTENTS 64u

struct um_badlist {
	int fd;
	uint64_t start, len; /* bytes of it that are of the pool, or its filesystem */
	size_t last_len;     /* its contents at the last call */
	char last[LIST_MAX];
};

int um_badlist_open(const char *path, uint64_t start, uint64_t len, struct um_badlist **out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct um_badlist *list;

	if (fd < 0)
		return -errno;
	list = calloc(1, sizeof(*list));
	if (!list) {
		close(fd);
		return -ENOMEM;
	}
	list->fd = fd;
	list->start = start;
	list->len = len;
	*out = list;
	return 0;
}

static int read_number(const char *dir, const char *attr, uint64_t *out)
{
	char name[PATH_MAX + 32], text[32];
	FILE *file;
	int ret = -EIO;

	snprintf(name, sizeof(name), "%s/%s", dir, attr);
	file = fopen(name, "re");
	if (!file)
		return -errno;
	if (fgets(text, sizeof(text), file)) {
		errno = 0;
		*out = strtoull(text, NULL, 0);
		ret = -errno;
	}
	fclose(file);
	return ret;
}

int um_sysfs_number(dev_t rdev, bool block, const char *attr, uint64_t *out)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/sys/dev/%s/%u:%u", block ? "block" : "char", major(rdev),
		minor(rdev));
	return read_number(dir, attr, out);
}

/* The list of the disk that a block device is, or is a partition of. */
int um_badlist_disk(dev_t rdev, struct um_badlist **out)
{
	uint64_t start = 0, sectors;
	char name[128];
	int ret;

	ret = um_sysfs_number(rdev, true, "size", &sectors);
	if (ret)
		return ret;
	if (sectors > UINT64_MAX / SECTOR)
		return -EOVERFLOW;
	/* Only a partition has a start; the list is that of its disk. */
	ret = um_sysfs_number(rdev, true, "start", &start);
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/%sbadblocks", major(rdev), minor(rdev),
		ret ? "" : "../");
	return um_badlist_open(name, start * SECTOR, sectors * SECTOR, out);
}

/* The list of the region that contains a DAX device, found by physical address. A DAX device may
 * have no region (memory that the firmware set aside). */
int um_badlist_region(dev_t rdev, uint64_t size, struct um_badlist **out)
{
	char name[PATH_MAX + 16], *dir, *cut;
	uint64_t start, region;
	int ret;

	snprintf(name, sizeof(name), "/sys/dev/char/%u:%u", major(rdev), minor(rdev));
	dir = realpath(name, NULL);
	if (!dir)
		return -errno;
	ret = read_number(dir, "resource", &start);
	while (!ret && (cut = strrchr(dir, '/')) && cut != dir) {
		*cut = 0;
		snprintf(name, sizeof(name), "%s/badblocks", dir);
		if (access(name, F_OK))
			continue;
		ret = read_number(dir, "resource", &region);
		if (!ret && start < region)
			ret = -ERANGE;
		if (!ret)
			ret = um_badlist_open(name, start - region, size, out);
		free(dir);
		return ret;
	}
	free(dir);
	return ret ? ret : -ENOENT;
}

void um_badlist_close(struct um_badlist *list)
{
	if (!list)
		return;
	close(list->fd);
	free(list);
}

/* Reports the part of [start, start + len) of the disk or region that is the pool's, rounded out to
 * blocks. */
static int report(
	const struct um_badlist *list, uint64_t sector, uint64_t count, um_bad_fn *fn, void *arg)
{
	uint64_t from, to, end = list->start + list->len;

	if (!count || sector > UINT64_MAX / SECTOR || count > UINT64_MAX / SECTOR - sector)
		return 0;
	from = sector * SECTOR;
	to = from + count * SECTOR;
	if (to <= list->start || from >= end)
		return 0;
	from = from < list->start ? 0 : from - list->start;
	to = (to > end ? end : to) - list->start;
	from &= ~(uint64_t)(UM_BLOCK_SIZE - 1);
	to = (to + UM_BLOCK_SIZE - 1) & ~(uint64_t)(UM_BLOCK_SIZE - 1);
	return fn(arg, from, to - from);
}

int um_badlist_each(struct um_badlist *list, um_bad_fn *fn, void *arg)
{
	unsigned long long sector, count;
	char text[LIST_MAX + 1], *line, *save = NULL;
	ssize_t n = pread(list->fd, text, LIST_MAX, 0);
	int ret = 0;

	if (n < 0)
		return -errno;
	if ((size_t)n == list->last_len && !memcmp(text, list->last, (size_t)n))
		return 0;
	memcpy(list->last, text, (size_t)n);
	list->last_len = (size_t)n;
	text[n] = 0;
	for (line = strtok_r(text, "\n", &save); line && !ret; line = strtok_r(NULL, "\n", &save))
		if (sscanf(line, "%llu %llu", &sector, &count) == 2)
			ret = report(list, sector, count, fn, arg);
	if (ret)
		list->last_len = 0; /* report everything again next time */
	return ret;
}

/* ---- a file on a block device ---------------------------------------------------------------------------- */

struct hit {
	uint64_t from, len;
};

struct hits {
	struct hit *hit;
	size_t n;
};

static int keep_hit(void *arg, uint64_t from, uint64_t len)
{
	struct hits *hits = arg;
	struct hit *more = realloc(hits->hit, (hits->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	hits->hit = more;
	more[hits->n++] = (struct hit){from, len};
	return 0;
}

/* Reports the bad part of an extent, as offsets in the file. */
static int match(
	const struct fiemap_extent *extent, const struct hits *hits, um_bad_fn *fn, void *arg)
{
	uint64_t begin = extent->fe_physical, end = begin + extent->fe_length;
	size_t i;
	int ret = 0;

	for (i = 0; i < hits->n && !ret; i++) {
		uint64_t from = hits->hit[i].from, to = from + hits->hit[i].len;

		if (from < begin)
			from = begin;
		if (to > end)
			to = end;
		if (from < to)
			ret = fn(arg, extent->fe_logical + (from - begin), to - from);
	}
	return ret;
}

int um_file_extents(int fd, uint64_t size, um_extent_fn *fn, void *arg)
{
	struct fiemap *map;
	uint64_t at = 0;
	unsigned i;
	int ret = 0;

	map = calloc(1, sizeof(*map) + EXTENTS * sizeof(map->fm_extents[0]));
	if (!map)
		return -ENOMEM;
	while (!ret && at < size) {
		struct fiemap_extent *extent;

		memset(map, 0, sizeof(*map));
		map->fm_start = at;
		map->fm_length = size - at;
		map->fm_extent_count = EXTENTS;
		if (ioctl(fd, FS_IOC_FIEMAP, map)) {
			ret = -errno;
			break;
		}
		for (i = 0; i < map->fm_mapped_extents && !ret; i++) {
			extent = &map->fm_extents[i];
			ret = fn(arg, extent);
			at = extent->fe_logical + extent->fe_length;
			if (extent->fe_flags & FIEMAP_EXTENT_LAST)
				at = size;
		}
		if (!map->fm_mapped_extents)
			break;
	}
	free(map);
	return ret;
}

struct walk {
	const struct hits *hits;
	um_bad_fn *fn;
	void *arg;
};

static int match_extent(void *arg, const struct fiemap_extent *extent)
{
	struct walk *w = arg;

	/* Without an address of its own there is nothing to compare. */
	if (extent->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC |
				       FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_INLINE))
		return 0;
	return match(extent, w->hits, w->fn, w->arg);
}

int um_badlist_file(struct um_badlist *list, int fd, uint64_t size, um_bad_fn *fn, void *arg)
{
	struct hits hits = {NULL, 0};
	struct walk walk = {&hits, fn, arg};
	int ret = um_badlist_each(list, keep_hit, &hits);

	if (!ret && hits.n)
		ret = um_file_extents(fd, size, match_extent, &walk);
	free(hits.hit);
	if (ret)
		list->last_len = 0;
	return ret;
}

/* ---- the pool's ------------------------------------------------------------------------------------------- */

/* True if the block has not been logged before, nor exceeds the limit. It may be known already, by
 * a signal or a load. */
static bool name_it(struct um_pool *pool, um_lba_t lba)
{
	uint64_t i;

	for (i = 0; i < pool->nlisted && i < UM_LISTED_LOG; i++)
		if (pool->listed[i] == lba)
			return false;
	if (pool->nlisted++ >= UM_LISTED_LOG)
		return false;
	pool->listed[i] = lba;
	return true;
}

static int note_bad(void *arg, uint64_t off, uint64_t len)
{
	struct um_pool *pool = arg;
	um_lba_t lba = off >> UM_BLOCK_SHIFT, end;

	if (off >= pool->map_len)
		return 0;
	if (len > pool->map_len - off)
		len = pool->map_len - off;
	end = (off + len + UM_BLOCK_SIZE - 1) >> UM_BLOCK_SHIFT;
	for (; lba < end; lba++) {
		um_pool_set_lost(pool, lba, 1);
		if (name_it(pool, lba))
			um_warn("%s: block %llu is on the kernel's list of bad blocks", pool->path,
				(unsigned long long)lba);
	}
	return 0;
}

int um_pool_scan_bad(struct um_pool *pool)
{
	uint64_t before = pool->nlisted;
	int ret;

	if (!pool->ops->badblocks || pool->unlisted)
		return 0;
	ret = pool->ops->badblocks(pool, note_bad, pool);
	pool->unlisted = ret == -ENOENT;
	if (pool->unlisted)
		return 0;
	if (ret && !pool->scan_failed)
		um_warn("%s: the kernel's list of bad blocks cannot be read: %s", pool->path,
			strerror(-ret));
	pool->scan_failed = ret != 0;
	if (ret)
		return ret;
	return pool->nlisted != before;
}
