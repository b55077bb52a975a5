// SPDX-License-Identifier: BSD-3-Clause
/* Parses a command line by a table. Every argument may be any string. */
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct parser {
	const struct option_set *set;
	void *target;
	char **next; /* the argument after the one being looked at; ends with NULL */
	uint64_t seen;
};

static const struct option *find_letter(const struct option_set *set, char letter)
{
	for (size_t i = 0; i < set->count; i++)
		if (set->options[i].letter != 0 && set->options[i].letter == letter)
			return &set->options[i];
	return NULL;
}

static const struct option *find_name(const struct option_set *set, const char *name, size_t length)
{
	for (size_t i = 0; i < set->count; i++)
		if (strlen(set->options[i].name) == length &&
			memcmp(set->options[i].name, name, length) == 0)
			return &set->options[i];
	return NULL;
}

/* Levenshtein distance of two short words; 99 for long ones. */
static unsigned edit_distance(const char *a, size_t a_length, const char *b)
{
	unsigned row[32];
	size_t b_length = strlen(b);

	if (a_length >= ARRAY_SIZE(row) || b_length >= ARRAY_SIZE(row))
		return 99;
	for (unsigned j = 0; j <= b_length; j++)
		row[j] = j;
	for (size_t i = 0; i < a_length; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i + 1;
		for (size_t j = 0; j < b_length; j++) {
			unsigned best = diagonal + (a[i] != b[j]);

			diagonal = row[j + 1];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (diagonal + 1 < best)
				best = diagonal + 1;
			row[j + 1] = best;
		}
	}
	return row[b_length];
}

static int report_unknown(const struct option_set *set, const char *argument)
{
	const char *name = argument + (argument[1] == '-' ? 2 : 1);
	size_t length = strcspn(name, "=");
	/* Two slips of the fingers; of one of them, --help is meant before others. */
	bool is_help = argument[1] == '-' && edit_distance(name, length, "help") < 2;
	const char *nearest = is_help ? "help" : NULL;
	unsigned nearest_distance = is_help ? 1 : 3;

	for (size_t i = 0; argument[1] == '-' && i < set->count; i++) {
		unsigned distance = edit_distance(name, length, set->options[i].name);

		if (distance < nearest_distance) {
			nearest = set->options[i].name;
			nearest_distance = distance;
		}
	}
	if (nearest != NULL)
		log_error("unknown option '%s'; did you mean '--%s'?", argument, nearest);
	else
		log_error("unknown option '%s'; '%s --help' lists the options", argument,
			set->command);
	return -EINVAL;
}

static int apply_option(struct parser *parser, const struct option *option, const char *value)
{
	uint64_t bit = UINT64_C(1) << (option - parser->set->options);

	if ((parser->seen & bit) != 0 && !option->repeatable) {
		log_error("--%s is given twice; give it once", option->name);
		return -EINVAL;
	}
	parser->seen |= bit;
	return option->apply(parser->target, value);
}

/* `attached` is what came in the same argument after '=' or the letter, or NULL. */
static int take_option(struct parser *parser, const struct option *option, const char *attached)
{
	if (option->value == NULL) {
		if (attached != NULL) {
			log_error("--%s takes no value ('%s')", option->name, attached);
			return -EINVAL;
		}
		return apply_option(parser, option, NULL);
	}
	if (attached == NULL)
		attached = *parser->next != NULL ? *parser->next++ : NULL;
	if (attached == NULL) {
		log_error("--%s needs a value: --%s %s", option->name, option->name, option->value);
		return -EINVAL;
	}
	return apply_option(parser, option, attached);
}

static int parse_long(struct parser *parser, const char *argument)
{
	const char *name = argument + 2;
	size_t length = strcspn(name, "=");

	if (strcmp(name, "help") == 0)
		return OPTIONS_HELP;
	const struct option *option = find_name(parser->set, name, length);

	if (option == NULL)
		return report_unknown(parser->set, argument);
	return take_option(parser, option, name[length] == '=' ? name + length + 1 : NULL);
}

static int parse_short(struct parser *parser, const char *argument)
{
	if (strcmp(argument, "-h") == 0)
		return OPTIONS_HELP;
	const struct option *option = find_letter(parser->set, argument[1]);

	if (option == NULL)
		return report_unknown(parser->set, argument);
	return take_option(parser, option, argument[2] != '\0' ? argument + 2 : NULL);
}

int options_parse(const struct option_set *set, int argc, char **argv, void *target)
{
	struct parser parser = { .set = set, .target = target, .next = argv + (argc > 0) };
	bool options_ended = false;
	int r = 0;

	while (r == 0 && *parser.next != NULL) {
		const char *argument = *parser.next++;

		if (options_ended || argument[0] != '-' || argument[1] == '\0')
			r = set->apply_positional(target, argument);
		else if (strcmp(argument, "--") == 0)
			options_ended = true;
		else if (argument[1] == '-')
			r = parse_long(&parser, argument);
		else
			r = parse_short(&parser, argument);
	}
	return r;
}

void options_print_help(const struct option_set *set, FILE *stream)
{
	fprintf(stream, "usage: %s [OPTIONS] %s\n%s\n\noptions:\n", set->command, set->positional,
		set->summary);
	for (size_t i = 0; i < set->count; i++) {
		const struct option *option = &set->options[i];
		char names[64];

		snprintf(names, sizeof(names), "%c%c%c --%s%s%s", option->letter ? '-' : ' ',
			option->letter ? option->letter : ' ', option->letter ? ',' : ' ',
			option->name, option->value ? " " : "", option->value ? option->value : "");
		fprintf(stream, "  %-24s  %s\n", names, option->help);
	}
	fprintf(stream, "  %-24s  %s\n", "-h, --help", "show this text");
}

int option_apply_log_level(void *target, const char *value)
{
	enum log_level level;

	(void)target;
	if (log_level_parse(value, &level) < 0) {
		log_error("--log-level: '%s' is not error, warn, info or debug", value);
		return -EINVAL;
	}
	log_set_level(level);
	return 0;
}
