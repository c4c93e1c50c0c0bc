/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * /dev/daxX.Y: memory without a filesystem below. No read(2) or write(2), no private mapping, and a
 * mapping that can be split only at the device's alignment (2 MiB as a rule).
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "pool/backend.h"

bool um_devdax_probe(dev_t rdev, uint64_t *out_size, uint64_t *out_align)
{
	char name[PATH_MAX], *target;
	bool is_dax;

	snprintf(name, sizeof(name), "/sys/dev/char/%u:%u/subsystem", major(rdev), minor(rdev));
	target = realpath(name, NULL);
	is_dax = target && !strcmp(basename(target), "dax");
	free(target);
	if (!is_dax || um_sysfs_number(rdev, false, "size", out_size))
		return false;
	if (um_sysfs_number(rdev, false, "align", out_align) || !*out_align ||
		(*out_align & (*out_align - 1)) || *out_align < UM_BLOCK_SIZE)
		*out_align = UM_CHUNK_SIZE;
	return true;
}

int um_devdax_badblocks(struct um_pool *pool, um_bad_fn *fn, void *arg)
{
	struct stat st;
	int ret;

	if (!pool->badlist) {
		if (fstat(pool->fd, &st))
			return -errno;
		ret = um_badlist_region(st.st_rdev, pool->map_len, &pool->badlist);
		if (ret)
			return ret;
	}
	return um_badlist_each(pool->badlist, fn, arg);
}

const struct um_pool_ops um_ops_devdax = {
	.name = "devdax",
	.map = um_pmem_map,
	.unmap = um_pmem_unmap,
	.write = um_pmem_write,
	.apply = um_pmem_apply,
	.drain = um_pmem_drain,
	.barrier = um_barrier_none,
	.badblocks = um_devdax_badblocks,
};
