/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The smallest guest: prints one byte 'M' on COM1 and crashes by a triple
 * fault. bench/start takes the time until the byte comes.
 *
 * Both entries, the 64-bit one of Linux and the 32-bit one of PVH (for other
 * VMMs), are the same bytes: each of these instructions means the same in
 * both modes.
 *
 * It lies low, in small pages, as that of bench/floor.c does: a huge page for its few bytes is zeroed
 * in 0.3 ms, which a real kernel would spend on its own.
 */
	.globl load_gpa
	.set load_gpa, 0x100000

	.section .text.start, "ax"
	.code64
	.globl start
start:
	movw $0x3f8, %dx
	movb $'M', %al
	outb %al, %dx
	movl $no_idt, %eax
	lidt (%rax)
	ud2

	.section .rodata, "a"
no_idt:
	.word 0
	.quad 0

/* XEN_ELFNOTE_PHYS32_ENTRY, see Xen's pvh.pandoc. */
	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18
	.asciz "Xen"
	.long start
