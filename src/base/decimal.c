// SPDX-License-Identifier: BSD-3-Clause
/* Numbers as text, without the C library. */
#include "base/decimal.h"

enum { DIGITS_MAX = 18 };

bool decimal_take(const char **text, int64_t *ret_number)
{
	bool negative = **text == '-';
	const char *digits = *text + negative;
	const char *end = digits;
	int64_t number = 0;

	for (; *end >= '0' && *end <= '9'; end++) {
		if (end - digits == DIGITS_MAX)
			return false;
		number = number * 10 + (*end - '0');
	}
	if (end == digits)
		return false;
	*text = end;
	*ret_number = negative ? -number : number;
	return true;
}

char *decimal_put(char *at, int64_t number)
{
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
	char digits[DECIMAL_SIZE];
	unsigned count = 0;

	do {
		digits[count++] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest != 0);
	if (number < 0)
		*at++ = '-';
	while (count > 0)
		*at++ = digits[--count];
	*at = '\0';
	return at;
}
