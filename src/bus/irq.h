/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An interrupt line as a device sees it: a wire to pull up or let go. Who owns
 * the interrupt controller supplies the function; devices call it from any
 * thread, under their own lock, and only when the level changes.
 */
#pragma once

#include "base/util.h"

struct irq_line {
	void (*set_level)(void *owner, bool asserted);
	void *owner;
};

static inline void irq_line_set(const struct irq_line *line, bool asserted)
{
	if (line->set_level != NULL)
		line->set_level(line->owner, asserted);
}
