/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The values of options: numbers, and lists as "path=disk.img,ro,queues=4". A
 * list has one row a word; a value without a name that comes first is the
 * first row's, unless that one needs its name. `option` is what messages name: "--block", "device
 * block".
 */
#pragma once

#include "base/util.h"

/* Of a label: the longest is that of a word of a device's option. */
enum { OPTION_LABEL_SIZE = 64 };

struct suboption {
	const char *name;
	bool takes_value; /* false: a word by itself; "name=true" and "name=false" too */
	/* Takes the value. 0, or -EINVAL after logging why. */
	int (*apply)(void *target, const char *option, const char *value);
	bool repeatable;
	bool needs_name; /* also if it is the first row: a slip in another word might mean something
			  */
	const char *with_commas; /* options that take its value with commas in it; NULL: none */
};

/*
 * Parses `text`, which is changed: commas and equals signs become ends of
 * strings, and values stay in use by `target`. There are 64 rows at most. `seen` has a bit for each
 * that was given, here or in a text before; NULL: there was none. 0, or -EINVAL, logged.
 */
MUST_CHECK int suboptions_parse(const char *option, const struct suboption *rows, size_t count,
	char *text, uint64_t *seen, void *target);

/* "true" or "false"; NULL, for a word by itself, is true. 0, or -EINVAL, logged. */
MUST_CHECK int suboption_bool(
	const char *option, const char *name, const char *value, bool *ret_value);

/* A whole decimal number. Not logged. */
MUST_CHECK bool option_read_number(const char *text, uint64_t *ret_number);

/*
 * One in [min, max]. 0, or -EINVAL after logging
 * "option: 'text' is not a number from min to max".
 */
MUST_CHECK int option_parse_number(
	const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *ret_number);

/* "option: name", what messages say of a word's value. */
void suboption_label(const char *option, const char *name, char ret_label[OPTION_LABEL_SIZE]);
/* option_parse_number() for a word's value. */
MUST_CHECK int suboption_number(const char *option, const char *name, const char *value,
	uint64_t min, uint64_t max, uint64_t *ret_number);
