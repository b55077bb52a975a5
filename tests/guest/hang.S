/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An idle guest: says "hanging" on COM1 and halts for ever, with interrupts
 * off. For tests of the ways to end a VM from outside, and bench/memory. Both
 * entries as in m.S.
 */
	.section .text.start, "ax"
	.code64
	.globl start
start:
	movl	$text, %esi
	movl	$text_end - text, %ecx
	movw	$0x3f8, %dx
	cld
	rep outsb
	cli
1:	hlt
	jmp	1b

	.section .rodata, "a"
text:	.ascii	"hanging\n"
text_end:

/* XEN_ELFNOTE_PHYS32_ENTRY, see Xen's pvh.pandoc. */
	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18
	.asciz	"Xen"
	.long	start
