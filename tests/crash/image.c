/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools in memory whose stores can be undone, and how the engine comes to use them. */
#include <errno.h>
#include <sys/mman.h>

#include "crash.h"

#define NBLOCKS (POOL_SIZE / B)
#define MAX_IMAGES 4
#define DONE SIZE_MAX

/* After the old bytes in the log, so that the log is read from its end. */
struct undo {
	uint8_t *array;
	uint64_t off, len;
};

static struct {
	struct image *img;
	bool live;
} registered[MAX_IMAGES];

static uint8_t *map_bytes(size_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		die("cannot map %zu bytes", size);
	return map;
}

void image_open(struct image *img, bool direct)
{
	memset(img, 0, sizeof(*img));
	img->direct = direct;
	img->base = map_bytes(POOL_SIZE);
	img->file = direct ? NULL : map_bytes(POOL_SIZE);
	img->own = xalloc(NBLOCKS);
}

void image_close(struct image *img)
{
	unsigned i;

	for (i = 0; i < MAX_IMAGES; i++)
		if (registered[i].img == img)
			registered[i].img = NULL;
	if (!img->base)
		return;
	munmap(img->base, POOL_SIZE);
	if (img->file)
		munmap(img->file, POOL_SIZE);
	free(img->own);
	free(img->log);
	memset(img, 0, sizeof(*img));
}

/* ---- stores that can be taken back ---------------------------------------------------------------- */

void image_set(struct image *img, uint8_t *array, uint64_t off, const void *src, size_t len)
{
	struct undo undo = {array, off, len};

	grow(&img->log, img->len + len + sizeof(undo), &img->cap, 1);
	memcpy(img->log + img->len, array + off, len);
	memcpy(img->log + img->len + len, &undo, sizeof(undo));
	img->len += len + sizeof(undo);
	if (src)
		memcpy(array + off, src, len);
	else
		memset(array + off, 0, len);
}

size_t image_mark(const struct image *img)
{
	return img->len;
}

void image_rollback(struct image *img, size_t mark)
{
	struct undo undo;

	while (img->len > mark) {
		memcpy(&undo, img->log + img->len - sizeof(undo), sizeof(undo));
		img->len -= sizeof(undo) + undo.len;
		memcpy(undo.array + undo.off, img->log + img->len, undo.len);
	}
}

bool image_log_next(
	const struct image *img, size_t *at, const uint8_t *array, uint64_t *off, uint64_t *len)
{
	struct undo undo;

	if (!*at)
		*at = img->len;
	while (*at != DONE && *at) {
		memcpy(&undo, img->log + *at - sizeof(undo), sizeof(undo));
		*at -= sizeof(undo) + undo.len;
		if (!*at)
			*at = DONE;
		if (undo.array != array)
			continue;
		*off = undo.off;
		*len = undo.len;
		return true;
	}
	return false;
}

void image_keep(struct image *img)
{
	img->len = 0;
}

/* A write to the file shows in the pages of the mapping that are not private. */
static void file_put(struct image *img, uint64_t off, const uint8_t *src, size_t len)
{
	while (len) {
		size_t n = B - off % B;

		if (n > len)
			n = len;
		image_set(img, img->file, off, src, n);
		if (!img->own[off / B])
			image_set(img, img->base, off, src, n);
		off += n;
		src = src ? src + n : NULL;
		len -= n;
	}
}

void image_put(struct image *img, uint64_t off, const void *src, size_t len)
{
	if (img->direct)
		image_set(img, img->base, off, src, len);
	else
		file_put(img, off, src, len);
}

void image_copy(struct image *img, const uint8_t *medium)
{
	memcpy(img->base, medium, POOL_SIZE);
	if (img->file)
		memcpy(img->file, medium, POOL_SIZE);
	memset(img->own, 0, NBLOCKS);
	image_keep(img);
}

/* ---- operations of a pool over an image --------------------------------------------------------------- */

static struct image *image_of(struct um_pool *pool)
{
	return pool->priv;
}

static int scratch_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	struct image *img = image_of(pool);

	image_put(img, off, src, len);
	if (!img->into)
		return 0;
	/* As um_pmem_write does: one aligned word is a store of its own, and flushed. */
	if (img->direct && len == sizeof(uint64_t) && !(off & 7) && src) {
		trace_add(img->into, EV_CACHED, off, src, len);
		trace_add(img->into, EV_FLUSH, off, NULL, len);
	} else {
		trace_add(img->into, EV_NT, off, src, len);
	}
	return 0;
}

static int scratch_apply(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	struct image *img = image_of(pool);
	uint8_t owned = 1;

	if (!img->direct && !img->own[off / B])
		image_set(img, img->own, off / B, &owned, 1);
	image_set(img, img->base, off, src, len);
	if (img->into && img->direct) {
		trace_add(img->into, EV_CACHED, off, src, len);
		trace_add(img->into, EV_FLUSH, off, NULL, len);
	}
	return 0;
}

static void scratch_drain(struct um_pool *pool)
{
	struct image *img = image_of(pool);

	if (img->into && img->direct)
		trace_add(img->into, EV_DRAIN, 0, NULL, 0);
}

static int scratch_barrier(struct um_pool *pool)
{
	struct image *img = image_of(pool);

	if (img->into && !img->direct)
		trace_add(img->into, EV_DRAIN, 0, NULL, 0);
	return 0;
}

static int scratch_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	struct image *img = image_of(pool);

	file_put(img, lba * B, images, (size_t)n * B);
	if (img->into)
		trace_add(img->into, EV_NT, lba * B, images, (size_t)n * B);
	return 0;
}

static void scratch_giveback(struct um_pool *pool, um_lba_t lba, uint32_t n)
{
	struct image *img = image_of(pool);

	for (; n; lba++, n--) {
		if (!img->own[lba])
			continue;
		image_set(img, img->own, lba, NULL, 1);
		image_set(img, img->base, lba * B, img->file + lba * B, B);
	}
}

/* Each pool opened is a mapping of its own, without private pages. */
static int scratch_map(struct um_pool *pool)
{
	if (!image_of(pool)->direct)
		scratch_giveback(pool, 0, NBLOCKS);
	return 0;
}

static void scratch_unmap(struct um_pool *pool)
{
	(void)pool;
}

static const struct um_pool_ops scratch_ops = {
	.name = "scratch",
	.map = scratch_map,
	.unmap = scratch_unmap,
	.write = scratch_write,
	.apply = scratch_apply,
	.drain = scratch_drain,
	.barrier = scratch_barrier,
	.writeback = scratch_writeback,
	.giveback = scratch_giveback,
};

/* The operations of real persistent memory; their calls of libpmem are replaced. */
static const struct um_pool_ops live_ops = {
	.name = "recorded",
	.map = scratch_map,
	.unmap = scratch_unmap,
	.write = um_pmem_write,
	.apply = um_pmem_apply,
	.drain = um_pmem_drain,
	.barrier = um_barrier_none,
};

static void hook(struct um_pool *pool)
{
	unsigned i;

	for (i = 0; i < MAX_IMAGES; i++) {
		struct image *img = registered[i].img;

		if (!img || img->base != pool->base)
			continue;
		pool->priv = img;
		pool->direct = img->direct;
		pool->ops = registered[i].live && img->direct ? &live_ops : &scratch_ops;
	}
}

void image_register(struct image *img, bool live)
{
	unsigned i;

	um_image_hook = hook;
	for (i = 0; i < MAX_IMAGES && registered[i].img; i++)
		;
	if (i == MAX_IMAGES)
		die("too many images");
	registered[i].img = img;
	registered[i].live = live;
}
