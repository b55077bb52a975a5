// SPDX-License-Identifier: BSD-3-Clause
/* Parses what the user wrote behind an option. The text may be any string. */
#include "base/option_values.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const struct suboption *find(const struct suboption *rows, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

static int take_word(const char *option, const struct suboption *rows, size_t count, char *word,
	bool first, void *target)
{
	char *value = strchr(word, '=');

	if (value != NULL)
		*value++ = '\0';
	const struct suboption *row = find(rows, count, word);

	if (row == NULL && value == NULL && first && count > 0)
		return rows[0].apply(target, option, word);
	if (row == NULL) {
		log_error("--%s: unknown word '%s'; the manual lists them", option, word);
		return -EINVAL;
	}
	if (row->takes_value && (value == NULL || *value == '\0')) {
		log_error("--%s: '%s' needs a value: %s=...", option, word, word);
		return -EINVAL;
	}
	return row->apply(target, option, value);
}

int suboptions_parse(
	const char *option, const struct suboption *rows, size_t count, char *text, void *target)
{
	bool first = true;
	char *word;
	int r = 0;

	while (r == 0 && (word = strsep(&text, ",")) != NULL) {
		r = take_word(option, rows, count, word, first, target);
		first = false;
	}
	return r;
}

int suboption_bool(const char *option, const char *name, const char *value, bool *ret_value)
{
	if (value == NULL || strcmp(value, "true") == 0) {
		*ret_value = true;
		return 0;
	}
	if (strcmp(value, "false") == 0) {
		*ret_value = false;
		return 0;
	}
	log_error("--%s: %s=%s is neither true nor false", option, name, value);
	return -EINVAL;
}

int option_parse_number(
	const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	char *end = NULL;
	unsigned long long number = 0;

	/* strtoull() takes signs and blanks, we do not. */
	errno = 0;
	if (isdigit((unsigned char)*text))
		number = strtoull(text, &end, 10);
	if (end == NULL || *end != '\0' || errno != 0 || number < min || number > max) {
		log_error("--%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, option, text,
			min, max);
		return -EINVAL;
	}
	*ret_number = number;
	return 0;
}
