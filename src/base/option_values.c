// SPDX-License-Identifier: BSD-3-Clause
/* Parses what the user wrote behind an option. The text may be any string. */
#include "base/option_values.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
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

static int report_unknown(
	const char *option, const struct suboption *rows, size_t count, const char *word)
{
	if (count > 0 && rows[0].with_commas != NULL)
		log_error(
			"%s: unknown word '%s'; the manual lists them, and a %s with a comma in it "
			"needs %s",
			option, word, rows[0].name, rows[0].with_commas);
	else
		log_error("%s: unknown word '%s'; the manual lists them", option, word);
	return -EINVAL;
}

/* What is given twice is a slip, of which no half is to be believed. */
static int note_row(const char *option, const struct suboption *row, uint64_t bit, uint64_t *seen)
{
	if ((*seen & bit) != 0 && !row->repeatable) {
		log_error("%s: '%s' is given twice; give it once", option, row->name);
		return -EINVAL;
	}
	*seen |= bit;
	return 0;
}

static int take_word(const char *option, const struct suboption *rows, size_t count, char *word,
	bool first, uint64_t *seen, void *target)
{
	char *value = strchr(word, '=');

	if (value != NULL)
		*value++ = '\0';
	const struct suboption *row = find(rows, count, word);

	if (row == NULL && value == NULL && first && count > 0 && !rows[0].needs_name) {
		row = &rows[0];
		value = word;
	} else if (row == NULL) {
		return report_unknown(option, rows, count, word);
	} else if (row->takes_value && (value == NULL || *value == '\0')) {
		log_error("%s: '%s' needs a value: %s=...", option, word, word);
		return -EINVAL;
	}
	int r = note_row(option, row, UINT64_C(1) << (row - rows), seen);

	return r == 0 ? row->apply(target, option, value) : r;
}

int suboptions_parse(const char *option, const struct suboption *rows, size_t count, char *text,
	uint64_t *seen, void *target)
{
	uint64_t seen_here = seen != NULL ? *seen : 0;
	bool first = true;
	char *word;
	int r = 0;

	while (r == 0 && (word = strsep(&text, ",")) != NULL) {
		r = take_word(option, rows, count, word, first, &seen_here, target);
		first = false;
	}
	if (seen != NULL)
		*seen = seen_here;
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
	log_error("%s: %s=%s is neither true nor false", option, name, value);
	return -EINVAL;
}

bool option_read_number(const char *text, uint64_t *ret_number)
{
	char *end = NULL;
	unsigned long long number = 0;

	/* strtoull() takes signs and blanks, we do not. */
	errno = 0;
	if (isdigit((unsigned char)*text))
		number = strtoull(text, &end, 10);
	if (end == NULL || *end != '\0' || errno != 0)
		return false;
	*ret_number = number;
	return true;
}

int option_parse_number(
	const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	uint64_t number;

	if (!option_read_number(text, &number) || number < min || number > max) {
		log_error("%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, option, text,
			min, max);
		return -EINVAL;
	}
	*ret_number = number;
	return 0;
}

void suboption_label(const char *option, const char *name, char ret_label[OPTION_LABEL_SIZE])
{
	snprintf(ret_label, OPTION_LABEL_SIZE, "%s: %s", option, name);
}

int suboption_number(const char *option, const char *name, const char *value, uint64_t min,
	uint64_t max, uint64_t *ret_number)
{
	char label[OPTION_LABEL_SIZE];

	suboption_label(option, name, label);
	return option_parse_number(label, value, min, max, ret_number);
}
