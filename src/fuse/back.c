/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data that the kernel has not sent, with the mount option writeback.
 *
 * Only a file that is open for writing can have any: close(2) sends everything, and a mapping keeps
 * its file open. No notification means "send", but the one that drops pages has the effect, since
 * dirty pages have to be sent first.
 */
#include "fuse/back.h"

#include <stdlib.h>
#include <string.h>

#include "fuse/guardian.h"
#include "fuse/message.h"

void um_back_start(struct um_mount *m)
{
	int err;

	if (!m->writeback)
		return;
	err = um_guardian_start(m, 0, &m->guardian);
	if (err)
		um_message(UMBRA_LOG_WARN,
			"no guardian could be started (%s): if this process is killed by force, "
			"users of %s may "
			"hang until umount -f",
			strerror(-err), m->dir);
}

void um_back_stop(struct um_mount *m)
{
	um_guardian_stop(m->guardian);
	m->guardian = NULL;
}

bool um_back_guarded(struct um_mount *m)
{
	return m->guardian && um_guardian_there(m->guardian);
}

bool um_back_owed(const struct um_mount *m, uint64_t ino)
{
	return m->writeback && umbra_file_writers(m->fs, ino);
}

void um_back_fetch(const struct um_mount *m, uint64_t ino)
{
	if (um_back_owed(m, ino))
		um_inval_data(m, ino, 0, 0);
}

void um_back_fetch_all(const struct um_mount *m)
{
	size_t room = 0, n = m->writeback ? umbra_writers(m->fs, NULL, 0) : 0;
	uint64_t *list = NULL, *grown;

	while (n > room && (grown = realloc(list, 2 * n * sizeof(*list)))) {
		list = grown;
		room = 2 * n;
		n = umbra_writers(m->fs, list, room);
	}
	for (size_t i = 0; i < n && i < room; i++)
		um_back_fetch(m, list[i]);
	free(list);
}
