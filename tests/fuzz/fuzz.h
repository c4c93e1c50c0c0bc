/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzzing. Each program fuzzes one target; driver.c feeds it inputs: those of a corpus, mutated at
 * random, and, if the library was built with coverage (the build option fuzz_coverage), those that
 * reached new code.
 *
 * An input is a program of a few bytes, read by take_*: any bytes are valid. So what is fuzzed is
 * structures that make sense, with single fields that do not.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "../crash/crash.h"

struct fuzz_target {
	const char *name;
	size_t max_len; /* of an input */
	/* After this many inputs the target returns to its initial state and checks what they left.
	 * When a failure is found, all inputs since then are saved. */
	unsigned inputs_per_reset;
	void (*start)(void);
	void (*one)(const uint8_t *data, size_t len);
	void (*reset)(void);
	void (*end)(void);
	void (*report)(void); /* counts of its own, or NULL */
};
extern const struct fuzz_target fuzz_target;

/* Ends the program: the target did something that it must not. */
void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- reading an input ------------------------------------------------------------------------------- */

struct input {
	const uint8_t *at;
	size_t left;
};
uint8_t take_8(struct input *in); /* 0 if nothing is left */
uint16_t take_16(struct input *in);
uint32_t take_32(struct input *in);
uint64_t take_64(struct input *in);
/* As many of len bytes as there are, followed by zeros. */
void take_bytes(struct input *in, void *to, size_t len);

/* ---- a pool to begin with (base.c) -------------------------------------------------------------------- */

/* Makes the standard pool of the crash tests with additions, on a new direct image. */
void base_make(struct image *img, const char *config);
/* The result of fsck -n on the image, which is not changed: the number of problems, or -errno.
 * Optionally counts damaged file data separately, which fsck could not repair. */
int base_check(struct image *img, bool say, unsigned *out_data);

#endif
