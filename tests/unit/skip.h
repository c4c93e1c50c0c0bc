/* SPDX-License-Identifier: BSD-3-Clause */
/* A test that cannot be done here says why: tools/check prints that, and counts it. Behind <cmocka.h>. */
#ifndef TESTS_UNIT_SKIP_H
#define TESTS_UNIT_SKIP_H

#define skip_because(why)                                                                          \
	do {                                                                                       \
		print_message("SKIP: %s\n", why);                                                  \
		skip();                                                                            \
	} while (0)

#endif
