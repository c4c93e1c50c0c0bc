/* SPDX-License-Identifier: BSD-3-Clause */
/* File data: several threads on one file. Short, since it also runs under ThreadSanitizer. */
#include "datakit.h"

#include <pthread.h>

#define THREADS 4
#define SLOT (64u << 10)

struct worker {
	struct kit *k;
	uint64_t ino, other;
	unsigned id;
	pthread_t thread;
	uint8_t want[SLOT];
};

/* Each owns a slot of one file and sees its own writes, whatever the others do around it. */
static void *slot_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t seed = w->id * 977 + 1, base = (uint64_t)w->id * SLOT;
	uint8_t buf[SLOT];

	for (int i = 0; i < 400; i++) {
		uint64_t off = (seed >> 20) % SLOT, len = 1 + (seed >> 40) % 9000;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		if (len > SLOT - off)
			len = SLOT - off;
		pattern(w->want + off, len, seed);
		if (umbra_write(w->k->fs, w->ino, w->want + off, len, base + off, 0, NULL) !=
			(ssize_t)len)
			return (void *)1;
		if (umbra_read(w->k->fs, w->ino, buf, SLOT, base) < (ssize_t)(off + len) ||
			memcmp(buf + off, w->want + off, len))
			return (void *)2;
		if (i % 40 == 39 && w->id == 0 && umbra_clone(w->k->fs, w->ino, w->other))
			return (void *)3;
		if (i % 100 == 50 && w->id == 1 && um_data_resize(w->k->fs, w->other, 0, false))
			return (void *)4;
	}
	return NULL;
}

static void several_writers(struct kit *k)
{
	struct file f, other;
	static struct worker w[THREADS];

	file_make(k, &f, "f", THREADS * SLOT);
	file_make(k, &other, "other", THREADS * SLOT);
	file_truncate(k, &f, THREADS * SLOT);
	for (unsigned i = 0; i < THREADS; i++) {
		w[i].k = k;
		w[i].ino = f.ino;
		w[i].other = other.ino;
		w[i].id = i;
		memset(w[i].want, 0, SLOT);
		ok(pthread_create(&w[i].thread, NULL, slot_worker, &w[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		void *result;

		ok(pthread_join(w[i].thread, &result));
		assert_null(result);
		want_bytes(&f, (uint64_t)i * SLOT, w[i].want, SLOT);
	}
	file_verify(k, &f);
	kit_crash(k);
	file_verify(k, &f);
	file_free(&f);
	file_free(&other);
	kit_close(k);
}

static void writers_of_one_file_do_not_disturb_each_other(void **state)
{
	struct kit k;

	(void)state;
	for (int mode = UMBRA_DATA_ATOMIC; mode <= UMBRA_DATA_INPLACE; mode++) {
		kit_open(&k, 64, (enum umbra_data_mode)mode);
		several_writers(&k);
	}
	kit_open_file(&k, "test_writers.pool", 64);
	several_writers(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writers_of_one_file_do_not_disturb_each_other),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
