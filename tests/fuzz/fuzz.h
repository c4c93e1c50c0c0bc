/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzzing. Each program fuzzes one thing, a target; driver.c feeds it inputs: those of a corpus,
 * changed at random, and, when the library was built to tell which of its code ran (the build option
 * fuzz_coverage), those that reached something new.
 *
 * An input is a program of a few bytes, read by take_*: any bytes are one. So what is fuzzed are
 * structures that make sense, with single fields that do not.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "../crash/crash.h"

struct fuzz_target {
	const char *name;
	size_t max_len; /* of an input */
	/*
	 * After so many inputs the target goes back to how it began, looking at what they left. Who finds a
	 * failure is shown all since then.
	 */
	unsigned inputs_per_reset;
	void (*start)(void);
	void (*one)(const uint8_t *data, size_t len);
	void (*reset)(void);
	void (*end)(void);
	void (*report)(void); /* counts of its own, or NULL */
};
extern const struct fuzz_target fuzz_target;

/* Ends the program: the target did what it must not. */
void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- reading an input ------------------------------------------------------------------------------- */

struct input {
	const uint8_t *at;
	size_t left;
};
uint8_t take_8(struct input *in); /* 0 when nothing is left */
uint16_t take_16(struct input *in);
uint32_t take_32(struct input *in);
uint64_t take_64(struct input *in);
/* As many of len bytes as there are, zeros behind. */
void take_bytes(struct input *in, void *to, size_t len);

/* ---- a pool to begin with (base.c) -------------------------------------------------------------------- */

/* Makes the standard pool of the crash machine with some more, on a new direct image. */
void base_make(struct image *img, const char *config);
/*
 * What fsck -n says of the image, which is left as it is: the number of problems, or -errno. Of damaged file
 * data apart, if asked: there is nothing that fsck could repair it with.
 */
int base_check(struct image *img, bool say, unsigned *out_data);

#endif
