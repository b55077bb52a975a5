// SPDX-License-Identifier: BSD-3-Clause
/*
 * Comma-separated values: what a text means, and every way to write it wrong.
 * Texts are copied to the heap, since the parser changes them.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/option_values.h"
#include "capture.h"

struct target {
	char seen[256]; /* "name=value;" of each word taken */
	bool flag;
};

static int note(void *target, const char *name, const char *value)
{
	char *seen = ((struct target *)target)->seen;
	size_t used = strlen(seen);

	snprintf(seen + used, sizeof(((struct target *)target)->seen) - used, "%s=%s;", name,
		value != NULL ? value : "(null)");
	return strcmp(value != NULL ? value : "", "refused") == 0 ? -EINVAL : 0;
}

static int apply_path(void *target, const char *option, const char *value)
{
	assert_string_equal(option, "--thing");
	return note(target, "path", value);
}

static int apply_number(void *target, const char *option, const char *value)
{
	assert_string_equal(option, "--thing");
	return note(target, "number", value);
}

static int apply_many(void *target, const char *option, const char *value)
{
	(void)option;
	return note(target, "many", value);
}

static int apply_flag(void *target, const char *option, const char *value)
{
	note(target, "flag", value);
	return suboption_bool(option, "flag", value, &((struct target *)target)->flag);
}

static const struct suboption rows[] = {
	{ "path", true, apply_path },
	{ "number", true, apply_number },
	{ "flag", false, apply_flag },
	{ "many", true, apply_many, .repeatable = true },
};

static const struct {
	const char *text;
	const char *seen;
	const char *message; /* NULL: accepted */
} cases[] = {
	{ "file", "path=file;", NULL },
	{ "path=file", "path=file;", NULL },
	{ "path=a=b", "path=a=b;", NULL },
	{ "file,number=3,flag", "path=file;number=3;flag=(null);", NULL },
	{ "flag", "flag=(null);", NULL },
	{ "flag,path=x", "flag=(null);path=x;", NULL },
	{ "flag=true", "flag=true;", NULL },
	{ "flag=false", "flag=false;", NULL },
	{ "many=1,many=2", "many=1;many=2;", NULL },
	{ "path=a,path=b", "path=a;", "'path' is given twice" },
	{ "a,path=b", "path=a;", "'path' is given twice" },
	{ "flag,flag", "flag=(null);", "'flag' is given twice" },
	{ "flag=true,number=1,flag=false", "flag=true;number=1;", "'flag' is given twice" },
	{ "", "path=;", NULL }, /* the row decides */
	{ " file ", "path= file ;", NULL },
	{ "number", "", "'number' needs a value" },
	{ "number=", "", "'number' needs a value" },
	{ "path", "", "'path' needs a value" },
	{ "path=", "", "'path' needs a value" },
	{ "file,other", "path=file;", "unknown word 'other'" },
	{ "file,other=1", "path=file;", "unknown word 'other'" },
	{ "x=y", "", "unknown word 'x'" },
	{ "=", "", "unknown word ''" },
	{ "=x", "", "unknown word ''" },
	{ "file,", "path=file;", "unknown word ''" },
	{ "file,,flag", "path=file;", "unknown word ''" },
	{ "file,Flag", "path=file;", "unknown word 'Flag'" },
	{ "file,fla", "path=file;", "unknown word 'fla'" },
	{ "file,flagg", "path=file;", "unknown word 'flagg'" },
	{ "file, flag", "path=file;", "unknown word ' flag'" },
	{ "flag=", "flag=;", "neither true nor false" },
	{ "flag=1", "flag=1;", "neither true nor false" },
	{ "flag=TRUE", "flag=TRUE;", "neither true nor false" },
	{ "flag=true=true", "flag=true=true;", "neither true nor false" },
	{ "number=refused,flag", "number=refused;", "" },
};

static void every_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct target target = { .flag = true };
		struct capture capture;
		char *text = strdup(cases[i].text);

		assert_non_null(text);
		capture_begin(&capture);
		int r = suboptions_parse("--thing", rows, ARRAY_SIZE(rows), text, NULL, &target);

		capture_end(&capture);
		if (r != (cases[i].message == NULL ? 0 : -EINVAL) ||
			strcmp(target.seen, cases[i].seen) != 0)
			fail_msg("'%s': %d, '%s'", cases[i].text, r, target.seen);
		if (cases[i].message == NULL || *cases[i].message == '\0') {
			assert_string_equal(capture.text, "");
		} else {
			if (strstr(capture.text, cases[i].message) == NULL)
				fail_msg("'%s': says %s", cases[i].text, capture.text);
			assert_non_null(strstr(capture.text, "--thing: "));
			assert_int_equal(capture_lines(&capture), 1);
		}
		free(text);
	}
}

static void a_list_without_rows_has_no_words(void **state)
{
	static const char *const texts[] = { "", "word", "word=1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct capture capture;
		char text[8];

		strcpy(text, texts[i]);
		capture_begin(&capture);
		assert_int_equal(suboptions_parse("--thing", NULL, 0, text, NULL, NULL), -EINVAL);
		capture_end(&capture);
		assert_non_null(strstr(capture.text, "unknown word"));
	}
}

static void what_came_before_counts(void **state)
{
	struct target target = { .flag = false };
	char first[] = "path=a", second[] = "flag", third[] = "number=3,path=b";
	struct capture capture;
	uint64_t seen = 0;

	(void)state;
	assert_int_equal(
		suboptions_parse("--thing", rows, ARRAY_SIZE(rows), first, &seen, &target), 0);
	assert_int_equal(
		suboptions_parse("--thing", rows, ARRAY_SIZE(rows), second, &seen, &target), 0);
	capture_begin(&capture);
	assert_int_equal(suboptions_parse("--thing", rows, ARRAY_SIZE(rows), third, &seen, &target),
		-EINVAL);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "--thing: 'path' is given twice"));
	assert_string_equal(target.seen, "path=a;flag=(null);number=3;");
}

static void a_number_is_named_by_its_word(void **state)
{
	struct capture capture;
	uint64_t number = 7;

	(void)state;
	capture_begin(&capture);
	assert_int_equal(suboption_number("--thing", "queues", "0", 1, 16, &number), -EINVAL);
	capture_end(&capture);
	assert_string_equal(
		capture.text, "crosvm: --thing: queues: '0' is not a number from 1 to 16\n");
	assert_int_equal(number, 7);
	assert_int_equal(suboption_number("--thing", "queues", "16", 1, 16, &number), 0);
	assert_int_equal(number, 16);
}

static void bool_leaves_the_result_alone_when_it_fails(void **state)
{
	struct capture capture;
	bool value = true;

	(void)state;
	capture_begin(&capture);
	assert_int_equal(suboption_bool("--thing", "flag", "no", &value), -EINVAL);
	capture_end(&capture);
	assert_true(value);
	assert_int_equal(suboption_bool("--thing", "flag", "false", &value), 0);
	assert_false(value);
	assert_int_equal(suboption_bool("--thing", "flag", NULL, &value), 0);
	assert_true(value);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_text),
		cmocka_unit_test(a_list_without_rows_has_no_words),
		cmocka_unit_test(what_came_before_counts),
		cmocka_unit_test(a_number_is_named_by_its_word),
		cmocka_unit_test(bool_leaves_the_result_alone_when_it_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
