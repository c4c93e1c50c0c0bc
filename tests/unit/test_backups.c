/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking for old backups of the superblock, beside a writer: a thread of its own, so that TSan runs it. */
#include <pthread.h>
#include <time.h>

#include "datakit.h"
#include "txn/internal.h"

#define MIB (1ull << 20)

static const char path[] = "test_backups.pool";

static void *refresh(void *arg)
{
	um_backups_refresh(arg);
	return NULL;
}

/* A large pool has thousands, and mostly none is old: no writer waits until they have been read. */
static void to_look_for_old_backups_stops_no_writer(void **state)
{
	uint64_t was, size;
	struct timespec until;
	struct um_txn *txn;
	pthread_t thread;
	struct kit k;
	int ret;

	(void)state;
	kit_open_file(&k, path, 20);
	ok(umbra_grow(k.fs, 64 * MIB, true, &was, &size));
	assert_int_equal(size, 64 * MIB);
	ok(um_txn_begin(k.fs->log, 0, &txn));
	ok(pthread_create(&thread, NULL, refresh, k.fs));
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	ret = pthread_timedjoin_np(thread, NULL, &until);
	um_txn_abort(txn);
	if (ret)
		pthread_join(thread, NULL);
	ok(ret);
	kit_close(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(to_look_for_old_backups_stops_no_writer),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
