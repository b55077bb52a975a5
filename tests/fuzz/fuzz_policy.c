// SPDX-License-Identifier: BSD-3-Clause
/*
 * jail/policy_*: any text is an error with a place, or rules that make a program
 * which the kernel would take: jumps stay inside of it, and it ends by a return.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jail/policy_compile.h"

/* As the kernel's bpf_check_classic() and seccomp_check_filter() have it. */
static void check_program(const struct sock_filter *code, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned left = count - i - 1;

		if (code[i].code == (BPF_JMP | BPF_JA) && code[i].k >= left)
			abort();
		if (BPF_CLASS(code[i].code) == BPF_JMP && code[i].code != (BPF_JMP | BPF_JA) &&
			(code[i].jt >= left || code[i].jf >= left))
			abort();
		if (code[i].code == (BPF_LD | BPF_W | BPF_ABS) &&
			(code[i].k % 4 != 0 || code[i].k >= 64))
			abort();
	}
	if (count == 0 || BPF_CLASS(code[count - 1].code) != BPF_RET)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct policy policy = { 0 };
	struct policy_error error = { "" };
	struct sock_filter *code = NULL;
	unsigned short count = 0;
	char *text = malloc(size + 1);

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	/* Nothing is included: neither from a directory that is not there nor from the root. */
	int r = strchr(text, '@') != NULL && strchr(text, '/') != NULL ? -1 : 0;

	if (r < 0) {
		free(text);
		return -1;
	}
	r = policy_parse_text(&policy, "/nowhere/t", text, &error);

	if (r == 0)
		r = policy_compile(&policy, POLICY_KILL, &code, &count, &error);
	if (r == 0)
		check_program(code, count);
	else if (strchr(error.text, ':') == NULL)
		abort();
	free(code);
	free(text);
	policy_free(&policy);
	return 0;
}
