/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs a test program again on pools with other features: UM_TEST_FEATURES names them. */
#ifndef TESTS_UNIT_FEATURES_H
#define TESTS_UNIT_FEATURES_H

#include <stdlib.h>
#include <string.h>

#include "umbra/umbra.h"

static inline bool test_feature(const char *name)
{
	const char *names = getenv("UM_TEST_FEATURES");

	return names && strstr(names, name);
}

static inline struct umbra_mkfs_options test_features(struct umbra_mkfs_options opt)
{
	opt.data_csum = opt.data_csum || test_feature("csum");
	opt.parity = opt.parity || test_feature("parity");
	return opt;
}

#endif
