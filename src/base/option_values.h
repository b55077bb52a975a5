/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The values of options: numbers, and lists as "path=disk.img,ro,queues=4". A
 * list has one row a word; a value without a name that comes first is the
 * first row's. `option` is the option's long name, for messages.
 */
#pragma once

#include "base/util.h"

struct suboption {
	const char *name;
	bool takes_value; /* false: a word by itself; "name=true" and "name=false" too */
	/* Takes the value. 0, or -EINVAL after logging why. */
	int (*apply)(void *target, const char *option, const char *value);
};

/*
 * Parses `text`, which is changed: commas and equals signs become ends of
 * strings, and values stay in use by `target`. 0, or -EINVAL, logged.
 */
MUST_CHECK int suboptions_parse(
	const char *option, const struct suboption *rows, size_t count, char *text, void *target);

/* "true" or "false"; NULL, for a word by itself, is true. 0, or -EINVAL, logged. */
MUST_CHECK int suboption_bool(
	const char *option, const char *name, const char *value, bool *ret_value);

/*
 * A whole decimal number in [min, max]. 0, or -EINVAL after logging
 * "--name: 'text' is not a number from min to max".
 */
MUST_CHECK int option_parse_number(
	const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *ret_number);
